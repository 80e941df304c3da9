"""Refits on an invented PCMP: they agree with the benchmark, choose nothing on test, find what is planted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from mlclipsim import fit
from mlclipsim.artifacts import read_json, read_table, write_table
from mlclipsim.benchmarks import ablation
from mlclipsim.benchmarks.ballots import Ballots
from mlclipsim.benchmarks.refit import Arm, Study

VOTES = {"divergence": "kl", "tie_log": 0.25, "epsilon": 0.01, "tie_bounded": 0.01}


@pytest.fixture(scope="module")
def layers(invented_ablation):
    return read_table(invented_ablation["layers"], "ablation")


@pytest.fixture(scope="module")
def choices(invented_ablation):
    return read_table(invented_ablation["choices"], "ablation")


def _spec(invented_pcmp, **more):
    benchmark = {"roles": ["pcmp_test"], "resamples": 50}
    return {"seed": invented_pcmp.seed, "folds": invented_pcmp.folds, "benchmark": benchmark} | more


def test_what_both_tables_have_is_equal(layers, choices, invented_preference):
    """The metric, its uniform and its global form: estimate and interval are those of table_2."""
    frame = read_table(invented_preference["preference"], "preference").query("slice == 'macro'")
    index = ["voters", "metric"]
    columns = ["estimate", "ci_low", "ci_high", "n_pairs", "n_references"]
    expected = frame[frame["class"] == "ours"].set_index(index)[columns]
    full = layers.query("factor == 'all' and with_global").set_index(["voters", "variant"])[columns]
    alone = layers.query("factor == 'none'").set_index("voters")[columns]
    single = layers.query("factor == 'alone' and not with_global").set_index("voters")
    for group in ("seen", "held_out"):
        np.testing.assert_allclose(full.loc[(group, "learned")], expected.loc[(group, "ml_clipsim")])
        np.testing.assert_allclose(full.loc[(group, "uniform")], expected.loc[(group, "ml_clipsim_uniform")])
        np.testing.assert_allclose(alone.loc[group], expected.loc[(group, "clip_global")])
        of_group = single.loc[group].set_index("validation")
        best = of_group.loc[of_group.index.max(), columns].astype(float)
        np.testing.assert_allclose(best, expected.loc[(group, "best_single_layer")])
    for factor, setting in (("label", "soft"), ("loss", "bradley_terry"), ("encoder", "scene-clip")):
        of_setting = choices[(choices["factor"] == factor) & (choices["setting"] == setting)]
        row = of_setting[of_setting["voters"] == "held_out"].iloc[0]
        np.testing.assert_allclose(row[columns].astype(float), expected.loc[("held_out", "ml_clipsim")])
        assert row["difference"] == 0


def test_differences_are_to_the_metric_as_fitted(layers):
    full = layers.query("factor == 'all' and with_global and variant == 'learned'").set_index("voters")[
        "estimate"
    ]
    expected = layers["estimate"] - layers["voters"].map(full)
    np.testing.assert_allclose(layers["difference"], expected, atol=1e-12)


def test_planted_layers_are_found(layers):
    learned = layers[
        (layers["voters"] == "held_out") & (layers["variant"] == "learned") & ~layers["with_global"]
    ]
    estimate = learned.set_index("setting")["estimate"]
    assert estimate["layer_04 to layer_06"] > estimate["layer_01 to layer_03"] + 0.05
    first = layers.query("setting == 'layer_01' and voters == 'held_out' and not with_global")
    assert first["p_holm"].item() < 0.001


def test_nothing_is_chosen_on_test(layers, invented_pcmp, invented_weights, tmp_path):
    """Turning every test label round turns estimates round and leaves fits and validation as they were."""
    labels = invented_pcmp.tables.labels.copy()
    test = labels["pair_id"].str.contains("pcmp_test")
    labels.loc[test, "label"] = 1 - labels.loc[test, "label"]
    write_table(tmp_path / "labels.parquet", labels, "labels")
    inputs = invented_pcmp.paths | {"weights": invented_weights, "labels": tmp_path / "labels.parquet"}
    ablation.layers(_spec(invented_pcmp), inputs, {"ablation": tmp_path / "a.parquet"})
    turned = read_table(tmp_path / "a.parquet", "ablation")
    np.testing.assert_array_equal(turned["validation"], layers["validation"])
    np.testing.assert_allclose(turned["estimate"], 1 - layers["estimate"])


def test_an_encoder_that_knows_nothing_is_near_chance(choices):
    blind = choices.query("setting == 'blind' and voters == 'held_out'")
    assert set(blind["variant"]) == {"fitted", "uniform", "global"}
    assert (blind["estimate"] - 0.5).abs().max() < 0.05
    assert blind["p_holm"].max() < 0.001


def test_what_was_left_out_is_judged_on_its_own_pairs(choices, invented_pcmp):
    pairs = invented_pcmp.tables.pairs.query("role == 'pcmp_test' and not photometric")
    of_jpeg = pairs[(pairs["family_a"] == "jpeg") | (pairs["family_b"] == "jpeg")]
    rows = choices[choices["factor"] == "without family"].set_index(["setting", "slice", "voters"])
    labelled = invented_pcmp.tables.labels.query("group == 'held_out'")["pair_id"]
    expected = of_jpeg["pair_id"].isin(labelled).sum()
    assert rows.loc[("jpeg", "family=jpeg", "held_out"), "n_pairs"] == expected
    assert ("contrast", "macro", "held_out") in rows.index
    assert ("contrast", "family=contrast", "held_out") not in rows.index  # photometric: not in the slice
    levels = choices[choices["factor"] == "without level"].query("voters == 'held_out'")
    by_level = levels[levels["slice"] != "macro"].set_index("slice")["n_pairs"]
    assert by_level.sum() == levels.loc[levels["slice"] == "macro", "n_pairs"].iloc[0]


def test_a_fit_without_a_family_does_not_see_it(invented_pcmp, invented_weights):
    """Labels of that family turned round, in training and validation: the same fit."""
    study = Study.read(_spec(invented_pcmp), invented_pcmp.paths | {"weights": invented_weights})
    deltas = fit.differences(study.pairs, invented_pcmp.tables.similarities)
    jpeg = ((study.pairs["family_a"] == "jpeg") | (study.pairs["family_b"] == "jpeg")).to_numpy()
    turned = np.where(jpeg[:, None], 1 - study.labels["seen"], study.labels["seen"])
    (one,), (other,) = (study.refit(deltas, labels, kept=~jpeg) for labels in (study.labels["seen"], turned))
    np.testing.assert_array_equal(one.theta, other.theta)
    assert not np.allclose(study.refit(deltas, turned)[0].theta, study.refit(deltas)[0].theta)
    assert study.refit(deltas, np.full_like(turned, np.nan)) == [None]


def test_a_task_of_one_fold_is_compared_within_that_fold(invented_pcmp, invented_weights):
    """The two folds' held-out voters contradict each other; only the first one's seen voters do the task."""
    study = Study.read(_spec(invented_pcmp), invented_pcmp.paths | {"weights": invented_weights})
    deltas = fit.differences(study.pairs, invented_pcmp.tables.similarities)
    seen, held_out = study.labels["seen"], study.labels["held_out"]
    study = replace(
        study,
        labels={"seen": np.hstack([seen, seen]), "held_out": np.hstack([held_out, 1 - held_out])},
        weights=study.weights | {"folds": 2 * study.weights["folds"]},
    )
    of_task = {"seen": np.hstack([seen, np.full_like(seen, np.nan)]), "held_out": study.labels["held_out"]}
    ballots = SimpleNamespace(tasks=["detection"], of_task=lambda _: of_task)
    full = study.prefer(deltas, study.fitted)

    def refit(**how):
        return study.prefer(deltas, study.refit(deltas, **how))

    rows = pd.DataFrame(ablation._across_tasks(study, ballots, refit, full)).query("voters == 'held_out'")
    (in_first,) = (r for r in study.judge([Arm({}, full)], full, labels={"held_out": held_out.repeat(2, 1)}))
    assert rows["difference"].abs().max() < 1e-9  # the same fit on the same labels
    np.testing.assert_allclose(rows["estimate"], in_first["estimate"])


def test_votes_cast_again_are_those_of_the_step(invented_pcmp, invented_weights, tmp_path):
    """Every rule, with a voter that is a detector and abstains now and then, against the step ``votes``."""
    from mlclipsim.pcmp import vote

    tables, rng = invented_pcmp.tables, np.random.default_rng(3)
    joe = tables.predictions["voter"] == "joe"
    predictions = tables.predictions.assign(
        box_f1=np.where(joe & (rng.random(len(joe)) < 0.9), rng.random(len(joe)), np.nan)
    )
    voters = tables.voters.assign(
        task=np.where(tables.voters["voter"] == "joe", "detection", "classification")
    )
    inputs = {"pairs": invented_pcmp.paths["pairs"]}
    for name, table in (("predictions", predictions), ("voters", voters)):
        inputs[name] = tmp_path / f"{name}.parquet"
        write_table(inputs[name], table, name)

    def cast(rule):
        outputs = {name: tmp_path / f"{name}.parquet" for name in ("votes", "labels")}
        votes = rule | {"min_families": 2, "min_votes": 3}
        vote.cast({"votes": votes, "folds": invented_pcmp.folds}, inputs, outputs)
        return outputs | {"weights": invented_weights}

    usual = cast(VOTES)
    study = Study.read(_spec(invented_pcmp), inputs | usual)
    ballots = Ballots(study, invented_pcmp.folds, usual["votes"], inputs["voters"])
    for change in ({}, {"divergence": "logit_cosine"}, {"tie_log": 0.0, "tie_bounded": 0.05}):
        expected = Study.read(_spec(invented_pcmp), inputs | cast(VOTES | change))
        found = ballots.cast(predictions, VOTES | change)
        for group in ("seen", "held_out"):
            np.testing.assert_allclose(found[group], expected.labels[group])
    of_joe = ballots.of_task("detection")
    assert np.isnan(of_joe["seen"]).all()
    assert set(np.unique(of_joe["held_out"][np.isfinite(of_joe["held_out"])])) == {0, 0.5, 1}


def test_more_data_do_no_harm_and_the_ends_are_known(invented_ablation, layers):
    frame = read_table(invented_ablation["data_size"], "data_size").query("voters == 'held_out'")
    frame = frame.set_index(["quantity", "size"])
    assert list(frame.loc["references"].index) == [0, 3, 20, 50]
    assert list(frame.loc["pairs"].index[:2]) == [0, 30]  # 9,999 are more than there are
    assert list(frame.loc["voters"].index) == [0, 1, 2, 3, 4, 5]
    assert list(frame.loc["voters", "n_draws"]) == [1, 3, 3, 3, 3, 1]
    ends = layers.query("factor == 'all' and with_global and voters == 'held_out'").set_index("variant")
    for quantity in ("references", "pairs", "voters"):
        estimate = frame.loc[quantity, "estimate"]
        assert estimate.iloc[0] == pytest.approx(ends.loc["uniform", "estimate"])
        assert estimate.iloc[-1] == pytest.approx(ends.loc["learned", "estimate"])
        assert estimate.iloc[0] + 0.02 < estimate.iloc[-1]
    assert (frame["draw_low"] <= frame["estimate"] + 1e-12).all()
    assert (frame["estimate"] <= frame["draw_high"] + 1e-12).all()


def test_calibration_by_hand(invented_ablation, invented_pcmp, invented_weights):
    frame = read_table(invented_ablation["calibration"], "calibration").query("voters == 'held_out'")
    tables, fold = invented_pcmp.tables, read_json(invented_weights)["folds"][0]
    pairs = tables.pairs.query("role == 'pcmp_test' and not photometric")
    labels = tables.labels.query("group == 'held_out'").set_index("pair_id")["label"]
    p = pairs["pair_id"].map(labels).to_numpy()
    score = tables.similarities.set_index("image_id").drop(columns="reference_id") @ np.array(fold["weights"])
    margin = (pairs["image_a"].map(score) - pairs["image_b"].map(score)).to_numpy() / fold["tau"]
    won = np.where(margin > 0, p, 1 - p)
    votes = frame[frame["panel"] == "votes"]
    inside = np.abs(margin) > np.quantile(np.abs(margin), 0.9)
    assert votes["estimate"].iloc[-1] == pytest.approx(np.nanmean(won[inside]))
    assert votes["predicted"].iloc[-1] == pytest.approx(expit(np.abs(margin[inside])).mean())
    assert votes["n_pairs"].sum() == np.isfinite(p).sum()
    # The planted votes are logistic in the utility: the fit is calibrated but for its estimate.
    assert np.average((votes["predicted"] - votes["estimate"]).abs(), weights=votes["n_pairs"]) < 0.05
    ours = frame[(frame["panel"] == "accuracy") & (frame["metric"] == "ml_clipsim")]
    sure = np.abs(2 * p - 1) > 0.8
    assert ours["estimate"].iloc[-1] == pytest.approx(np.mean((margin > 0)[sure] == (p > 0.5)[sure]))
    assert set(frame["metric"]) >= {"ml_clipsim", "ml_clipsim_uniform", "clip_global", "gmsd", "psnr"}
