"""Tables, figures and claims from invented results: what they say, that they repeat, that no network is
loaded.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlclipsim.artifacts import SCHEMAS, read_json, read_table, write_json, write_table
from mlclipsim.benchmarks import consensus
from mlclipsim.report import claims, style
from mlclipsim.report.figures import figure_1, figure_2, figure_3, figure_6, figure_8
from mlclipsim.report.tables import table_1, table_2, table_4, table_5, table_7, table_8, table_9, writer

SPEC = {
    "preset": "embedded",
    "run": "default",
    "style": {"width_mm": 174.0, "column_mm": 84.0, "font": "DejaVu Sans", "font_size_pt": 8.0, "dpi": 100},
}
TABLE, FIGURE = ("csv", "md", "tex"), ("pdf", "svg", "png", "csv")


def _outputs(folder: Path, name: str, kinds: tuple[str, ...]) -> dict[str, Path]:
    return {kind: folder / f"{name}.{kind}" for kind in kinds}


@pytest.fixture(scope="module")
def inputs(
    invented_pcmp,
    invented_weights,
    invented_preference,
    invented_severity,
    invented_ablation,
    tmp_path_factory,
):
    folder = tmp_path_factory.mktemp("others")
    cost, correlations = folder / "cost.parquet", folder / "correlations.parquet"
    write_table(cost, _costs(), "cost")
    write_table(correlations, _judged_by_machines(), "correlations")
    others = {"severity": invented_severity["severity"], "cost": cost, "correlations": correlations}
    made = invented_preference | invented_ablation | others
    return invented_pcmp.paths | made | {"weights": [invented_weights]}


def _costs() -> pd.DataFrame:
    """Two metrics that ran, one without gradient, and one that did not."""
    nothing = dict.fromkeys([*table_7.COLUMNS, *table_7.MEASURED])
    same = {"device": "cpu", "threads": 1, "image_size": 64, "n_rounds": 7, "n_images": 4, "processor": "x"}
    ours = {"n_parameters": 86_192_640, "macs": 2_100_000_000, "class": "ours", "note": ""}
    rows = [
        ours | {"metric": "ml_clipsim", "variant": "fitted", "ms_per_image": 12.5, "ms_low": 12.25},
        {"metric": "ssim", "variant": "grey", "n_parameters": 0, "macs": 999, "ms_per_image": 0.5},
        {"metric": "lpips", "variant": "alex", "class": "perceptual", "note": "not run: needs AlexNet"},
    ]
    rows[0] |= {"ms_high": 13, "ms_per_image_backward": 20, "ms_low_backward": 19, "ms_high_backward": 21}
    rows[0] |= {"peak_mib": 400.4, "peak_mib_backward": 500}
    rows[1] |= {"ms_low": 0.5, "ms_high": 0.5, "peak_mib": 1.6, "class": "fidelity", "note": ""}
    frame = pd.DataFrame([nothing | same | row for row in rows])
    counts, measured = ["n_parameters", "macs"], [name for name in table_7.MEASURED if name != "processor"]
    return frame.astype(dict.fromkeys(counts, "Int64") | dict.fromkeys(measured, float))


def _judged_by_machines():
    """MIQD with ratings, a set with pairs, and MPD, which is not there."""
    rows = [
        ("miqd", "ml_clipsim", "fitted", "ours", {"srcc": 0.71, "n": 900, "n_excluded": 2}),
        ("miqd", "psnr", "rgb", "fidelity", {"srcc": -0.2, "n": 902}),
        ("miqd", "machine_utility", "all voters", "control", {"srcc": 0.8, "n": 902}),
        ("miqd", "lpips", "", "perceptual", {"note": "not run: needs AlexNet weights"}),
        ("miqd/fog", "ml_clipsim", "fitted", "ours", {"srcc": 0.6, "n": 90}),
        ("chosen", "ml_clipsim", "fitted", "ours", {"two_afc": 0.66, "n": 50}),
        ("mpd", "ml_clipsim", "", "ours", {"note": "not run: needs the archive"}),
    ]
    keys = ("dataset", "metric", "variant", "class")
    figures = ["srcc", "krcc", "plcc", "rmse", "two_afc"]
    figures += ["srcc_ci_low", "srcc_ci_high", "two_afc_ci_low", "two_afc_ci_high"]
    counts = {"n": 0, "n_references": 9, "n_excluded": 0}
    empty = dict.fromkeys(figures, np.nan) | counts | {"interval": "none", "note": ""}
    return pd.DataFrame([empty | dict(zip(keys, row, strict=False)) | row[-1] for row in rows])


def _of_refits(inputs, folder):
    table_4.make(SPEC, {"ablation": inputs["layers"]}, _outputs(folder, "table_4", TABLE))
    table_5.make(SPEC, inputs | {"ablation": inputs["choices"]}, _outputs(folder, "table_5", TABLE))
    figure_6.make(SPEC, inputs, _outputs(folder, "figure_6", FIGURE))
    figure_8.make(SPEC, inputs, _outputs(folder, "figure_8", FIGURE))


@pytest.fixture(scope="module")
def spec_8(invented_pcmp):
    rule = {"min_families": 2, "min_votes": 3}
    study = {"seed": 1, "folds": invented_pcmp.folds, "votes": rule, "benchmark": {"resamples": 200}}
    return SPEC | study


@pytest.fixture(scope="module")
def made(inputs, spec_8, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    table_1.make(SPEC, inputs, _outputs(folder, "table_1", TABLE))
    table_2.make(SPEC, inputs, _outputs(folder, "table_2", TABLE))
    _of_refits(inputs, folder)
    table_7.make(SPEC, inputs, _outputs(folder, "table_7", TABLE))
    table_8.make(spec_8, inputs, _outputs(folder, "table_8", TABLE))
    table_9.make(SPEC, inputs, _outputs(folder, "table_9", TABLE))
    figure_1.make(SPEC, inputs, _outputs(folder, "figure_1", FIGURE))
    figure_2.make(SPEC, inputs, _outputs(folder, "figure_2", FIGURE))
    figure_3.make(SPEC, inputs, _outputs(folder, "figure_3", FIGURE))
    claims.write(SPEC, inputs, _outputs(folder, "claims", ("json", "md")))
    return folder


def test_figures_and_tables_repeat_to_the_byte(made, inputs, spec_8, tmp_path):
    figure_1.make(SPEC, inputs, _outputs(tmp_path, "figure_1", FIGURE))
    figure_2.make(SPEC, inputs, _outputs(tmp_path, "figure_2", FIGURE))
    figure_3.make(SPEC, inputs, _outputs(tmp_path, "figure_3", FIGURE))
    table_1.make(SPEC, inputs, _outputs(tmp_path, "table_1", TABLE))
    table_2.make(SPEC, inputs, _outputs(tmp_path, "table_2", TABLE))
    _of_refits(inputs, tmp_path)
    table_7.make(SPEC, inputs, _outputs(tmp_path, "table_7", TABLE))
    table_8.make(spec_8, inputs, _outputs(tmp_path, "table_8", TABLE))
    table_9.make(SPEC, inputs, _outputs(tmp_path, "table_9", TABLE))
    again = sorted(tmp_path.iterdir())
    assert len(again) == 41
    for path in again:
        assert path.read_bytes() == (made / path.name).read_bytes(), path.name


def test_no_date_and_no_version_in_the_figures(made):
    for name in ("figure_1", "figure_2", "figure_3", "figure_6", "figure_8"):
        for kind in ("pdf", "svg", "png"):
            text = (made / f"{name}.{kind}").read_bytes()
            assert b"CreationDate" not in text
            assert b"dc:date" not in text
            assert b"Software" not in text


def test_report_imports_no_torch():
    modules = ["claims", "compare", "page", "record"]
    modules += [f"figures.figure_{number}" for number in (1, 2, 3, 6, 8)]
    modules += [f"tables.table_{number}" for number in (1, 2, 4, 5, 7, 8, 9)]
    code = "import sys; " + "; ".join(f"import mlclipsim.report.{name}" for name in modules)
    command = [sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"]
    assert subprocess.run(command, timeout=120).returncode == 0


def test_table_1_counts_by_hand(made, inputs):
    table = pd.read_csv(made / "table_1.csv")
    assert list(table.columns) == ["split", "quantity", "value"]
    value = table.set_index(["split", "quantity"])["value"]
    pairs = read_table(inputs["pairs"], "pairs")
    votes = read_table(inputs["votes"], "votes")
    assert value["pcmp_test", "references"] == 36
    assert value["pcmp_test", "images"] == 36 * 3 * 6
    assert value["pcmp_test", "pairs"] == 36 * 3 * 15
    assert value["pcmp_test", "dropped_unattainable"] == value["pcmp_test", "dropped_unattainable_low"] == 3
    assert value["pcmp_test", "dropped_unmatched_pair"] == 2
    assert value["pcmp_train", "dropped_unattainable"] == 0
    mine = votes[votes["pair_id"].isin(pairs.loc[pairs["role"] == "pcmp_test", "pair_id"])]["vote"]
    assert value["pcmp_test", "abstentions"] == mine.isna().sum()
    assert value["pcmp_test", "ties"] == (mine == 0.5).sum()
    assert value["pcmp_test", "accuracy clean"] == 1
    assert value["pcmp_test", "accuracy at 25 dB"] == pytest.approx(0.6, abs=0.03)
    assert 0.4 < value["pcmp_test", "voter_agreement"] < 0.8
    between = table[(table["split"] == "pcmp_test") & table["quantity"].str.contains(" vs ")]["value"]
    assert between.sum() == value["pcmp_test", "pairs"]
    assert between.min() == value["pcmp_test", "pairs_per_family_pair_min"]


def test_ceilings_of_both_tables_agree(made):
    first = pd.read_csv(made / "table_1.csv").set_index(["split", "quantity"])["value"]
    second = pd.read_csv(made / "table_2.csv").query("slice == 'all' and metric == 'ceiling'")
    second = second.set_index(["voters", "variant"])["estimate"]
    assert first["pcmp_test", "ceiling"] == pytest.approx(second["held_out", "attainable"], abs=1e-5)
    for group in ("seen", "held_out"):
        for variant in ("coin_flip", "leave_one_voter_out"):
            assert first["pcmp_test", f"ceiling_{variant}_{group}"] == pytest.approx(
                second[group, variant], abs=1e-5
            )


def test_table_7_has_the_public_columns_and_reads_well(made):
    table = pd.read_csv(made / "table_7.csv")
    assert list(table.columns[:9]) == table_7.COLUMNS
    assert set(table_7.MEASURED) < set(table.columns)
    assert table["n_parameters"].tolist()[:2] == [86_192_640, 0]
    printed = (made / "table_7.md").read_text(encoding="utf-8").splitlines()
    ours = "| ML-CLIPSim | 86.2 M | 2.10 G | 12.50 [12.25, 13.00] | 20.00 [19.00, 21.00] | 400 | 500 |"
    assert ours in printed
    assert "| SSIM | 0 | 999 | 0.50 [0.50, 0.50] | @ | 2 | @ |".replace("@", writer.NOTHING) in printed
    assert any(line.startswith("LPIPS: not run: needs AlexNet.") for line in printed)
    assert (made / "table_7.tex").read_text(encoding="utf-8").count(r"\midrule") == 2


def test_table_2_where_pcmp_has_one_psnr(inputs, tmp_path):
    write_table(tmp_path / "none.parquet", pd.DataFrame(columns=SCHEMAS["preference"].names), "preference")
    made = _outputs(tmp_path, "table_2", TABLE)
    table_2.make(SPEC, inputs | {"severity": tmp_path / "none.parquet"}, made)
    assert "Severity: not run: needs images at two levels of PSNR" in made["md"].read_text(encoding="utf-8")
    assert "severity" not in set(pd.read_csv(made["csv"])["benchmark"])


def test_table_2_has_the_public_columns_and_reads_well(made):
    table = pd.read_csv(made / "table_2.csv")
    assert list(table.columns[:10]) == table_2.COLUMNS
    printed = (made / "table_2.md").read_text(encoding="utf-8")
    ours = next(line for line in printed.splitlines() if line.startswith("| ML-CLIPSim |"))
    estimate = table.query(
        "slice == 'macro' and voters == 'held_out' and metric == 'ml_clipsim' and benchmark == 'pcmp'"
    )["estimate"].item()
    assert f"**{estimate:.3f}**".replace("0.", ".") in ours  # the best is bold
    assert "LPIPS: not run: needs AlexNet weights." in printed
    assert "preset embedded, run default" in printed
    assert printed.splitlines()[2].endswith("| severity |")
    tau = table.query("slice == 'macro' and benchmark == 'severity' and metric == 'ml_clipsim'")["estimate"]
    assert ours.endswith(f"| {writer.number(tau.item())} |")
    assert "| PSNR |" in printed
    assert next(line for line in printed.splitlines() if line.startswith("| PSNR |")).endswith("| 1.000 |")
    tex = (made / "table_2.tex").read_text(encoding="utf-8")
    # head, and between classes: ours, fidelity, machine, prior, controls, ceilings
    assert tex.count(r"\midrule") == 6
    assert r"\textbf{" in tex
    assert "95 \\% interval" in tex
    assert "nan |" not in printed
    assert "& nan" not in tex


def test_table_2_has_the_benchmarks_of_others(made):
    table = pd.read_csv(made / "table_2.csv").query("benchmark not in ('pcmp', 'severity')")
    ours = table[table["metric"] == "ml_clipsim"].set_index(["benchmark", "slice"])
    assert ours.loc[("miqd", "all"), ["quantity", "estimate", "n_images"]].tolist() == ["srcc", 0.71, 900]
    assert ours.loc[("miqd", "type=fog"), "estimate"] == 0.6
    assert ours.loc[("chosen", "all"), ["quantity", "estimate", "n_pairs"]].tolist() == ["2afc", 0.66, 50]
    assert ours.loc[("mpd", "all"), "note"] == "not run: needs the archive"
    assert set(table["voters"]) == {"held_out"}
    lines = (made / "table_2.md").read_text(encoding="utf-8").splitlines()
    heads = next(line for line in lines if line.startswith("| metric"))
    cells = {line.split("|")[1].strip(): line.split("|") for line in lines if line.startswith("| ")}
    srcc = heads.split("|").index(" MIQD SRCC ")
    assert "**.710**" in cells["ML-CLIPSim"][srcc]
    assert "-.200" in cells["PSNR"][srcc]
    assert any("Not run: MPD; docs/machine_iqa.md" in line for line in lines)


def test_table_5_has_the_weights_per_channel(made):
    row = pd.read_csv(made / "table_5.csv").query("factor == 'weights' and voters == 'held_out'")
    assert row["setting"].tolist() == ["per channel"]
    printed = (made / "table_5.md").read_text(encoding="utf-8")
    assert "| weights per channel |" in printed


def test_table_4_has_a_row_per_set_of_layers_and_marks_the_choice(made, inputs):
    lines = (made / "table_4.md").read_text(encoding="utf-8").splitlines()
    sets = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][2:]
    growing = [*(f"1 to {n}" for n in range(2, 6)), *(f"{n} to 6" for n in range(5, 1, -1))]
    assert sets == ["none", *"123456", *growing, "1 to 6"]
    table = read_table(inputs["layers"], "ablation").query("voters == 'held_out'")
    chosen = table.loc[table["validation"].idxmax()]
    assert sum(line.count("**") for line in lines[2:-4]) == 2
    assert any(f"**{writer.number(chosen['estimate'])}**" in line for line in lines)
    assert "nan" not in "".join(lines)
    assert (made / "table_4.tex").read_text("utf-8").count(r"\midrule") == 5


def test_table_5_says_what_each_choice_is_worth(made):
    lines = (made / "table_5.md").read_text(encoding="utf-8").splitlines()
    names = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][2:]
    assert names[:3] == [
        "encoder scene-clip, fitted",
        "encoder scene-clip, uniform",
        "encoder scene-clip, global",
    ]
    assert {"votes by top1", "tie thresholds x 0", "label hard", "loss thurstone"} <= set(names)
    assert {"fitted without JPEG", "fitted without 25 dB", "fitted on classification"} <= set(names)
    assert [name for name in names if "voters" in name] == [f"voters in the fit {n}" for n in range(1, 6)]
    assert "nan" not in "".join(lines)


def _table_8(spec, paths, folder, **changed):
    """table_8's csv from inputs of which some tables were changed."""
    for name, frame in changed.items():
        write_table(folder / f"{name}.parquet", frame, name)
    paths = paths | {name: folder / f"{name}.parquet" for name in changed}
    table_8.make(spec, paths, _outputs(folder, "table_8", TABLE))
    frame = pd.read_csv(
        folder / "table_8.csv", keep_default_na=False, na_values={"estimate": "", "ci_low": ""}
    )
    keys = ["quantity", "split", "voters", "voter", "family", "reference_read"]
    return frame.set_index(keys).sort_index()


