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

from mlclipsim.artifacts import read_json, read_table, write_json, write_table
from mlclipsim.benchmarks import consensus
from mlclipsim.report import claims, style
from mlclipsim.report.figures import figure_1, figure_3, figure_6, figure_8
from mlclipsim.report.tables import table_1, table_2, table_4, table_5, table_9, writer

SPEC = {
    "preset": "embedded",
    "run": "default",
    "style": {"width_mm": 174.0, "font_size_pt": 8.0, "dpi": 100},
}
TABLE, FIGURE = ("csv", "md", "tex"), ("pdf", "svg", "png", "csv")


def _outputs(folder: Path, name: str, kinds: tuple[str, ...]) -> dict[str, Path]:
    return {kind: folder / f"{name}.{kind}" for kind in kinds}


@pytest.fixture(scope="module")
def inputs(invented_pcmp, invented_weights, invented_preference, invented_ablation):
    return invented_pcmp.paths | invented_preference | invented_ablation | {"weights": [invented_weights]}


def _of_refits(inputs, folder):
    table_4.make(SPEC, {"ablation": inputs["layers"]}, _outputs(folder, "table_4", TABLE))
    table_5.make(SPEC, inputs | {"ablation": inputs["choices"]}, _outputs(folder, "table_5", TABLE))
    figure_6.make(SPEC, inputs, _outputs(folder, "figure_6", FIGURE))
    figure_8.make(SPEC, inputs, _outputs(folder, "figure_8", FIGURE))


@pytest.fixture(scope="module")
def made(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    table_1.make(SPEC, inputs, _outputs(folder, "table_1", TABLE))
    table_2.make(SPEC, inputs, _outputs(folder, "table_2", TABLE))
    _of_refits(inputs, folder)
    table_9.make(SPEC, inputs, _outputs(folder, "table_9", TABLE))
    figure_1.make(SPEC, inputs, _outputs(folder, "figure_1", FIGURE))
    figure_3.make(SPEC, inputs, _outputs(folder, "figure_3", FIGURE))
    claims.write(SPEC, inputs, _outputs(folder, "claims", ("json", "md")))
    return folder


def test_figures_and_tables_repeat_to_the_byte(made, inputs, tmp_path):
    figure_1.make(SPEC, inputs, _outputs(tmp_path, "figure_1", FIGURE))
    figure_3.make(SPEC, inputs, _outputs(tmp_path, "figure_3", FIGURE))
    table_1.make(SPEC, inputs, _outputs(tmp_path, "table_1", TABLE))
    table_2.make(SPEC, inputs, _outputs(tmp_path, "table_2", TABLE))
    _of_refits(inputs, tmp_path)
    table_9.make(SPEC, inputs, _outputs(tmp_path, "table_9", TABLE))
    again = sorted(tmp_path.iterdir())
    assert len(again) == 31
    for path in again:
        assert path.read_bytes() == (made / path.name).read_bytes(), path.name


def test_no_date_and_no_version_in_the_figures(made):
    for name in ("figure_1", "figure_3", "figure_6", "figure_8"):
        for kind in ("pdf", "svg", "png"):
            text = (made / f"{name}.{kind}").read_bytes()
            assert b"CreationDate" not in text
            assert b"dc:date" not in text
            assert b"Software" not in text


def test_report_imports_no_torch():
    modules = ["claims", "figures.figure_1", "figures.figure_3", "tables.table_1", "tables.table_2"]
    modules += ["tables.table_4", "tables.table_5", "tables.table_9", "figures.figure_6", "figures.figure_8"]
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
    tex = (made / "table_2.tex").read_text(encoding="utf-8")
    assert tex.count(r"\midrule") == 5  # head, and between classes: ours, fidelity, prior, controls, ceilings
    assert r"\textbf{" in tex
    assert "95 \\% interval" in tex
    assert "nan |" not in printed
    assert "& nan" not in tex


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
    assert images.groupby("target_db").size().tolist() == [6, 6, 6]
    assert images["reference_id"].nunique() == 1
    # every vote won by one is lost by another: shares of a full block average one half
    np.testing.assert_allclose(images.groupby("target_db")["share_held_out"].mean(), 0.5, atol=1e-6)
    assert table.loc[table["panel"] == "residual", "count"].sum() == 36 * 3 * 15
    with pytest.raises(ValueError, match="expected test references beginning with"):
        figure_1.make(SPEC | {"reference": "kodim"}, inputs, {})


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
    # held-out voters decide: a win on seen ones alone tests nothing
    found = _decide(
        tmp_path, _comparison("lpips", 0.1, kind="perceptual"), _comparison("psnr", 0.1, voters="seen")
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
