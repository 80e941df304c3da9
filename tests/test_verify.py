"""What was touched, is missing, or was made from something else than lies there now."""

from __future__ import annotations

import json

import pytest

from mlclipsim import cli, provenance
from mlclipsim.verify import verify


def remake(path, text):
    """Make a file of the recorded run again, with another content, as its step would."""
    path.write_text(text)
    record = json.loads((path.parent / "provenance" / f"{path.stem}.json").read_text())["made_from"]
    inputs = {name: [*map(type(path), group)] for name, group in record["inputs"].items()}
    provenance.write(
        provenance.beside({"x": path}), record["step"], record["spec"], inputs, {"x": path}, started=9.0
    )


def test_what_nobody_touched_is_sound(recorded_run):
    verdict = verify(recorded_run / "tables/table_2.csv")
    assert (verdict.problems, verdict.unrecorded) == ([], [])
    assert (verdict.n_files, verdict.n_records) == (4, 3)  # table in two forms, scores, references


def test_touched_files_are_named(recorded_run):
    (recorded_run / "tables/table_2.csv").write_text("better numbers")
    (problem,) = verify(recorded_run).problems
    assert problem.startswith("results/tiny/default/tables/table_2.csv was touched: made as ")


def test_missing_files_are_named_once(recorded_run):
    (recorded_run.parent / "shared/references-0/references.parquet").unlink()
    assert verify(recorded_run).problems == ["results/tiny/shared/references-0/references.parquet is missing"]


def test_results_of_other_inputs_are_named(recorded_run):
    """The references were made again and the scores were not."""
    remake(recorded_run.parent / "shared/references-0/references.parquet", "other scenes")
    (problem,) = verify(recorded_run).problems
    assert problem.startswith(
        "results/tiny/shared/baselines-1/scores.parquet was made from another "
        "results/tiny/shared/references-0/references.parquet: "
    )


def test_a_step_that_ran_again_to_the_same_bytes_is_no_problem(recorded_run):
    path = recorded_run.parent / "shared/references-0/references.parquet"
    remake(path, path.read_text())
    assert verify(recorded_run).problems == []


def test_an_edited_record_is_named(recorded_run):
    path = recorded_run / "provenance/table_2.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    (problem,) = verify(recorded_run).problems
    assert "table_2.json was touched" in problem


def test_other_networks_are_named(recorded_run):
    path = recorded_run / "provenance/table_2.json"
    record = json.loads(path.read_text())
    record["made_from"]["weights"] = {"ours": {"package:world/weights/manifest.json": "0" * 64}}
    path.write_text(json.dumps(record))
    (problem,) = verify(recorded_run).problems
    assert "was made by another ours: 00000000, now " in problem


def test_only_what_a_result_was_made_from_counts(recorded_run):
    (recorded_run / "tables/table_2.md").write_text("touched")
    assert verify(recorded_run.parent / "shared").problems == []


def test_a_run_is_not_whole_before_all_its_tables_are_made(recorded_run):
    assert "table_2" not in verify(recorded_run).unmade
    assert {"claims", "table_1", "figure_4", "table_trials"} <= set(verify(recorded_run).unmade)
    assert verify(recorded_run / "tables/table_2.csv").unmade == []
    assert verify(recorded_run.parent / "shared").unmade == []


def test_inputs_without_a_record_are_listed(recorded_run):
    (recorded_run.parent / "shared/references-0/provenance/references.json").unlink()
    verdict = verify(recorded_run)
    assert verdict.problems == []
    assert verdict.unrecorded == ["results/tiny/shared/references-0/references.parquet"]


@pytest.mark.parametrize(("touched", "code"), [(False, 0), (True, 1)])
def test_the_command_line(recorded_run, capsys, touched, code):
    if touched:
        (recorded_run / "tables/table_2.csv").write_text("better numbers")
    assert cli.main(["verify", str(recorded_run)]) == code
    out, err = capsys.readouterr()
    state = "1 problem" if touched else "sound"
    first, second = out.splitlines()
    assert first == f"results/tiny/default: {state} (4 files of 3 steps)"
    assert second.startswith("incomplete: not made yet, or not on record: claims, table_1, table_3, ")
    assert ("was touched" in err) == touched