def test_table_8_against_ground_truth_by_hand(inputs, invented_pcmp, spec_8, tmp_path):
    """ada misreads every second reference; the others read all of them."""
    tables = invented_pcmp.tables
    misread = tables.predictions["voter"].eq("ada") & tables.predictions["image_id"].str.contains(
        r"-\d{3}[13579]\.", regex=True
    )
    predictions = tables.predictions.assign(reference_correct=~misread)
    table = _table_8(spec_8, inputs, tmp_path, predictions=predictions)

    right = predictions[predictions["voter"] == "ada"].set_index("image_id")["correct"].astype(float)
    vote = tables.votes[tables.votes["voter"] == "ada"].set_index("pair_id")["vote"]
    label = tables.labels[tables.labels["group"] == "held_out"].set_index("pair_id")["label"]
    own, others, discordant = [], [], []
    for pair in tables.pairs[tables.pairs["role"] == "pcmp_test"].itertuples():
        if int(pair.reference_id[-1]) % 2 == 0:
            continue
        difference = right[pair.image_a] - right[pair.image_b]
        discordant.append(abs(difference))
        if difference:
            own.append(0.5 + difference * (vote[pair.pair_id] - 0.5))
            others.append(0.5 + difference * np.sign(round(label[pair.pair_id] - 0.5, 9)) / 2)
    key = ("pcmp_test", "seen", "ada", "", "wrong")
    assert table.at[("one_right", *key), "estimate"] == pytest.approx(np.mean(discordant), abs=1e-5)
    assert table.at[("own_truth", *key), "estimate"] == pytest.approx(np.nanmean(own), abs=1e-5)
    assert table.at[("others_truth", *key), "estimate"] == pytest.approx(np.nanmean(others), abs=1e-5)
    assert table.at[("own_truth", *key), "n"] == np.isfinite(own).sum()
    assert table.at[("own_truth", *key), "n_references"] == 18
    assert table.at[("own_truth", "pcmp_test", "seen", "bob", "", "wrong"), "n"] == 0

    # The labels without ada where she misreads: by hand, since every invented voter is a family of its own.
    wide = tables.votes.pivot(index="pair_id", columns="voter", values="vote")
    seen = invented_pcmp.folds[0]["seen"]
    four, five = (wide[names].mean(axis=1) for names in (seen[1:], seen))
    odd = (
        tables.pairs.set_index("pair_id")
        .query("role == 'pcmp_test'")["reference_id"]
        .str[-1]
        .isin(list("13579"))
    )
    four, five = (x.reindex(odd.index) for x in (four, five))
    decided = odd & (five.round(9) != 0.5) & wide["ada"].reindex(odd.index).notna()
    kept = 0.5 + np.sign((five - 0.5).round(9)) * np.sign((four - 0.5).round(9)) / 2
    row = table.loc[("majority_kept_where_votes_fell_out", "pcmp_test", "seen", "", "", "")]
    assert row["n"] == decided.sum()
    assert row["estimate"] == pytest.approx(kept[decided].mean(), abs=1e-5)
    again = np.where(odd, four, five)
    row = table.loc[("correlation", "pcmp_test", "seen", "", "", "")]
    assert row["estimate"] == pytest.approx(np.corrcoef(five, again)[0, 1], abs=1e-5)
    assert row["ci_low"] < row["estimate"]
    assert table.at[("majority_kept", "pcmp_test", "held_out", "", "", ""), "estimate"] == 1


