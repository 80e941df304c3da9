"""config.yaml, its schema, the catalogs and the code say the same."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
SCHEMAS = {
    p.name.split(".")[0]: json.loads(p.read_text()) for p in (ROOT / "workflow" / "schemas").glob("*.json")
}
SCHEMA = SCHEMAS["config"]


def defaults(schema):
    if "default" in schema:
        return schema["default"]
    return {key: defaults(value) for key, value in schema["properties"].items()}


def test_config_holds_every_key_with_the_default_of_the_schema():
    assert defaults(SCHEMA) == CONFIG


def test_order_of_keys_is_the_schemas():
    assert list(CONFIG) == list(SCHEMA["properties"])


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_valid_and_closed(name):
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)

    def closed(node):
        assert node.get("type") != "object" or "additionalProperties" in node or "properties" not in node
        for part in node.get("properties", {}).values():
            closed(part)

    closed(schema)


def test_every_line_of_the_config_says_why():
    lines = (ROOT / "config" / "config.yaml").read_text().splitlines()
    keys = [
        line for line in lines if line.strip() and not line.lstrip().startswith(("#", "-")) and ":" in line
    ]
    silent = [line for line in keys if "#" not in line and line.strip() not in ("held_out:",)]
    assert silent == []


def test_families_of_the_schema_are_those_of_the_package():
    from mlclipsim.distortions import FAMILIES

    assert set(SCHEMA["properties"]["pcmp"]["properties"]["families"]["items"]["enum"]) == set(FAMILIES)


def test_slices_of_the_schema_are_those_of_the_benchmark():
    from mlclipsim.benchmarks.machine_preference import SLICES

    assert SCHEMA["properties"]["benchmark"]["properties"]["slices"]["items"]["enum"] == list(SLICES)


def test_zoo_of_the_catalog_is_that_of_the_package():
    from mlclipsim.world.architectures import ARCHITECTURES

    machines = yaml.safe_load((ROOT / "config" / "catalog" / "machines.yaml").read_text())
    for name, entry in machines.items():
        if entry["builder"] == "zoo":
            known = ARCHITECTURES[entry["architecture"]]
            assert name == f"scene-{entry['architecture']}"
            assert (entry["family"], entry["task"], entry["input_size"]) == (
                known.family,
                known.task,
                known.input_size,
            )
            assert (tuple(entry["mean"]), tuple(entry["std"])) == (tuple(known.mean), tuple(known.std))


def test_embedded_folds_are_balanced():
    """Seen and held-out figures compare only with equal numbers of voters."""
    (fold,) = CONFIG["folds"]
    assert len(fold["seen"]) == len(fold["held_out"]) >= 4
