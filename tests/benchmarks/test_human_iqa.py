"""Correlations with people: against scipy and closed forms, with their signs, with intervals that cover."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit

from mlclipsim.artifacts import ArtifactError, read_json, read_table, write_json, write_table
from mlclipsim.benchmarks import human_iqa
from mlclipsim.benchmarks.utility import machine_utility

TYPES = ("blur", "jpeg", "noise")


def rated(n_references: int = 12, per_reference: int = 12, *, dmos: bool = False, seed: int = 0) -> dict:
    """A data set whose quality is known: ratings and similarities see it through noise, `gmsd` against it."""
    rng = np.random.default_rng(seed)
    n = n_references * per_reference
    images = pd.DataFrame(
        {
            "image_id": [f"i{number:04d}" for number in range(n)],
            "reference_id": np.repeat([f"r{number:02d}" for number in range(n_references)], per_reference),
            "distortion": np.resize(TYPES, n),
        }
    )
    quality = rng.normal(size=n) + np.repeat(rng.normal(0, 0.3, n_references), per_reference)
    rating = 5 + 2 * np.tanh(quality) + rng.normal(0, 0.2, n)
    ratings = images.assign(rating=-rating if dmos else rating, higher_is_better=not dmos)

    def seen(noise: float) -> np.ndarray:
        return quality + rng.normal(0, noise, n)

    layers = {"layer_01": seen(1.5), "layer_02": seen(0.4), "global": seen(1.0)}
    similarities = images[["image_id", "reference_id"]].assign(**layers)
    untrained = similarities.assign(layer_01=rng.normal(size=n), layer_02=rng.normal(size=n))
    scores = pd.concat(
        [
            images[["image_id"]].assign(metric=name, variant="rgb", score=value, higher_is_better=up)
            for name, value, up in (
                ("psnr", np.where(np.arange(n) < 3, np.nan, seen(1.0)), True),
                ("gmsd", -seen(0.5), False),
                ("ssim", -seen(0.5), True),  # ranks the wrong way round
            )
        ]
    ).assign(**{"class": "fidelity"})
    predictions = images[["image_id"]].assign(
        voter="ada", kl=-seen(0.6), kl_t4=np.nan, js=np.nan, logit_cosine=np.nan, top1=np.nan, box_f1=np.nan,
        mean_iou=np.nan, abstains=False, psnr_seen_db=30.0, correct=False, reference_correct=True,
    )  # fmt: skip
    return {
        "ratings": ratings,
        "similarities": similarities,
        "untrained": untrained,
        "baselines": scores,
        "predictions": predictions,
    }


SCHEMAS = {"baselines": "scores", "untrained": "similarities", "pairs": "human_comparisons"}
SPEC = {
    "seed": 1,
    "datasets": ["made"],
    "votes": {"divergence": "kl"},
    "benchmark": {"resamples": 40},
    "metrics": {"psnr": {}, "lpips": {"class": "perceptual", "needs": "AlexNet weights"}},
    "known": {"made": "nothing", "live": "a form"},
}


def inputs(folder: Path, tables: dict[str, pd.DataFrame]) -> dict:
    empty = pd.DataFrame(
        {column: [] for column in ("pair_id", "reference_id", "distortion", "image_a", "image_b")}
    )
    tables = {"pairs": empty.astype(str).assign(label=pd.Series(dtype=float)), **tables}
    paths: dict = {}
    for name, table in tables.items():
        path = folder / f"{name}.parquet"
        write_table(path, table, SCHEMAS.get(name, name))
        paths[name] = [path]
    constant = {
        "task": "classification",
        "clean_accuracy": 0.9,
        "n_clean": 9,
        "temperature": 1.0,
        "sha256": "",
    }
    write_table(
        folder / "voters.parquet", pd.DataFrame([{"voter": "ada", "family": "a", **constant}]), "voters"
    )
    folds = [{"weights": [0.2, 0.8, 0.0]}, {"weights": [0.0, 0.8, 0.2]}]
    write_json(folder / "weights.json", {"layers": ["layer_01", "layer_02", "global"], "folds": folds})
    best = {"metric": "best_single_layer", "variant": "layer_01, layer_02"}
    write_json(folder / "preference.json", {"comparisons": [best]})
    return paths | {
        "voters": folder / "voters.parquet",
        "weights": folder / "weights.json",
        "preference": folder / "preference.json",
    }


def evaluate(folder: Path, tables: dict[str, pd.DataFrame], **spec) -> tuple[pd.DataFrame, list[dict]]:
    folder.mkdir(exist_ok=True)
    made = {"correlations": folder / "correlations.parquet", "comparisons": folder / "comparisons.json"}
    human_iqa.evaluate(SPEC | spec, inputs(folder, tables), made)
    frame = read_table(made["correlations"], "correlations").set_index(["dataset", "metric"])
    return frame, read_json(made["comparisons"])["comparisons"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tables = rated()
    return tables, *evaluate(tmp_path_factory.mktemp("human"), tables)


def test_correlations_are_scipys_and_keep_their_sign(made):
    tables, frame, _ = made
    rating = tables["ratings"]["rating"].to_numpy()
    scores = tables["baselines"].pivot(index="image_id", columns="metric", values="score")
    for metric, sign in (("gmsd", -1), ("ssim", 1)):
        row = frame.loc[("made", metric)]
        assert row["srcc"] == pytest.approx(stats.spearmanr(sign * scores[metric], rating).statistic)
        assert row["krcc"] == pytest.approx(stats.kendalltau(sign * scores[metric], rating).statistic)
    assert frame.loc[("made", "gmsd"), "srcc"] > 0.7  # lower is better there, and it sides with people
    assert frame.loc[("made", "ssim"), "srcc"] < -0.7  # the wrong way round stays visible


def test_ours_has_the_mean_weights_of_the_folds(made):
    tables, frame, _ = made
    values = tables["similarities"]
    fitted = 0.1 * values["layer_01"] + 0.8 * values["layer_02"] + 0.1 * values["global"]
    expected = stats.spearmanr(fitted, tables["ratings"]["rating"]).statistic
    assert frame.loc[("made", "ml_clipsim"), "srcc"] == pytest.approx(expected)
    best = (values["layer_01"] + values["layer_02"]) / 2
    expected = stats.spearmanr(best, tables["ratings"]["rating"]).statistic
    assert frame.loc[("made", "best_single_layer"), "srcc"] == pytest.approx(expected)
    assert abs(frame.loc[("made", "untrained"), "srcc"]) < 0.6


def test_dmos_turns_the_rating_and_nothing_else(made, tmp_path):
    _, frame, compared = made
    other, other_compared = evaluate(tmp_path, rated(dmos=True))
    columns = ["srcc", "krcc", "plcc", "rmse", "srcc_ci_low", "n", "n_excluded"]
    pd.testing.assert_frame_equal(other[columns], frame[columns])
    assert other_compared == compared


def test_scores_that_are_not_numbers_are_counted(made):
    _, frame, compared = made
    row = frame.loc[("made", "psnr")]
    assert (row["n"], row["n_excluded"]) == (141, 3)
    assert frame.loc[("made", "gmsd"), "n_excluded"] == 0
    assert next(row for row in compared if row["metric"] == "psnr")["n"] == 141


def test_types_of_distortion_have_rows_of_their_own(made):
    tables, frame, _ = made
    mask = tables["ratings"]["distortion"] == "jpeg"
    score = tables["baselines"].query("metric == 'gmsd'")["score"].to_numpy()
    expected = stats.spearmanr(-score[mask], tables["ratings"]["rating"][mask]).statistic
    row = frame.loc[("made/jpeg", "gmsd")]
    assert row["srcc"] == pytest.approx(expected)
    assert row["n"] == 48
    assert np.isnan(row["srcc_ci_low"])
    assert np.isnan(row["plcc"])
    assert row["note"] == "no PLCC and RMSE below 100 images"


def test_what_did_not_run_is_named(made):
    _, frame, _ = made
    assert frame.loc[("made", "lpips"), "note"] == "not run: needs AlexNet weights"
    assert frame.loc[("live", "ml_clipsim"), "note"].startswith("not run: needs a form")
    assert np.isnan(frame.loc[("live", "ml_clipsim"), "srcc"])


def test_without_data_sets_all_are_named(tmp_path):
    made = {"correlations": tmp_path / "c.parquet", "comparisons": tmp_path / "c.json"}
    human_iqa.evaluate(SPEC | {"datasets": []}, {}, made)
    frame = read_table(made["correlations"], "correlations")
    assert list(frame["dataset"]) == ["made", "live"]
    assert frame["note"].str.startswith("not run").all()
    assert json.loads(made["comparisons"].read_text())["comparisons"] == []


def test_few_references_have_t_intervals_and_more_a_bootstrap(made, tmp_path):
    _, frame, compared = made
    row = frame.loc[("made", "gmsd")]
    assert row["interval"] == "t"
    assert row["srcc_ci_low"] < row["srcc"] < row["srcc_ci_high"] < 1
    assert row["plcc_ci_low"] < row["plcc"] < row["plcc_ci_high"] < 1
    assert row["rmse_ci_low"] < row["rmse"] < row["rmse_ci_high"]
    against = next(row for row in compared if row["metric"] == "gmsd")
    assert against["ci_low"] < against["difference"] < against["ci_high"]
    assert against["difference"] == pytest.approx(frame.loc[("made", "ml_clipsim"), "srcc"] - row["srcc"])
    many, _ = evaluate(tmp_path, rated(32, 4))
    row = many.loc[("made", "gmsd")]
    assert row["interval"] == "bootstrap"
    assert row["srcc_ci_low"] < row["srcc"] < row["srcc_ci_high"]


def test_choices_between_pairs_give_2afc(tmp_path):
    tables = rated(40, 2)
    images = tables["ratings"]["image_id"]
    better = tables["ratings"]["rating"].to_numpy().reshape(40, 2)
    pairs = pd.DataFrame(
        {
            "pair_id": tables["ratings"]["reference_id"][::2].to_numpy(),
            "reference_id": tables["ratings"]["reference_id"][::2].to_numpy(),
            "distortion": np.resize(["cnn", "deblur"], 40),
            "image_a": images[::2].to_numpy(),
            "image_b": images[1::2].to_numpy(),
            "label": np.where(better[:, 0] > better[:, 1], 0.9, 0.2),
        }
    )
    tables["ratings"] = tables["ratings"].iloc[:0]
    frame, compared = evaluate(tmp_path, tables | {"pairs": pairs})
    row = frame.loc[("made", "gmsd")]
    score = -tables["baselines"].query("metric == 'gmsd'")["score"].to_numpy().reshape(40, 2)
    prefers_a = score[:, 0] > score[:, 1]
    expected = np.where(prefers_a, pairs["label"], 1 - pairs["label"]).mean()
    assert row["two_afc"] == pytest.approx(expected)
    assert row["two_afc_ci_low"] < expected < row["two_afc_ci_high"]
    assert (row["n"], frame.loc[("made", "psnr"), "n_excluded"]) == (40, 2)  # of three images without a score
    assert frame.loc[("made/cnn", "gmsd"), "n"] == 20
    assert np.isnan(row["srcc"])
    assert compared == []


def test_weights_of_other_layers_are_refused(tmp_path):
    tables = rated()
    tables["similarities"] = tables["similarities"].rename(columns={"layer_02": "layer_03"})
    with pytest.raises(ArtifactError, match="weights are for"):
        evaluate(tmp_path, tables)


# --- the logistic


def test_a_logistic_is_found_again():
    x = np.linspace(-2, 2, 200)
    y = 2.4 * (expit(3 * (x - 0.3)) - 0.5) + 0.1 * x
    fitted = human_iqa.fit_logistic(x, y)
    assert fitted.converged
    assert fitted.n_parameters == 5
    np.testing.assert_allclose(fitted(x), y, atol=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_logistic_never_falls(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 150))
    fitted = human_iqa.fit_logistic(x, y - 0.5 * x)
    assert np.diff(fitted(np.linspace(-4, 4, 200))).min() >= -1e-9


def test_a_metric_the_wrong_way_round_has_no_good_plcc():
    """A logistic free to fall would report .9: that is how a wrong sign hides."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    values, _ = human_iqa.correlations(-x, x + 0.3 * rng.normal(size=200))
    assert values[0] < -0.9
    assert np.isnan(values[2]) or values[2] < 0.2