def test_table_8_of_voters_without_ground_truth(inputs, invented_pcmp, spec_8, tmp_path):
    tables = invented_pcmp.tables
    joe = tables.voters["voter"] == "joe"
    voters = tables.voters.assign(task=np.where(joe, "detection", "classification"))
    known = tables.predictions["voter"] != "joe"
    truth = ["correct", "reference_correct"]
    predictions = tables.predictions.copy()
    predictions[truth] = predictions[truth].astype("boolean").where(known)
    changed = {"voters": voters, "predictions": predictions}
    table = _table_8(spec_8, inputs, tmp_path, **changed)
    assert table.at[("own_truth", "pcmp_test", "held_out", "joe", "", "all"), "n"] == 0
    assert table.at[("own_truth", "pcmp_test", "held_out", "ivy", "", "all"), "n"] > 0
    assert table.at[("label_left", "pcmp_test", "held_out", "", "", ""), "estimate"] == 1
    printed = (tmp_path / "table_8.md").read_text("utf-8")
    assert "No ground truth for joe" in printed
    assert "nan" not in printed


def test_table_8_circles_of_five_voters_without_a_common_view(inputs, invented_pcmp, spec_8, tmp_path):
    """Of three things that five voters rank at random none wins both its pairs with probability .0694
    (5/72; Gehrlein and Fishburn, J. Economic Theory 13, 1976). With a common view it happens less.
    """
    tables, rng = invented_pcmp.tables, np.random.default_rng(3)
    pairs = tables.pairs.set_index("pair_id")
    votes = []
    for voter in tables.voters["voter"]:
        utility = pd.Series(rng.random(len(tables.images)), index=tables.images["image_id"])
        vote = (pairs["image_a"].map(utility) > pairs["image_b"].map(utility)).astype(float)
        votes.append(vote.rename("vote").reset_index().assign(voter=voter))
    votes = pd.concat(votes, ignore_index=True)
    labels = pd.concat(
        [
            votes[votes["voter"].isin(names)].groupby("pair_id")["vote"].mean().rename("label").reset_index()
            .assign(fold=0, group=group, n_votes=5, n_families=5)
            for group, names in invented_pcmp.folds[0].items()
        ]
    )  # fmt: skip
    table = _table_8(spec_8, inputs, tmp_path, votes=votes, labels=labels)
    for group in invented_pcmp.folds[0]:
        for quantity in ("circular_triads", "circular_triads_of_random_rankings"):
            row = table.loc[(quantity, "pcmp_train", group, "", "", "")]
            assert row["n"] == 50 * 3 * 20
            assert row["estimate"] == pytest.approx(0.0694, abs=0.02)
    assert table.at[("tied_triads", "pcmp_train", "seen", "", "", ""), "estimate"] == 0


