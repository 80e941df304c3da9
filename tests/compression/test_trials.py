"""The choice of settings: gains against the base codecs' curve, on an invented judge."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlclipsim.artifacts import read_json, write_json

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

BASE = [{"bpp": 0.1, "score": 0.2}, {"bpp": 0.2, "score": 0.5}, {"bpp": 0.4, "score": 0.8}]
COMPRESSION = {
    "rhos": [0.3, 3.0],
    "learning_rate": 0.001,
    "learning_rates": [0.1, 0.2],
    "trial_point": "q1",
    "mosaic": 1,
    "trial_images": {"codec_val": 3},
}


def test_gain_is_above_the_curve_at_the_own_rate() -> None:
    from mlclipsim.compression.trials import gain

    assert gain(BASE, {"bpp": 0.2, "score": 0.6}) == pytest.approx(0.1)
    between = {"bpp": 0.1 * math.sqrt(2), "score": 0.35}  # the curve is a line over log-rate
    assert gain(BASE, between) == pytest.approx(0, abs=1e-9)
    assert gain(BASE[::-1], between) == pytest.approx(0, abs=1e-9)
    assert gain(BASE, {"bpp": 0.41, "score": 0.9}) is None


def test_every_arm_has_as_many_trials() -> None:
    from mlclipsim.compression.arms import ARMS
    from mlclipsim.compression.fine_tuning import settings_of_trials

    settings = {name: settings_of_trials(name, COMPRESSION) for name in ARMS}
    assert {len(trials) for trials in settings.values()} == {2}
    assert [trial["rho"] for trial in settings["task_kl"]] == [0.3, 3.0]
    assert {trial["learning_rate"] for trial in settings["task_kl"]} == {0.001}
    assert settings["mse"] == settings["ms_ssim"]
    assert [trial["learning_rate"] for trial in settings["mse"]] == [0.1, 0.2]


class Brightness:
    """A judge that likes bright reconstructions."""

    task = "classification"

    def predict(self, images: list[np.ndarray]) -> list[float]:
        return [float(image.mean()) / 255 for image in images]

    def consistency(self, predictions: list[float]) -> pd.DataFrame:
        return pd.DataFrame({"score": [*predictions[:-1], np.nan]})  # abstains on the last


def test_chooses_the_largest_gain_and_lists_all(
    random_codec: Callable[[str], Any],
    photograph: Callable[[int, int], np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlclipsim.compression import codecs, trials

    points = {}
    for number, name in enumerate(("low", "high")):  # two rates
        model = random_codec("bmshj2018-factorized")
        model.g_a[-1].weight.data *= (1, 100)[number]
        codecs.save(model, tmp_path / f"{name}.safetensors")
        points[name] = {"weights": str(tmp_path / f"{name}.safetensors")}
    tried = []
    for number, light in enumerate((0.0, 0.4, 0.2)):  # at a rate between
        model = random_codec("bmshj2018-factorized")
        model.g_a[-1].weight.data *= 10
        model.g_s[-1].bias.data += light
        tried.append(tmp_path / f"mse-t{number}.safetensors")
        codecs.save(model, tried[-1])
        weights = {"rho": None, "beta": 0.0, "lmbda_arm": 0.0035}
        write_json(
            tried[-1].with_suffix(".json"),
            {"balance": weights, "schedule": {"learning_rate": (number + 1) / 10}},
        )
    monkeypatch.setattr(trials, "load_judges", lambda *_: [Brightness()])
    monkeypatch.setattr(trials, "load_images", lambda *_: np.stack([photograph(64, 64)] * 3))
    spec = {
        "threads": 1,
        "arm": "mse",
        "batch_size": 8,
        "compression": COMPRESSION | {"trial_point": "low"},
        "choosing": {"ada": {"task": "classification"}},
        "codec": {
            "entry": {"model": "bmshj2018-factorized", "channels": [12, 16], "points": points},
        },
    }
    inputs = {
        "codecs": tried,
        "records": [path.with_suffix(".json") for path in tried],
        "voters": tmp_path / "voters.parquet",
    }
    outputs = {"choice": tmp_path / "mse.json", "codec": tmp_path / "mse-low-s0.safetensors"}
    outputs["record"] = outputs["codec"].with_suffix(".json")
    trials.choose(spec, inputs, outputs)
    choice = read_json(tmp_path / "mse.json")
    for kind in ("codec", "record"):  # of the chosen trial, which is not trained again
        assert outputs[kind].read_bytes() == inputs[f"{kind}s"][1].read_bytes()
    assert choice["chosen"] == {"trial": 1, "rho": None, "learning_rate": 0.2}
    assert [trial["learning_rate"] for trial in choice["trials"]] == [0.1, 0.2, 0.3]
    gains = [trial["gain"] for trial in choice["trials"]]
    assert gains[1] > gains[2] > gains[0]
    rates = [trial["bpp"] for trial in choice["trials"]]
    assert rates[0] == rates[1]  # only the decoder differs
    assert choice["base"][0]["bpp"] < rates[0] < choice["base"][1]["bpp"]

    model.g_a[-1].weight.data *= 1000
    codecs.save(model, tried[0])
    with pytest.raises(ValueError, match="mse: expected a trial at a rate of the base codecs"):
        trials.choose(spec, {**inputs, "codecs": tried[:1], "records": inputs["records"][:1]}, {})
