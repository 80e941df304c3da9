"""The benchmark on an invented PCMP whose machines follow a known utility."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlclipsim.artifacts import ArtifactError, read_json, read_table, write_table
from mlclipsim.benchmarks import machine_preference


@pytest.fixture(scope="module")
def table(invented_preference):
    return read_table(invented_preference["preference"], "preference")


@pytest.fixture(scope="module")
def value(table):
    cells = table.set_index(["voters", "slice", "metric", "variant"])["estimate"].to_dict()
    return lambda metric, variant, part="macro", voters="held_out": cells[voters, part, metric, variant]


def _run(inputs, folder, spec):
    outputs = {
        "preference": folder / "p.parquet",
        "comparisons": folder / "c.json",
        "ceilings": folder / "k.json",
    }
    machine_preference.evaluate(spec, inputs, outputs)
    return outputs


def test_every_slice_and_both_groups_are_there(table):
    expected = {"macro", "all", "no_photometric", "photometric", "exceptions", "unanimous", "unseen_family"}
    expected |= {"psnr=22", "psnr=25", "psnr=28", "task=classification"}
    for group in ("seen", "held_out"):
        assert (
            set(table.loc[(table["voters"] == group) & (table["benchmark"] == "pcmp"), "slice"]) == expected
        )


def test_the_all_slice_by_hand(invented_pcmp, table, value):
    tables = invented_pcmp.tables
    labels = tables.labels.query("group == 'held_out'").set_index("pair_id")["label"]
    test = tables.pairs[tables.pairs["role"] == "pcmp_test"]
    p = test["pair_id"].map(labels)
    score = tables.scores[tables.scores["metric"] == "gmsd"].set_index("image_id")["score"]
    a_wins = test["image_a"].map(score) < test["image_b"].map(score)  # lower is better
    by_hand = np.where(a_wins, p, 1 - p)
    assert value("gmsd", "rgb", "all") == pytest.approx(np.nanmean(by_hand))
    # macro: mean of the means of unordered family pairs, photometric ones left out
    kept = ~test["photometric"].to_numpy()
    pair = test[["family_a", "family_b"]].apply(lambda row: "|".join(sorted(row)), axis=1)
    assert value("gmsd", "rgb") == pytest.approx(
        pd.Series(by_hand)[kept].groupby(pair.to_numpy()[kept]).mean().mean()
    )


def test_controls(table, value):
    assert value("random", "uniform", "all") == pytest.approx(0.5, abs=0.03)
    assert value("psnr", "rgb", "all") == pytest.approx(0.5, abs=0.04)  # matched in PSNR
    assert value("shuffled_labels", "test", "all") == pytest.approx(0.5, abs=0.03)
    for part in ("macro", "all", "unseen_family", "psnr=25"):
        assert value("inverted", "ml_clipsim", part) == pytest.approx(1 - value("ml_clipsim", "fitted", part))


def test_the_planted_utility_wins_and_stays_below_its_ceilings(value):
    ours = value("ml_clipsim", "fitted")
    assert value("ceiling", "attainable") > ours > value("ml_clipsim_uniform", "uniform") + 0.03
    assert ours > value("clip_global", "global") + 0.1
    assert value("ceiling", "coin_flip") == pytest.approx(0.6875, abs=2e-3)
    assert (
        value("ceiling", "coin_flip")
        < value("ceiling", "leave_one_voter_out")
        < value("ceiling", "attainable")
    )
    assert value("ceiling", "attainable", "unanimous") == 1


def test_family_prior_by_hand(invented_pcmp, value):
    tables = invented_pcmp.tables
    labels = tables.labels[tables.labels["group"] == "seen"].set_index("pair_id")["label"]

    def oriented(pairs, judged):
        first = pairs["family_a"] < pairs["family_b"]
        p = pairs["pair_id"].map(judged)
        key = np.where(first, pairs["family_a"] + pairs["family_b"], pairs["family_b"] + pairs["family_a"])
        return pd.Series(np.where(first, p, 1 - p)), key

    train, key = oriented(tables.pairs[tables.pairs["role"] == "pcmp_train"], labels)
    winner = train.groupby(key).mean() > 0.5
    held_out = tables.labels[tables.labels["group"] == "held_out"].set_index("pair_id")["label"]
    test, key = oriented(tables.pairs[tables.pairs["role"] == "pcmp_test"], held_out)
    credits = np.where(winner.loc[key], test, 1 - test)
    assert value("family_prior", "seen voters", "all") == pytest.approx(np.nanmean(credits))
    assert value("family_prior", "seen voters", "exceptions") < 0.5  # by their definition
    assert value("family_prior", "seen voters", "unseen_family") == 0.5


def test_family_prior_does_not_see_test_labels(invented_pcmp, invented_weights, tmp_path, value):
    """Turning every test label round turns the prior's credit round: had it seen them, it would follow."""
    labels = invented_pcmp.tables.labels.copy()
    test = labels["pair_id"].str.contains("pcmp_test")
    labels.loc[test, "label"] = 1 - labels.loc[test, "label"]
    write_table(tmp_path / "labels.parquet", labels, "labels")
    inputs = invented_pcmp.paths | {"weights": invented_weights, "baselines": invented_pcmp.paths["scores"]}
    spec = {"seed": 1, "folds": invented_pcmp.folds, "benchmark": {"resamples": 10, "slices": ["macro"]}}
    turned = read_table(
        _run(inputs | {"labels": tmp_path / "labels.parquet"}, tmp_path, spec)["preference"], "preference"
    ).set_index(["voters", "slice", "metric", "variant"])["estimate"]
    for metric, variant in (("family_prior", "seen voters"), ("ml_clipsim", "fitted")):
        assert turned["held_out", "macro", metric, variant] == pytest.approx(1 - value(metric, variant))