def test_table_8_common_utility_runs_in_few_circles(made):
    table = pd.read_csv(made / "table_8.csv").query("split == 'pcmp_test' and voters == 'all'")
    value = table.set_index("quantity")["estimate"]
    assert value["circular_triads"] < value["circular_triads_of_random_rankings"] / 2


def test_table_8_recovers_planted_family_utilities(inputs, invented_pcmp, spec_8, tmp_path):
    tables = invented_pcmp.tables
    families = sorted(tables.images["family"].unique())
    planted = pd.Series(np.linspace(-1.2, 1.2, len(families)), index=families)
    pairs = tables.pairs.set_index("pair_id")
    margin = pairs["family_a"].map(planted) - pairs["family_b"].map(planted)
    label = 1 / (1 + np.exp(-margin))
    labels = tables.labels.assign(label=tables.labels["pair_id"].map(label))
    table = _table_8(spec_8, inputs, tmp_path, labels=labels)
    found = table.loc["utility", "pcmp_train", "seen", ""].droplevel("reference_read")["estimate"]
    np.testing.assert_allclose(found.reindex(families), planted, atol=0.01)
    value = table.xs(("pcmp_test", "seen", "", "", ""), level=list(range(1, 6)))["estimate"]
    for quantity in ("family_utility", "image_utility", "others_label"):
        assert value[quantity] == pytest.approx(value["attainable"], abs=1e-6)