def test_plcc_and_rmse_of_a_straight_line():
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(2, 400))
    y = 50 + 10 * x + 3 * noise
    values, logistic = human_iqa.correlations(x, y)
    line = stats.linregress(x, y)
    assert line.rvalue <= values[2] < line.rvalue + 0.005
    assert values[3] == pytest.approx(np.std(y - line.slope * x), abs=0.05)  # in the rating's units
    assert logistic is not None


def test_too_few_images_or_constant_scores_have_no_logistic():
    x = np.arange(99.0)
    values, logistic = human_iqa.correlations(x, x)
    assert values[:2] == pytest.approx(1)
    assert np.isnan(values[2:]).all()
    assert logistic is None
    assert np.isnan(human_iqa.correlations(np.ones(200), np.arange(200.0))[0]).all()


def test_ties_are_tau_b():
    score, rating = np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 2, 3])
    assert human_iqa.correlations(score, rating)[0][1] == pytest.approx(
        4 / 5
    )  # 4 concordant, a tie each side


def test_one_that_does_not_converge_falls_back_to_four_and_then_says_so(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=150)
    y = x + rng.normal(size=150)
    monkeypatch.setattr(human_iqa, "_EVALUATIONS", 1)
    fitted = human_iqa.fit_logistic(x, y)
    assert (fitted.n_parameters, fitted.converged) == (4, False)
    values, logistic = human_iqa.correlations(x, y)
    assert np.isnan(values[2:]).all()
    assert human_iqa._note(150, logistic, values) == "the logistic did not converge"


