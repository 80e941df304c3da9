"""Table, figures and claims of the rate-task study, from invented results."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mlclipsim.artifacts import read_table, write_json, write_table
from mlclipsim.compression.curves import evaluate
from mlclipsim.images import encode_image
from mlclipsim.report import claims
from mlclipsim.report.figures import figure_4, figure_5, figure_training
from mlclipsim.report.tables import table_6, table_trials

sys.path.insert(0, str(Path(__file__).parents[1] / "compression"))
import invented

SPEC = {
    "preset": "ci",
    "run": "default",
    "style": {"width_mm": 174.0, "column_mm": 84.0, "font": "DejaVu Sans", "font_size_pt": 8.0, "dpi": 60},
    "codec": {"name": invented.OURS},
    "marked_judges": {},
    "judged_tasks": {"ann": "classification", "cat": "detection", "dot": "segmentation"},
}
FORMATS = ("csv", "md", "tex", "pdf", "svg", "png")


def _outputs(folder, name):
    return {kind: folder / f"{name}.{kind}" for kind in FORMATS}


def _manifest():
    trials = [
        {
            "rho": rho,
            "beta": 100 * rho,
            "lmbda_arm": 0.001,
            "learning_rate": 1e-3,
            "bpp": 0.3,
            "score": 0.7,
            "gain": gain,
        }
        for rho, gain in ((0.3, 0.01), (1.0, 0.03), (3.0, None))
    ]
    plain = [trial | {"rho": None, "beta": 0.0} for trial in trials]
    choices = {
        arm: {
            "arm": arm,
            "point": "q2",
            "judges": ["val"],
            "base": [],
            "trials": tried,
            "chosen": {"trial": 1},
        }
        for arm, tried in (("mse", plain), ("ml_clipsim", trials))
    }
    curve = [
        {"step": step, "learning_rate": 1e-3, "validation_loss": 2 - step / 1000} for step in (0, 100, 200)
    ]
    curve[1]["train_loss"] = 1.5
    codecs = {
        f"{arm}-{point}-s{seed}": {"arm": arm, "point": point, "seed": seed, "curve": curve}
        for arm in choices
        for point in ("q1", "q2")
        for seed in (0, 1)
    }
    return {"choices": choices, "codecs": codecs}


def _reconstructions():
    image = encode_image(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    map_ = [float("nan")] + [0.5] * 255
    rows = [{"arm": "original", "image_id": "one", "image": image}]
    rows += [
        {
            "arm": arm,
            "image_id": "one",
            "image": image,
            "quality": 2.0,
            "bpp": 0.2,
            "psnr_db": 28.0,
            "score": 0.7,
            "similarity": map_,
        }
        for arm in ("mse", "ml_clipsim", "jpeg")
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rate_task")
    paths = invented.write(folder)
    results = {name: folder / f"{name}.parquet" for name in ("curves", "gains")}
    evaluate({"seed": 1, "rate_task": {"resamples": 20}}, paths, results)
    write_json(folder / "not_run.json", {"task_kl": "trained for another network"})
    write_json(folder / "manifest.json", _manifest())
    write_table(folder / "reconstructions.parquet", _reconstructions(), "reconstructions")
    inputs = SimpleNamespace(
        curves=results["curves"],
        gains=results["gains"],
        not_run=folder / "not_run.json",
        manifest=folder / "manifest.json",
        images=folder / "reconstructions.parquet",
    )
    _make_all(inputs, folder)
    return SimpleNamespace(folder=folder, inputs=inputs)


def _make_all(inputs, folder):
    table_6.make(SPEC, {"gains": inputs.gains, "not_run": inputs.not_run}, _outputs(folder, "table_6"))
    table_trials.make(SPEC, {"manifest": inputs.manifest}, _outputs(folder, "table_trials"))
    figure_4.make(SPEC, {"curves": inputs.curves}, _outputs(folder, "figure_4"))
    figure_5.make(SPEC, {"images": inputs.images}, _outputs(folder, "figure_5"))
    figure_training.make(SPEC, {"manifest": inputs.manifest}, _outputs(folder, "figure_training"))


def test_all_repeat_to_the_byte(made, tmp_path):
    _make_all(made.inputs, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2 * 3 + 3 * 4
    for name in names:
        assert (tmp_path / name).read_bytes() == (made.folder / name).read_bytes(), name


def test_table_6_has_the_public_columns_first(made):
    with (made.folder / "table_6.csv").open() as stream:
        columns = next(csv.reader(stream))
    assert columns[:12] == [
        *("task", "codec", "arm", "anchor", "bd_score", "bd_score_ci_low", "bd_score_ci_high"),
        *("bd_rate_percent", "n_images", "n_seeds", "inversions", "note"),
    ]
    assert "detectable" in columns


def test_table_6_reads_well(made):
    lines = (made.folder / "table_6.md").read_text(encoding="utf-8").splitlines()
    ours = next(line for line in lines if line.startswith("| classification: ML-CLIPSim |"))
    assert "**+.04" in ours  # a gain of .05 at 5 % more rate
    assert "> .840" in ours  # .90 is beyond the curve
    anchor = next(line for line in lines if "(anchor)" in line)
    assert anchor.split("|")[1].strip() == "classification: MSE (anchor)"
    assert sum("not run" in line for line in lines if line.startswith("|")) == 3
    frame = pd.read_csv(made.folder / "table_6.csv")
    assert set(frame.loc[frame["arm"] == "task_kl", "note"]) == {"not run: trained for another network"}


def test_table_6_names_marked_judges(made, tmp_path):
    marked = SPEC | {"marked_judges": {"dot": "mobilenetv2"}}
    table_6.make(
        marked, {"gains": made.inputs.gains, "not_run": made.inputs.not_run}, _outputs(tmp_path, "t")
    )
    assert "no claim rests on it: dot (mobilenetv2)" in (tmp_path / "t.md").read_text()


def test_trials_are_all_listed_and_the_chosen_one_is_bold(made):
    lines = (made.folder / "table_trials.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| M")]
    assert len(rows) == 6
    assert [("**" in row) for row in rows] == [False, True, False] * 2
    frame = pd.read_csv(made.folder / "table_trials.csv")
    assert list(frame["chosen"]) == [False, True, False] * 2
    assert frame["gain"].isna().sum() == 2


def test_figures_hold_what_their_csv_says(made):
    curves = read_table(made.inputs.curves, "rate_task_curves")
    assert len(pd.read_csv(made.folder / "figure_4.csv")) == len(curves)
    shown = pd.read_csv(made.folder / "figure_5.csv")
    assert list(shown["arm"]) == ["mse", "ml_clipsim", "jpeg"]
    training = pd.read_csv(made.folder / "figure_training.csv")
    assert len(training) == 8 * 3
    assert training["validation_loss"].notna().all()


def _claims(made, folder, spec=SPEC, change=None):
    comparisons = {"comparisons": [], "primary_voters": "held_out", "slice": "macro"}
    write_json(folder / "comparisons.json", comparisons)
    gains = read_table(made.inputs.gains, "rate_task_gains")
    if change:
        gains.loc[(gains["arm"] == "ml_clipsim") & (gains["measure"] == "consistency"), list(change)] = list(
            change.values()
        )
    write_table(folder / "gains.parquet", gains, "rate_task_gains")
    inputs = {"comparisons": folder / "comparisons.json", "gains": folder / "gains.parquet"}
    claims.write(spec, inputs, {"json": folder / "claims.json", "md": folder / "claims.md"})
    found = pd.read_json(folder / "claims.json").set_index("claim")
    return found.loc[[f"rate_task_better_on_{task}" for task in invented.TASKS]]


def test_claims_of_a_planted_gain_hold(made, tmp_path):
    found = _claims(made, tmp_path)
    assert set(found["verdict"]) == {"holds"}
    assert (found["ci_low"] > 0).all()
    assert "detectable with 80 % power" in found["evidence"].iloc[0]


@pytest.mark.parametrize(
    ("change", "verdict", "says"),
    [
        ({"p_holm": 0.2}, "fails", "BD-score over MSE"),
        ({"bd_score": -0.02}, "fails", "BD-score over MSE"),
        ({"n_seeds": 2}, "not_tested", "needs codecs trained with 3 seeds"),
        ({"rate_overlap": 0.5}, "not_tested", "needs rates that overlap by 75%, not 50%"),
        ({"anchor": "base"}, "not_tested", "needs codecs trained with 3 seeds"),
    ],
)
def test_claims_that_fail_or_cannot_be_tested(made, tmp_path, change, verdict, says):
    found = _claims(made, tmp_path, change=change)
    assert set(found["verdict"]) == {verdict}
    assert says in found["evidence"].iloc[0]


def test_no_claim_rests_on_a_judge_of_the_encoders_family(made, tmp_path):
    found = _claims(made, tmp_path, spec=SPEC | {"marked_judges": {"dot": "mobilenetv2"}})
    assert list(found["verdict"]) == ["holds", "holds", "not_tested"]
    assert "not dot" in found["evidence"].iloc[2]