def test_table_9_says_what_each_voter_did(made, inputs):
    table = pd.read_csv(made / "table_9.csv", keep_default_na=False, dtype={"with": str})
    assert list(table.columns) == ["voter", "task", "family", "quantity", "with", "value"]
    votes = read_table(inputs["votes"], "votes").pivot(index="pair_id", columns="voter", values="vote")
    value = table.set_index(["voter", "quantity", "with"])["value"].astype(float)
    assert value["ada", "abstentions", ""] == votes["ada"].isna().sum()
    assert value["ada", "ties", ""] == (votes["ada"] == 0.5).sum()
    assert value["ada", "votes", ""] + value["ada", "abstentions", ""] == len(votes)
    assert value["ada", "references", ""] == 50 + 20 + 36
    assert value["ada", "psnr_seen_db", ""] == value["ada", "psnr_db", ""]
    expected = consensus.agreement(votes[["ada", "joe"]].to_numpy())
    assert value["ada", "agreement", "joe"] == pytest.approx(expected, abs=1e-5)
    assert value["joe", "agreement", "ada"] == value["ada", "agreement", "joe"]
    row = next(x for x in (made / "table_9.md").read_text("utf-8").splitlines() if x.startswith("| 1 ada |"))
    assert row.split("|")[4].strip() == ".900"
    assert len(row.split("|")) - 2 == 8 + 10  # the agreement matrix has a column per voter