# --- machine utility


def predictions(**columns: list[float]) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "image_id": ["a", "b", "c"],
                    "voter": voter,
                    "kl": values if voter != "det" else np.nan,
                    "box_f1": values if voter == "det" else np.nan,
                    "mean_iou": np.nan,
                }
            )
            for voter, values in columns.items()
        ]
    )


def test_utility_averages_ranks_over_tasks_families_and_voters():
    voters = pd.DataFrame(
        {
            "voter": ["v1", "v2", "v3", "det"],
            "task": ["classification"] * 3 + ["detection"],
            "family": ["f", "f", "g", "h"],
        }
    )
    table = predictions(v1=[0.0, 1.0, 9.0], v2=[0.0, 2.0, 1.0], v3=[0.1, 0.1, 5.0], det=[0.5, 0.0, np.nan])
    utility = machine_utility(table, voters, "kl")
    ranks = {"v1": [1, 0.5, 0], "v2": [1, 0, 0.5], "v3": [0.75, 0.75, 0]}
    classified = (np.mean([ranks["v1"], ranks["v2"]], axis=0) + ranks["v3"]) / 2
    assert utility["a"] == pytest.approx((classified[0] + 0) / 2)
    assert utility["b"] == pytest.approx((classified[1] + 1) / 2)
    assert utility["c"] == pytest.approx(classified[2])  # the detector abstains


