"""Curves and gains of invented results whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlclipsim.artifacts import read_table, write_table
from mlclipsim.compression.curves import evaluate

from . import invented

SPEC = {"seed": 1, "rate_task": {"resamples": 20}}


def _run(paths, folder):
    made = {name: folder / f"{name}.parquet" for name in ("curves", "gains")}
    evaluate(SPEC, paths, made)
    return read_table(made["curves"], "rate_task_curves"), read_table(made["gains"], "rate_task_gains")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    return _run(invented.write(folder), folder)


def _row(gains, arm, task="classification", measure="consistency"):
    return gains[(gains["arm"] == arm) & (gains["task"] == task) & (gains["measure"] == measure)].squeeze()


def test_planted_gains_are_found_within_their_intervals(found):
    _, gains = found
    for task in invented.TASKS:
        for arm, (gain, cost) in invented.ARMS.items():
            if arm == "mse":
                continue
            row = _row(gains, arm, task)
            expected = gain - 0.12 * np.log(cost)
            assert row["bd_score_ci_low"] < expected < row["bd_score_ci_high"], (task, arm)
            assert row["bd_score"] == pytest.approx(expected, abs=0.01)
            assert 0 < row["detectable"] < 0.03
            assert (row["n_seeds"], row["anchor"], row["inversions"]) == (3, "mse", 0)


def test_the_rate_saved_is_that_of_the_shifted_curve(found):
    _, gains = found
    gain, cost = invented.ARMS["ml_clipsim"]
    assert _row(gains, "ml_clipsim")["bd_rate_percent"] == pytest.approx(
        100 * (cost * np.exp(-gain / 0.12) - 1), abs=4
    )


def test_holm_is_over_the_tasks_of_ours_alone(found):
    _, gains = found
    ours = gains[(gains["arm"] == "ml_clipsim") & (gains["measure"] == "consistency")]
    assert (ours["p_holm"] >= ours["p"]).all()
    assert (ours["holm_ci_low"] <= ours["bd_score_ci_low"] + 1e-12).all()
    assert gains.loc[gains["arm"] != "ml_clipsim", "p_holm"].isna().all()


def test_an_image_on_which_a_judge_sees_nothing_is_left_out_and_said(found):
    curves, gains = found
    row = _row(gains, "ml_clipsim", "detection")
    assert row["n_images"] == invented.SCENES - 1
    assert "1 images" in row["note"]
    assert curves.loc[curves["task"] == "classification", "n_images"].iloc[0] == invented.SCENES


def test_points_are_means_over_seeds_with_their_rates(found):
    curves, _ = found
    point = curves[
        (curves["arm"] == "mse") & (curves["quality"] == 2) & (curves["measure"] == "consistency")
    ].iloc[0]
    assert point["bpp"] == pytest.approx(0.2, rel=1e-3)
    assert point["ci_low"] < 0.75 + 0.12 * np.log(0.2) < point["ci_high"]
    assert point["uncoded"] == 1
    assert point["bpp_file"] - point["bpp"] == pytest.approx(8 * 16 / 65536)
    jpeg = curves[(curves["arm"] == "jpeg") & (curves["quality"] == 30)].iloc[0]
    assert jpeg["bpp"] - jpeg["bpp_without_constant"] == pytest.approx(8 * 623 / 65536)


def test_the_truth_and_fidelity_are_secondary(found):
    curves, gains = found
    gain, cost = invented.ARMS["ml_clipsim"]
    row = _row(gains, "ml_clipsim", "detection", "map50")
    assert row["bd_score"] == pytest.approx(0.9 * (gain - 0.12 * np.log(cost)), abs=0.005)
    assert np.isnan(row["bd_score_ci_low"])
    assert row["uncoded"] == 0.9
    fidelity = _row(gains, "ml_clipsim", "fidelity", "psnr_db")
    assert fidelity["bd_score"] == pytest.approx(0, abs=1e-3)  # PSNR depends on the rate alone
    assert set(curves.loc[curves["task"] == "fidelity", "measure"]) == {"psnr_db", "ms_ssim"}


def test_rates_that_hardly_overlap_are_noted(tmp_path):
    _, gains = _run(invented.write(tmp_path, {"mse": (0, 1), "ml_clipsim": (0.05, 3)}), tmp_path)
    row = _row(gains, "ml_clipsim")
    assert row["rate_overlap"] == pytest.approx(1 - np.log(3) / np.log(8), abs=0.01)
    assert "rates overlap by 47%" in row["note"]


def test_without_trained_arms_the_base_is_the_anchor(tmp_path):
    _, gains = _run(invented.write(tmp_path, {}), tmp_path)
    assert set(gains["anchor"]) == {"base"}
    assert np.isfinite(_row(gains, "jpeg")["bd_score"])


def test_a_seed_that_lacks_a_point_is_left_out(tmp_path):
    paths = invented.write(tmp_path)
    scores = read_table(paths["scores"], "rate_task_scores")
    lost = (scores["arm"] == "ml_clipsim") & (scores["seed"] == 1) & (scores["quality"] == 4)
    write_table(paths["scores"], scores[~lost], "rate_task_scores")
    _, gains = _run(paths, tmp_path)
    assert _row(gains, "ml_clipsim")["n_seeds"] == 2


def test_twice_the_same_bytes(tmp_path):
    paths = invented.write(tmp_path)
    _run(paths, tmp_path)
    once = (tmp_path / "gains.parquet").read_bytes()
    _run(paths, tmp_path)
    assert (tmp_path / "gains.parquet").read_bytes() == once


def test_dips_beyond_chance_are_counted(tmp_path):
    paths = invented.write(tmp_path)
    scores = read_table(paths["scores"], "rate_task_scores")
    dipped = (scores["arm"] == "ml_clipsim") & (scores["quality"].isin([2, 6]))
    scores["score"] -= 0.3 * dipped
    write_table(paths["scores"], scores, "rate_task_scores")
    _, gains = _run(paths, tmp_path)
    row = _row(gains, "ml_clipsim")
    assert row["inversions"] == 2
    assert pd.isna(row["bd_rate_percent"])
    assert "falls 2 times" in row["note"]
    assert np.isfinite(row["bd_score"])