def test_table_9_of_a_voter_without_accuracy_or_temperature(inputs, tmp_path):
    """A detector: no class to be right about, nothing to calibrate; it sees nothing on some references."""
    voters = read_table(inputs["voters"], "voters")
    predictions = read_table(inputs["predictions"], "predictions")
    joe = voters["voter"] == "joe"
    voters.loc[joe, ["task", "family"]] = "detection", "cspdarknet"
    voters.loc[joe, ["clean_accuracy", "temperature"]] = np.nan
    blank = predictions["image_id"].str.contains("pcmp_val") & (predictions["voter"] == "joe")
    write_table(tmp_path / "v", voters, "voters")
    write_table(tmp_path / "p", predictions.assign(abstains=blank), "predictions")
    paths = inputs | {"voters": tmp_path / "v", "predictions": tmp_path / "p"}
    table_9.make(SPEC, paths, _outputs(tmp_path, "table_9", TABLE))
    table = pd.read_csv(tmp_path / "table_9.csv").query("voter == 'joe'").set_index("quantity")["value"]
    assert table["references_abstained"] == 20
    assert np.isnan(table["clean_accuracy"])
    printed = (tmp_path / "table_9.md").read_text("utf-8")
    assert f"| 10 joe | detection | cspdarknet | {writer.NOTHING} | {writer.NOTHING} |" in printed
    assert "nan" not in printed


def test_figure_1_shows_what_its_csv_says(made, inputs):
    table = pd.read_csv(made / "figure_1.csv")
    images = table[table["panel"] == "image"]
    assert images["target_db"].unique().tolist() == [25.0]
    # all families, on as few references as hold them
    families = set(read_table(inputs["images"], "images", columns=["family"])["family"])
    assert set(images["family"]) == families
    rows = images.groupby("reference_id").size()
    assert (rows == 6).all()
    assert len(rows) < 2 * len(families) / 6 + 1
    # every vote won by one is lost by another: shares of a full block average one half
    np.testing.assert_allclose(images.groupby("reference_id")["share_held_out"].mean(), 0.5, atol=1e-6)
    assert table.loc[table["panel"] == "residual", "count"].sum() == 36 * 3 * 15