def test_utility_needs_every_voters_family():
    voters = pd.DataFrame({"voter": ["v1"], "task": ["classification"], "family": ["f"]})
    with pytest.raises(ArtifactError, match=r"not those of \['v2'\]"):
        machine_utility(predictions(v1=[0.0] * 3, v2=[0.0] * 3), voters, "kl")


# --- coverage


@pytest.mark.slow
def test_intervals_cover_at_24_references():
    """SRCC of a bivariate normal with r = .8 is 6/pi asin(r/2); references shift both sides together."""
    rng = np.random.default_rng(0)
    shared, n, size = 0.2, 24, 20
    truth = 6 / np.pi * np.arcsin(0.8 / 2)
    covered = 0
    for _ in range(300):
        common = np.repeat(rng.normal(size=(2, n)) * np.sqrt(shared), size, axis=1)
        own = rng.normal(size=(2, n * size)) * np.sqrt(1 - shared)
        z = common + own
        x, y = z[0], 0.8 * z[0] + 0.6 * z[1]
        ratings = pd.DataFrame(
            {
                "image_id": np.arange(n * size).astype(str),
                "reference_id": np.repeat(np.arange(n), size),
                "distortion": "x",
                "rating": y,
                "higher_is_better": True,
            }
        )
        panel = human_iqa.Panel("x", ratings, 10, rng)

        def srcc(rows: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
            value = stats.spearmanr(x[rows], y[rows]).statistic
            return np.array([value, 0.0, 0.0, 0.0])

        rows = np.arange(n * size)
        found = panel.interval(srcc, rows, srcc(rows))
        covered += found.low[0] <= truth <= found.high[0]
    assert 0.92 <= covered / 300 <= 0.98
