"""A run's folder as an RO-Crate: complete, readable by others, and the same whenever it is made."""

from __future__ import annotations

import json

import pytest
from rocrate.rocrate import ROCrate

from mlclipsim import cli, crate
from mlclipsim.artifacts import ArtifactError, sha256_of


def entities(run) -> dict[str, dict]:
    return {entity["@id"]: entity for entity in crate.describe(run)["@graph"]}


def test_files_of_the_run_are_its_parts(recorded_run):
    (recorded_run / "references.bib").write_text("@misc{x}")
    found = entities(recorded_run)
    parts = {part["@id"] for part in found["./"]["hasPart"]}
    assert parts == {"tables/table_2.csv", "tables/table_2.md", "provenance/table_2.json", "references.bib"}
    table = recorded_run / "tables/table_2.csv"
    assert found["tables/table_2.csv"]["sha256"] == sha256_of(table)
    assert found["tables/table_2.csv"]["contentSize"] == str(table.stat().st_size)
    assert found["./"]["license"] == "ImageNet terms"


def test_every_step_is_an_action_from_its_inputs_to_its_outputs(recorded_run):
    found = entities(recorded_run)
    actions = {e["name"]: e for e in found.values() if e["@type"] == "CreateAction"}
    assert set(actions) == {"references", "baselines", "table_2"}
    scores = {"@id": "#results/tiny/shared/baselines-1/scores.parquet"}
    assert actions["baselines"]["result"] == scores or actions["baselines"]["result"] == [scores]
    assert scores in [actions["table_2"]["object"], *actions["table_2"]["object"]]
    for action in actions.values():
        assert found[action["instrument"]["@id"]]["name"] == "mlclipsim"
    assert {mention["@id"] for mention in found["./"]["mentions"]} == {a["@id"] for a in actions.values()}


def test_nothing_refers_to_what_is_not_there(recorded_run):
    found = entities(recorded_run)

    def referred(value):
        if isinstance(value, dict):
            yield from [value["@id"]] if set(value) == {"@id"} else referred(list(value.values()))
        elif isinstance(value, list):
            for item in value:
                yield from referred(item)

    ids = {name for entity in found.values() for name in referred(entity)}
    assert {name for name in ids if not name.startswith("https://w3id.org/ro/crate/")} <= found.keys()


def test_made_again_later_it_is_the_same(recorded_run):
    first = crate.describe(recorded_run)
    path = recorded_run / "provenance/table_2.json"
    record = json.loads(path.read_text())
    record["measured"]["seconds"] += 100.0
    path.write_text(json.dumps(record))
    assert crate.describe(recorded_run) == first


def test_others_can_read_it(recorded_run, capsys):
    assert cli.main(["crate", str(recorded_run)]) == 0
    assert capsys.readouterr().out.strip() == str(recorded_run / "ro-crate-metadata.json")
    read = ROCrate(recorded_run)
    assert read.name == "ML-CLIPSim: preset tiny, run default"
    assert {entity.id for entity in read.data_entities} >= {"tables/table_2.csv", "provenance/table_2.json"}


def test_a_file_that_is_not_there_is_an_error(recorded_run):
    (recorded_run / "tables/table_2.md").unlink()
    with pytest.raises(ArtifactError, match=r"table_2\.md is not there; make it again"):
        crate.describe(recorded_run)