def test_figure_2_is_what_its_csv_says(made, inputs, invented_pcmp):
    table = pd.read_csv(made / "figure_2.csv")
    cells = table[table["panel"] == "matrix"].set_index(["family", "against"])
    mirrored = cells["estimate"].swaplevel().reindex(cells.index)
    np.testing.assert_allclose(cells["estimate"] + mirrored, 1, atol=1e-5)

    tables = invented_pcmp.tables
    labels = tables.labels[tables.labels["group"] == "held_out"].set_index("pair_id")["label"]
    pairs = tables.pairs[(tables.pairs["role"] == "pcmp_test") & tables.pairs["pair_id"].isin(labels.index)]
    gmsd = tables.scores[tables.scores["metric"] == "gmsd"].set_index("image_id")["score"]
    votes, choices = {}, {}
    for pair in pairs.itertuples():
        less = float(gmsd[pair.image_a] < gmsd[pair.image_b])  # the smaller GMSD wins
        for name, other, won, chosen in (
            (pair.family_a, pair.family_b, labels[pair.pair_id], less),
            (pair.family_b, pair.family_a, 1 - labels[pair.pair_id], 1 - less),
        ):
            votes.setdefault((name, other), []).append(won)
            choices.setdefault((name, other), []).append(chosen)
    for key, won in votes.items():
        assert cells.at[key, "estimate"] == pytest.approx(np.mean(won), abs=1e-5)
        assert cells.at[key, "n_pairs"] == len(won)
    shares = table[table["panel"] == "share"].set_index(["judge", "family"])["estimate"]
    rows = cells["estimate"].groupby("family").mean()
    np.testing.assert_allclose(shares["machines"].reindex(rows.index), rows, atol=1e-5)
    of_gmsd = pd.Series({key: np.mean(value) for key, value in choices.items()}).groupby(level=0).mean()
    np.testing.assert_allclose(shares["gmsd"].reindex(rows.index), of_gmsd, atol=1e-5)
    assert shares["machines"].is_monotonic_decreasing
    assert set(table.loc[table["photometric"], "family"]) == {"contrast"}


def test_figure_2_asks_each_fit_about_the_voters_that_judge_it(inputs, invented_pcmp, tmp_path):
    """Half of the pairs are judged in one fold, half in the other, by juries and fits of opposite taste."""
    tables, rng = invented_pcmp.tables, np.random.default_rng(0)
    utility = pd.Series(rng.random(len(tables.images)), index=tables.images["image_id"])
    pairs = tables.pairs.assign(fold=np.arange(len(tables.pairs)) % 2)
    sign = 1 - 2 * pairs["fold"]
    won = sign * (pairs["image_a"].map(utility) - pairs["image_b"].map(utility)) > 0
    labels = pairs[["pair_id", "fold"]].assign(
        label=won.astype(float), group="held_out", n_votes=5, n_families=5
    )
    write_table(tmp_path / "labels", labels, "labels")
    fits = {f"fold_{fold}": direction * utility for fold, direction in ((0, 1), (1, -1))}
    columns = {"metric": "ml_clipsim", "higher_is_better": True, "class": "ours"}
    scores = [fit.rename("score").reset_index().assign(variant=name, **columns) for name, fit in fits.items()]
    write_table(tmp_path / "scores", pd.concat(scores), "scores")
    paths = inputs | {"labels": tmp_path / "labels", "scores": [tmp_path / "scores", inputs["scores"]]}
    figure_2.make(SPEC, paths, _outputs(tmp_path, "figure_2", ("csv",)))
    table = pd.read_csv(tmp_path / "figure_2.csv").query("panel == 'share'").set_index("family")
    ours, machines = (table.loc[table["judge"] == judge, "estimate"] for judge in ("ml_clipsim", "machines"))
    pd.testing.assert_series_equal(ours, machines)


def test_figure_3_takes_several_encoders_and_folds(made, inputs, tmp_path):
    weights = read_json(inputs["weights"][0])
    two = weights | {"encoder": "other", "folds": [weights["folds"][0], weights["folds"][0] | {"fold": 1}]}
    write_json(tmp_path / "other.json", two)
    paths = {"weights": [*inputs["weights"], tmp_path / "other.json"]}
    figure_3.make(SPEC, paths, _outputs(tmp_path, "figure_3", FIGURE))
    table = pd.read_csv(tmp_path / "figure_3.csv")
    assert table.groupby(["encoder", "fold"])["share"].sum().round(4).tolist() == [1, 1, 1]
    assert (table["ci_low"] <= table["ci_high"]).all()