def test_intervals_hold_the_estimate_and_say_their_kind(table):
    ran = table[table["note"] == ""]
    assert ((ran["ci_low"] <= ran["estimate"]) & (ran["estimate"] <= ran["ci_high"])).all()
    assert set(ran["interval"]) == {"bootstrap"}  # 36 references
    assert (ran["n_references"] <= 36).all()
    assert set(table.loc[table["metric"] == "lpips", "note"]) == {"not run: needs AlexNet weights"}


def test_comparisons_are_paired_and_holm_adjusted(invented_preference, value):
    source = read_json(invented_preference["comparisons"])
    rows = [row for row in source["comparisons"] if row["voters"] == "held_out"]
    names = {row["metric"] for row in rows}
    assert names == {
        "ml_clipsim_uniform",
        "clip_global",
        "best_single_layer",
        "psnr",
        "gmsd",
        "ssim",
        "one_classifier_kl",
        "family_prior",
    }
    for row in rows:
        difference = value("ml_clipsim", "fitted") - value(row["metric"], row["variant"])
        assert row["difference"] == pytest.approx(difference)
        assert row["p_holm"] >= row["p"]
        assert (row["p_holm"] < 0.05) == (row["holm_ci_low"] > 0 or row["holm_ci_high"] < 0)
        assert row["range_low"] <= row["range_high"]
        assert len(row["without_voter_family"]) == 5
    p = sorted(row["p"] for row in rows)
    assert min(row["p_holm"] for row in rows) == pytest.approx(len(p) * p[0])


def test_missing_scores_and_labels_are_counted(invented_pcmp, invented_weights, tmp_path):
    scores = invented_pcmp.tables.scores.copy()
    test = scores["image_id"].str.contains("pcmp_test") & (scores["metric"] == "ssim")
    scores.loc[scores.index[test][:10], "score"] = np.nan
    write_table(tmp_path / "scores.parquet", scores, "scores")
    labels = invented_pcmp.tables.labels
    gone = labels.index[labels["pair_id"].str.contains("pcmp_test") & (labels["group"] == "held_out")][:7]
    write_table(tmp_path / "labels.parquet", labels.drop(index=gone), "labels")
    inputs = invented_pcmp.paths | {
        "weights": invented_weights,
        "baselines": [tmp_path / "scores.parquet"],
        "labels": tmp_path / "labels.parquet",
    }
    spec = {"seed": 1, "folds": invented_pcmp.folds, "benchmark": {"resamples": 10, "slices": ["all"]}}
    table = read_table(_run(inputs, tmp_path, spec)["preference"], "preference")
    rows = table[(table["voters"] == "held_out") & (table["slice"] == "all")].set_index("metric")
    total = int(invented_pcmp.tables.pairs["role"].eq("pcmp_test").sum())
    assert rows.loc["psnr", ["n_pairs", "n_unlabelled", "n_unscored"]].tolist() == [total - 7, 7, 0]
    assert rows.loc["ssim", "n_unscored"] > 0
    assert rows.loc["ssim", "n_pairs"] + rows.loc["ssim", "n_unscored"] == total - 7


