"""The catalog of codecs: what its schema and the check of a configuration refuse."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mlclipsim.spec import ConfigError, load, project_root

ROOT = project_root()
CATALOG = yaml.safe_load((ROOT / "config" / "catalog" / "codecs.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((ROOT / "workflow" / "schemas" / "codecs.schema.json").read_text(encoding="utf-8"))


def _refuses(name: str, **changes: Any) -> bool:
    entry = copy.deepcopy(CATALOG[name]) | changes
    entry = {key: value for key, value in entry.items() if value is not None}
    return not jsonschema.Draft202012Validator(SCHEMA).is_valid({name: entry})


def test_takes_the_catalog_as_it_is() -> None:
    assert not any(_refuses(name) for name in CATALOG)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("scene-factorized", {"id": 256}),
        ("scene-factorized", {"points": None}),
        ("scene-factorized", {"qualities": [1]}),
        ("scene-factorized", {"channels": [24, 32, 3]}),
        ("scene-factorized", {"points": {"best": {"lambda": 0.01, "weights": "package:x"}}}),
        ("scene-factorized", {"points": {"q256": {"lambda": 0.01, "weights": "package:x"}}}),
        ("scene-factorized", {"points": {"q1": {"lambda": 0, "weights": "package:x"}}}),
        ("scene-factorized", {"points": {"q1": {"lambda": 0.01}}}),  # whose weights?
        ("mbt2018", {"points": {"q1": {"lambda": 0.01, "weights": "mine.pth"}}}),  # which file?
        ("mbt2018", {"points": {"q1": {"lambda": 0.01, "sha256": "0" * 64}}}),  # of what?
        ("mbt2018", {"pretrained": "psnr"}),
        ("jpeg", {"qualities": None}),
        ("jpeg", {"qualities": [10, 10]}),
        ("jpeg", {"model": "gif"}),
        ("jpeg", {"points": {"q1": {"lambda": 0.01}}}),
        ("jpeg", {"channels": [1, 2]}),
    ],
)
def test_refuses(name: str, changes: dict[str, Any]) -> None:
    assert _refuses(name, **changes)


def test_takes_a_checkpoint_of_ones_own() -> None:
    point = {"lambda": 0.01, "weights": "mine.pth", "sha256": "0" * 64}
    assert not _refuses("mbt2018", pretrained=None, channels=[192, 192], points={"q1": point})


def test_no_two_codecs_share_an_id(tmp_path: Path) -> None:
    """A stream names its codec by it."""
    for folder in ("config", "workflow/schemas"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    entries = CATALOG | {"avif": CATALOG["avif"] | {"id": CATALOG["jpeg"]["id"]}}
    (tmp_path / "config" / "catalog" / "codecs.yaml").write_text(yaml.safe_dump(entries, sort_keys=False))
    with pytest.raises(ConfigError, match="'avif' has the id 128 of 'jpeg'; take a free one"):
        load({}, tmp_path, planning=True)
