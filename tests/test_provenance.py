"""Provenance: complete, and reproducible where it says so."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from mlclipsim import provenance


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in.parquet").write_bytes(b"input")
    (tmp_path / "out.csv").write_bytes(b"output")
    return {"scores": [tmp_path / "in.parquet"]}, {"csv": tmp_path / "out.csv"}


SPEC = {"preset": "ci", "run": "default", "seed": 7, "threads": 2, "style": {"dpi": 300}}


def test_says_what_made_it(files, tmp_path):
    inputs, outputs = files
    provenance.write(tmp_path / "p.json", "table_2", SPEC, inputs, outputs, started=0.0)
    made = json.loads((tmp_path / "p.json").read_text())["made_from"]
    assert (made["step"], made["preset"], made["run"], made["seed"], made["threads"]) == (
        "table_2",
        "ci",
        "default",
        7,
        2,
    )
    assert made["inputs"]["scores"] == {str(tmp_path / "in.parquet"): hashlib.sha256(b"input").hexdigest()}
    assert made["outputs"]["csv"] == {str(tmp_path / "out.csv"): hashlib.sha256(b"output").hexdigest()}
    canonical = b'{"preset":"ci","run":"default","seed":7,"style":{"dpi":300},"threads":2}'
    assert made["spec_sha256"] == hashlib.sha256(canonical).hexdigest()
    assert made["packages"]["torch"]
    assert len(made["lock_sha256"]) == 64


def test_measured_things_stand_apart(files):
    first, second = (provenance.collect("table_2", SPEC, *files, started=t) for t in (0.0, 1e9))
    assert first["made_from"] == second["made_from"]
    assert first["measured"]["started_utc"] == "1970-01-01T00:00:00Z"
    assert first["measured"] != second["measured"]


def test_outside_a_repository_there_is_no_commit(files, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    made = provenance.collect("table_2", SPEC, *files, started=0.0)["made_from"]
    assert (made["git_commit"], made["git_dirty"], made["lock_sha256"]) == (None, None, None)


def test_an_edited_tracked_file_is_dirty(files, tmp_path, monkeypatch):
    def git(*command):
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@y", *command],
            check=True,
            cwd=tmp_path,
            capture_output=True,
        )

    git("init")
    git("add", "out.csv")
    git("commit", "-m", "x")
    monkeypatch.chdir(tmp_path)
    assert provenance.collect("t", SPEC, *files, started=0.0)["made_from"]["git_dirty"] is False
    (tmp_path / "out.csv").write_text("edited")
    made = provenance.collect("t", SPEC, *files, started=0.0)["made_from"]
    assert made["git_dirty"] is True
    assert len(made["git_commit"]) == 40