def _comparison(metric, difference, *, kind="fidelity", p=0.001, voters="held_out"):
    return {
        "voters": voters,
        "metric": metric,
        "variant": "rgb",
        "class": kind,
        "difference": difference,
        "ci_low": difference - 0.02,
        "ci_high": difference + 0.02,
        "interval": "bootstrap",
        "p": p,
        "p_holm": p,
        "holm_ci_low": difference - 0.03,
        "holm_ci_high": difference + 0.03,
        "n_pairs": 900,
        "n_references": 40,
        "without_voter_family": {"a": difference - 0.01, "b": difference + 0.01},
        "range_low": difference - 0.01,
        "range_high": difference + 0.01,
    }


def _decide(tmp_path, *rows):
    source = {"ours": "ml_clipsim", "slice": "macro", "primary_voters": "held_out", "comparisons": list(rows)}
    write_json(tmp_path / "comparisons.json", source)
    outputs = _outputs(tmp_path, "claims", ("json", "md"))
    claims.write(SPEC, {"comparisons": tmp_path / "comparisons.json"}, outputs)
    return {claim["claim"]: claim for claim in read_json(outputs["json"])}


def test_a_claim_holds_only_against_every_metric_of_its_class(tmp_path):
    fidelity = "machine_preference_better_than_fidelity"
    won, close = _comparison("psnr", 0.2), _comparison("haarpsi", 0.05)
    claim = _decide(tmp_path, won, close)[fidelity]
    assert (claim["verdict"], claim["estimate"], claim["ci_low"]) == ("holds", 0.05, pytest.approx(0.02))
    assert "hardest of 2: HaarPSI" in claim["evidence"]
    assert "+.040 to +.060 over leaving out each voter family" in claim["evidence"]
    assert _decide(tmp_path, won, _comparison("haarpsi", 0.01, p=0.3))[fidelity]["verdict"] == "fails"
    assert (
        _decide(tmp_path, won, _comparison("haarpsi", -0.1))[fidelity]["verdict"] == "fails"
    )  # clearly worse


def test_claims_that_cannot_be_tested_say_why(tmp_path):
    # held-out voters decide: a win on seen ones alone tests nothing; nor does one against LPIPS' stand-in
    found = _decide(
        tmp_path,
        _comparison("lpips", 0.1, kind="perceptual"),
        _comparison("deep_features", 0.1, kind="perceptual"),
        _comparison("psnr", 0.1, voters="seen"),
    )
    assert {claim["verdict"] for claim in found.values()} == {"not_tested"}
    assert "at least two of LPIPS" in found["machine_preference_better_than_perceptual"]["evidence"]
    assert {"human_competitive", "rate_task_better_on_detection", "better_than_family_prior"} <= set(found)
    keys = {"claim", "verdict", "estimate", "ci_low", "ci_high", "n", "preset", "evidence"}
    assert all(set(claim) == keys for claim in found.values())


def test_every_claim_of_the_invented_run(made):
    found = {claim["claim"]: claim["verdict"] for claim in read_json(made / "claims.json")}
    for name in ("machine_preference_better_than_fidelity", "multi_layer_better_than_global"):
        assert found[name] == "holds"
    assert "family prior: +" in (made / "claims.md").read_text(encoding="utf-8")


def test_footer_names_preset_run_and_caveat():
    assert style.footer({"preset": "local", "run": "x"}) == (
        "preset local, run x: all networks but the detector share ImageNet supervision."
    )
    assert style.footer({"preset": "paper", "run": "default"}) == "preset paper, run default."


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [(0.7123, 3, False, ".712"), (-0.05, 2, False, "-.05"), (0.05, 2, True, "+.05"), (1.0, 3, False, "1.000"),
     (0.9999, 3, False, "1.000"), (float("nan"), 3, False, writer.NOTHING), (None, 3, False, writer.NOTHING)],
)  # fmt: skip
def test_numbers_as_journals_print_them(value, digits, signed, text):
    assert writer.number(value, digits, signed=signed) == text


def test_cells_are_escaped(tmp_path):
    frame = pd.DataFrame({"a_b": ["50 % & more", writer.bold("x|y")], "n": ["1", "2"]})
    outputs = _outputs(tmp_path, "t", TABLE)
    writer.write(SPEC, outputs, tidy=frame, printed=frame, caption="A & B", name="t", rules=[1])
    tex, md = (outputs[kind].read_text(encoding="utf-8") for kind in ("tex", "md"))
    assert r"50 \% \& more & 1 \\" in tex
    assert r"\textbf{x|y}" in tex
    assert r"a\_b & n \\" in tex
    assert r"**x\|y**" in md