def test_one_classifier_is_chosen_on_the_validation_pairs_of_each_fold(
    invented_pcmp, invented_weights, tmp_path
):
    """One training voter's KL follows its fold's labels on pcmp_val, another's contradicts them: the first is
    taken, on the test pairs too, and a held-out one never.
    """
    pairs, labels = invented_pcmp.tables.pairs, invented_pcmp.tables.labels
    predictions = invented_pcmp.tables.predictions.copy()
    fold = invented_pcmp.folds[0]
    label = pairs["pair_id"].map(labels[labels["group"] == "seen"].set_index("pair_id")["label"])
    won = [label.groupby(pairs["image_a"]).sum(), (1 - label).groupby(pairs["image_b"]).sum()]
    truth = predictions["image_id"].map(won[0].add(won[1], fill_value=0)).fillna(0)
    first, second = fold["seen"][:2]
    predictions["kl"] = np.where(predictions["voter"] == first, -truth, truth)
    predictions.loc[predictions["voter"].isin(fold["held_out"]), "kl"] = -2 * truth
    write_table(tmp_path / "predictions.parquet", predictions, "predictions")
    inputs = invented_pcmp.paths | {
        "weights": invented_weights,
        "baselines": invented_pcmp.paths["scores"],
        "predictions": tmp_path / "predictions.parquet",
    }
    spec = {"seed": 1, "folds": invented_pcmp.folds, "benchmark": {"resamples": 10, "slices": ["all"]}}
    table = read_table(_run(inputs, tmp_path, spec)["preference"], "preference")
    row = table[(table["metric"] == "one_classifier_kl") & (table["slice"] == "all")]
    assert set(row["variant"]) == {first} != {second}
    assert (row["estimate"] > 0.6).all()


def test_layers_of_a_supervised_trunk_are_a_row_only_where_the_encoder_has_one(
    invented_pcmp, invented_weights, tmp_path, table
):
    note = table.loc[table["metric"] == "supervised_layers", "note"]
    assert note.str.startswith("not run: needs an encoder that is a supervised network").all()
    inputs = invented_pcmp.paths | {"weights": invented_weights, "baselines": invented_pcmp.paths["scores"]}
    spec = {"seed": 1, "folds": invented_pcmp.folds, "benchmark": {"resamples": 10, "slices": ["macro"]}}
    spec["encoder"] = {"name": "lit-x", "entry": {"source": "lit"}}
    locked = read_table(_run(inputs, tmp_path, spec)["preference"], "preference")
    rows = locked[locked["metric"] == "supervised_layers"]
    assert set(rows["variant"]) == {"fitted", "uniform"}
    assert rows["estimate"].notna().all()


def test_few_references_are_flagged(invented_pcmp, invented_weights, tmp_path):
    pairs = invented_pcmp.tables.pairs
    few = pairs[(pairs["role"] != "pcmp_test") | pairs["reference_id"].str.contains("-000[0-9]$")]
    write_table(tmp_path / "pairs.parquet", few, "pairs")
    inputs = invented_pcmp.paths | {
        "weights": invented_weights,
        "baselines": invented_pcmp.paths["scores"],
        "pairs": tmp_path / "pairs.parquet",
    }
    spec = {"seed": 1, "folds": invented_pcmp.folds, "benchmark": {"resamples": 10, "slices": ["macro"]}}
    table = read_table(_run(inputs, tmp_path, spec)["preference"], "preference")
    assert set(table.loc[table["note"] == "", "interval"]) == {"t"}


