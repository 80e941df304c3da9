"""The severity test on an invented PCMP, and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlclipsim.artifacts import read_table, write_table
from mlclipsim.benchmarks import severity

SPEC = {"seed": 1, "benchmark": {"resamples": 50}}


@pytest.fixture(scope="module")
def table(invented_severity):
    return read_table(invented_severity["severity"], "preference")


@pytest.fixture(scope="module")
def value(table):
    cells = table.set_index(["slice", "metric", "variant"])["estimate"].to_dict()
    return lambda metric, variant, part="macro": cells[part, metric, variant]


def _run(tmp_path, images, *scores):
    """The step on these tables."""
    paths = []
    for number, part in enumerate(scores):
        paths.append(tmp_path / f"scores_{number}.parquet")
        write_table(paths[-1], part, "scores")
    write_table(tmp_path / "images.parquet", images, "images")
    inputs = {"images": tmp_path / "images.parquet", "scores": paths}
    severity.evaluate(SPEC, inputs, {"severity": tmp_path / "severity.parquet"})
    return read_table(tmp_path / "severity.parquet", "preference")


def _images(strengths: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    """Of (reference, family), by falling PSNR."""
    rows = [
        {"image_id": f"{reference}.{family}.{number}", "reference_id": reference, "family": family}
        | {"role": "pcmp_test", "photometric": family == "fog", "strength": strength, "image": b""}
        | {"target_db": 30.0 - number, "psnr_db": 30.0 - number, "evaluations": 1}
        for (reference, family), of_group in strengths.items()
        for number, strength in enumerate(of_group)
    ]
    return pd.DataFrame(rows).astype({"evaluations": "int32"})


def _scores(images: pd.DataFrame, values: list[float], up: bool = True) -> pd.DataFrame:
    same = {"metric": "m", "variant": "v", "higher_is_better": up, "class": "fidelity"}
    return pd.DataFrame({"image_id": images["image_id"], "score": values}).assign(**same)


def test_controls(value):
    assert value("psnr", "rgb") == 1  # by construction
    assert value("random", "uniform") == pytest.approx(0, abs=0.1)
    assert value("ssim", "rgb") == pytest.approx(0, abs=0.1)  # blind
    for part in ("macro", "all", "family=jpeg"):
        assert value("inverted", "ml_clipsim", part) == -value("ml_clipsim", "fitted", part)


def test_tau_is_kendalls(invented_pcmp, value):
    tables = invented_pcmp.tables
    score = tables.scores[tables.scores["metric"] == "gmsd"].set_index("image_id")["score"]
    test = tables.images[tables.images["role"] == "pcmp_test"]
    taus = pd.Series(
        {
            key: stats.kendalltau(-of_group["image_id"].map(score), -of_group["strength"]).statistic
            for key, of_group in test.groupby(["family", "reference_id"])
            if len(of_group) > 1
        }
    )
    by_family = taus.groupby(level=0).mean()
    for family, expected in by_family.items():
        assert value("gmsd", "rgb", f"family={family}") == pytest.approx(expected)
    assert value("gmsd", "rgb", "all") == pytest.approx(by_family.mean())
    assert value("gmsd", "rgb") == pytest.approx(by_family.drop("contrast").mean())


def test_ties_missing_scores_and_lonely_images_are_counted(tmp_path):
    images = _images({("a", "jpeg"): [0.1, 0.2, 0.3], ("b", "jpeg"): [0.1, 0.2], ("b", "blur"): [0.5]})
    table = _run(tmp_path, images, _scores(images, [3, 3, 1, np.nan, 1, 1])).set_index(["slice", "metric"])
    row = table.loc[("macro", "m")]
    assert row["estimate"] == pytest.approx(2 / 3)  # two pairs of three right, one tied
    counts = ["n_pairs", "n_ties", "n_unscored", "n_alone", "n_references"]
    assert row[counts].tolist() == [3, 1, 1, 1, 1]
    assert table.loc[("family=jpeg", "random"), "n_pairs"] == 4
    assert "family=blur" not in table.index.get_level_values("slice")


def test_direction_photometric_families_and_folds(tmp_path):
    images = _images({("a", "jpeg"): [0.1, 0.9], ("a", "fog"): [0.1, 0.9]})
    table = _run(tmp_path, images, _scores(images, [1, 2, 2, 1], up=False)).set_index(["slice", "metric"])
    assert table.loc[("macro", "m"), "estimate"] == 1
    assert table.loc[("all", "m"), "estimate"] == 0
    ours = _scores(images, [2, 1, 2, 1]).assign(metric="ml_clipsim", variant="fold_0")
    other = ours.assign(score=[1, 1, 2, 1], variant="fold_1")
    table = _run(tmp_path, images, ours, other).set_index(["slice", "metric", "variant"])
    assert table.loc[("macro", "ml_clipsim", "fitted"), "estimate"] == 0.5  # of 1 and 0
    assert table.loc[("macro", "ml_clipsim", "fitted"), "n_ties"] == 1


def test_same_seed_same_bytes_whatever_the_order_of_rows(invented_pcmp, invented_severity, tmp_path):
    paths = invented_pcmp.paths
    shuffled = tmp_path / "images.parquet"
    write_table(shuffled, invented_pcmp.tables.images.sample(frac=1, random_state=0), "images")
    inputs = {"images": shuffled, "scores": [paths["scores"], invented_severity["scores"]]}
    spec = {"seed": invented_pcmp.seed, "benchmark": {"resamples": 500}}
    severity.evaluate(spec, inputs, {"severity": tmp_path / "again.parquet"})
    assert (tmp_path / "again.parquet").read_bytes() == invented_severity["severity"].read_bytes()


def test_intervals_hold_the_estimate(table):
    assert ((table["ci_low"] <= table["estimate"]) & (table["estimate"] <= table["ci_high"])).all()
    assert set(table["voters"]) == {"none"}


def test_one_level_per_family_gives_no_rows(tmp_path):
    images = _images({("a", "jpeg"): [0.1], ("b", "jpeg"): [0.2]})
    assert _run(tmp_path, images, _scores(images, [1, 2])).empty
