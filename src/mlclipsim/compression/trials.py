"""Choose each arm's setting: on validation images, by machines that neither train codecs nor report on them.

Trials of one arm end at different rates. So what counts is not a trial's score but its gain: by how much it
lies above the base codecs' curve at the trial's own rate.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator

from mlclipsim.artifacts import atomic, read_json, write_json
from mlclipsim.compression import codecs
from mlclipsim.compression.codecs import CompressionModel, LearnedCodec
from mlclipsim.compression.fine_tuning import load_images
from mlclipsim.compression.image_sets import split
from mlclipsim.compression.judges import Judge, load_judges

__all__ = ["choose", "gain", "measure"]


def choose(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``codec_choice``: ``codecs`` and ``records`` of an arm's trials, ``voters`` [, references]
    -> ``choice``, ``codec``, ``record``.

    ``spec["choosing"]`` are the catalog entries of the validation judges. ``choice`` lists every trial. The
    chosen one is a training of the arm already, the first at its point: nothing is to be trained again there.

    Raises:
        ValueError: no trial's rate lies within the base codecs'.
    """
    torch.set_num_threads(int(spec["threads"]))
    compression, entry = spec["compression"], spec["codec"]["entry"]
    mosaics = list(load_images(compression["trial_images"], spec, inputs.get("references")))
    tasks = sorted({judge["task"] for judge in spec["choosing"].values()})
    judges = load_judges(
        spec["choosing"], inputs["voters"], split(mosaics, compression["mosaic"]), spec["batch_size"], tasks
    )

    def measured(point: str, weights: Path | None = None) -> dict[str, float]:
        return measure(codecs.load(entry, point, weights), mosaics, compression["mosaic"], judges)

    base = [{"point": point} | measured(point) for point in entry["points"]]
    point = compression["trial_point"]
    trials = []
    for weights, path in zip(inputs["codecs"], inputs["records"], strict=True):
        record, found = read_json(path), measured(point, weights)
        trials.append(
            {
                "rho": record["balance"]["rho"],
                "beta": record["balance"]["beta"],
                "lmbda_arm": record["balance"]["lmbda_arm"],
                "learning_rate": record["schedule"]["learning_rate"],
                **found,
                "gain": gain(base, found),
            }
        )
    within = [trial for trial in trials if trial["gain"] is not None]
    if not within:
        rates = ", ".join(f"{trial['bpp']:.3f}" for trial in trials)
        raise ValueError(
            f"{spec['arm']}: expected a trial at a rate of the base codecs, {base[0]['bpp']:.3f} to "
            f"{base[-1]['bpp']:.3f} bpp, got {rates}; try smaller rhos or learning rates"
        )
    best = max(within, key=lambda trial: trial["gain"])
    place = trials.index(best)
    for kind in ("codec", "record"):
        with atomic(outputs[kind]) as temporary:
            shutil.copyfile(inputs[f"{kind}s"][place], temporary)
    chosen = {"trial": place, "rho": best["rho"], "learning_rate": best["learning_rate"]}
    write_json(
        outputs["choice"],
        {
            "arm": spec["arm"],
            "point": point,
            "judges": sorted(spec["choosing"]),
            "base": base,
            "trials": trials,
            "chosen": chosen,
        },
    )


def measure(
    model: CompressionModel, mosaics: Sequence[np.ndarray], columns: int, judges: Sequence[Judge]
) -> dict[str, float]:
    """``bpp`` of real bitstreams, and ``score``: consistency, averaged over judges, then over tasks."""
    codec = LearnedCodec(model)
    streams = [codec.encode(image) for image in mosaics]
    decoded = split([codec.decode(stream) for stream in streams], columns)
    by_task: dict[str, list[float]] = {}
    for judge in judges:
        scores = judge.consistency(judge.predict(decoded))["score"]
        by_task.setdefault(judge.task, []).append(float(np.nanmean(scores)))
    return {
        "bpp": float(np.mean([stream.bpp for stream in streams])),
        "score": float(np.mean([np.mean(scores) for scores in by_task.values()])),
    }


def gain(base: Sequence[Mapping[str, Any]], found: Mapping[str, float]) -> float | None:
    """How far a score lies above the base codecs' curve (pchip over log-rate); None beyond its ends."""
    curve = sorted((one["bpp"], one["score"]) for one in base)
    rates, scores = zip(*curve, strict=True)
    expected = PchipInterpolator(np.log(rates), scores, extrapolate=False)(np.log(found["bpp"]))
    return None if np.isnan(expected) else found["score"] - float(expected)