def test_swapped_folds_are_averaged_per_pair(invented_pcmp, invented_weights, tmp_path, value):
    """Two folds that swap the groups: credits are means over both, so both groups read the same."""
    labels = invented_pcmp.tables.labels
    swapped = labels.assign(fold=1, group=labels["group"].map({"seen": "held_out", "held_out": "seen"}))
    write_table(tmp_path / "labels.parquet", pd.concat([labels, swapped]), "labels")
    weights = read_json(invented_weights)
    weights["folds"].append(weights["folds"][0] | {"fold": 1})
    from mlclipsim.artifacts import write_json

    write_json(tmp_path / "weights.json", weights)
    first = invented_pcmp.folds[0]
    folds = [first, {"seen": first["held_out"], "held_out": first["seen"]}]
    inputs = invented_pcmp.paths | {
        "weights": tmp_path / "weights.json",
        "baselines": invented_pcmp.paths["scores"],
        "labels": tmp_path / "labels.parquet",
    }
    spec = {"seed": 1, "folds": folds, "benchmark": {"resamples": 10, "slices": ["macro"]}}
    table = read_table(_run(inputs, tmp_path, spec)["preference"], "preference")
    both = table.set_index(["voters", "slice", "metric"])["estimate"]
    mean = np.mean([value("psnr", "rgb", voters=group) for group in ("seen", "held_out")])
    assert both["held_out", "macro", "psnr"] == pytest.approx(both["seen", "macro", "psnr"])
    assert both["held_out", "macro", "psnr"] == pytest.approx(mean, abs=1e-3)


def test_same_seed_same_bytes_whatever_the_order_of_rows(invented_pcmp, invented_weights, tmp_path):
    spec = {"seed": 1, "folds": invented_pcmp.folds, "benchmark": {"resamples": 50}}
    inputs = invented_pcmp.paths | {"weights": invented_weights, "baselines": invented_pcmp.paths["scores"]}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = _run(inputs, tmp_path / "a", spec)
    shuffled = {}
    for name in ("pairs", "labels", "votes"):
        shuffled[name] = tmp_path / f"{name}.parquet"
        write_table(shuffled[name], getattr(invented_pcmp.tables, name).sample(frac=1, random_state=0), name)
    second = _run(inputs | shuffled, tmp_path / "b", spec)
    assert all(first[name].read_bytes() == second[name].read_bytes() for name in first)


def test_bad_input_is_named(invented_pcmp, invented_weights, tmp_path):
    inputs = invented_pcmp.paths | {"weights": invented_weights, "baselines": invented_pcmp.paths["scores"]}
    good = {"seed": 1, "folds": invented_pcmp.folds, "benchmark": {"resamples": 10}}
    with pytest.raises(ValueError, match=r"benchmark\.slices"):
        _run(inputs, tmp_path, good | {"benchmark": {"slices": ["marco"]}})
    with pytest.raises(ArtifactError, match="expected pairs of roles"):
        _run(inputs, tmp_path, good | {"benchmark": {"roles": ["nobody"]}})
    with pytest.raises(ArtifactError, match="every voter of the folds"):
        _run(inputs, tmp_path, good | {"folds": [{"seen": ["nobody"], "held_out": ["fay"]}]})
    with pytest.raises(ArtifactError, match="weights of 2 folds"):
        _run(inputs, tmp_path, good | {"folds": invented_pcmp.folds * 2})
    scores = invented_pcmp.tables.scores.drop(columns="higher_is_better")
    write_table(tmp_path / "scores.parquet", scores, "scores")
    with pytest.raises(ArtifactError, match="higher_is_better"):
        _run(inputs | {"baselines": tmp_path / "scores.parquet"}, tmp_path, good)


def test_a_newcomer_needs_the_slice_in_which_metrics_are_compared(invented_pcmp):
    with pytest.raises(ValueError, match=r"expected benchmark.slices with macro, .* got \['all'\]"):
        machine_preference.challenge({"benchmark": {"slices": ["all"]}}, {}, invented_pcmp.paths["scores"])
