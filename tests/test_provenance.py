"""Provenance: complete, and reproducible where it says so."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlclipsim import provenance
from mlclipsim.artifacts import ArtifactError


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
    assert made["packages"]["pandas"]
    assert len(made["lock_sha256"]) == 64


def test_measured_things_stand_apart(files):
    first, second = (provenance.collect("table_2", SPEC, *files, started=t) for t in (0.0, 1e9))
    assert first["made_from"] == second["made_from"]
    assert first["measured"]["started_utc"] == "1970-01-01T00:00:00Z"
    assert first["measured"] != second["measured"]


def test_what_workers_have_used_is_measured(files):
    """Of each the second of its own that it needs, and the memory that it alone holds."""
    code = f"""
import joblib, time
from pathlib import Path
from mlclipsim import provenance
from mlclipsim.workers import worker_processes

def work():
    held, end = bytearray(400 * 2**20), time.process_time() + 1
    while time.process_time() < end:
        pass

if __name__ == "__main__":
    list(worker_processes(2)(joblib.delayed(work)() for _ in range(2)))
    paths = {{"csv": Path({str(files[1]["csv"])!r})}}
    measured = provenance.collect("table_2", {SPEC}, paths, paths, started=0.0)["measured"]
    assert measured["cpu_seconds"] > 2, measured
    assert measured["peak_mib"] > 400, measured
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


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


def test_packages_are_those_that_the_step_imported(files, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    made = provenance.collect("table_2", SPEC, *files, started=0.0)["made_from"]
    assert "torch" not in made["packages"]
    assert made["weights"] == {}  # no network was run without it


def test_networks_are_named_with_the_files_that_were_run(files):
    import torch  # noqa: F401 - what a step that runs networks has imported

    encoder = {"source": "package", "model": "m", "checkpoint": "package:world/weights/manifest.json"}
    spec = SPEC | {
        "encoder": {"name": "ours", "entry": encoder},
        "voters": {"tagged": {"builder": "timm", "architecture": "vgg11", "weights": "tv_in1k"}},
        "metrics": {"absent": {"library": "piq", "files": {"nowhere.pth": None}}, "psnr": {"library": "piq"}},
    }
    made = provenance.collect("x", spec, *files, started=0.0)["made_from"]["weights"]
    manifest = Path(provenance.__file__).parent / "world/weights/manifest.json"
    assert made.pop("ours") == {
        "package:world/weights/manifest.json": hashlib.sha256(manifest.read_bytes()).hexdigest()
    }
    assert list(made) == ["tagged"]  # a metric without its weights was not run, and PSNR has none
    assert list(made["tagged"]) == ["vgg11.tv_in1k"]


def test_a_record_names_those_before_it_by_all_that_they_were_made_from(recorded_run):
    scores, table = (
        json.loads(path.read_text())["made_from"]
        for path in (
            recorded_run.parent / "shared/baselines-1/provenance/scores.json",
            recorded_run / "provenance/table_2.json",
        )
    )
    assert table["parents"] == {
        "results/tiny/shared/baselines-1/provenance/scores.json": provenance.digest(scores)
    }
    assert (scores["preset"], scores["run"]) == ("tiny", None)  # shared by runs
    assert (table["preset"], table["run"]) == ("tiny", "default")


def test_tree_goes_back_to_the_data(recorded_run):
    head, *lines = provenance.as_tree(recorded_run / "tables/table_2.csv").splitlines()
    assert head.startswith("results/tiny/default/tables/table_2.csv (preset tiny, seed 7, ")
    assert [line.partition(" (")[0] for line in lines] == [
        "└─ table_2: results/tiny/default/tables/table_2.csv",
        "   └─ baselines: results/tiny/shared/baselines-1/scores.parquet",
        "      └─ references: results/tiny/shared/references-0/references.parquet",
    ]


def test_tree_says_where_records_end(recorded_run):
    (recorded_run.parent / "shared/baselines-1/provenance/scores.json").unlink()
    tree = provenance.as_tree(recorded_run / "tables/table_2.csv")
    assert tree.endswith("└─ results/tiny/shared/baselines-1/scores.parquet, of which no record is there")


def test_a_snapshot_of_a_run_has_its_own_records(recorded_run, tmp_path):
    shutil.copytree(recorded_run, tmp_path / "docs/reference/tiny")
    shutil.rmtree(recorded_run.parent)
    head, *lines = provenance.as_tree(Path("docs/reference/tiny/tables/table_2.csv")).splitlines()
    assert head.startswith("docs/reference/tiny/tables/table_2.csv (preset tiny, seed 7, ")
    assert [line.partition(" (")[0] for line in lines] == [
        "└─ table_2: tables/table_2.csv",
        "   └─ results/tiny/shared/baselines-1/scores.parquet, of which no record is there",
    ]
    Path("docs/reference/tiny/tables/other.csv").touch()
    with pytest.raises(ArtifactError, match="no record says what made"):
        provenance.as_tree(Path("docs/reference/tiny/tables/other.csv"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("results/tiny/default/tables/table_3.csv", "name a result, such as results/tiny/default/tables/tab"),
        ("elsewhere.csv", "not below a folder named results"),
        ("results/tiny/default/unknown.csv", "no record says what made"),
        ("results/other", "no record says what made"),
    ],
)
def test_what_has_no_record_is_said(recorded_run, place, message):
    for path in ("elsewhere.csv", "results/tiny/default/unknown.csv", "results/other/x.csv"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text("x")
    with pytest.raises(ArtifactError, match=message):
        provenance.as_tree(Path(place))


def test_a_damaged_record_is_named(recorded_run):
    (recorded_run / "provenance/table_2.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"table_2\.json is no record of provenance"):
        provenance.as_tree(recorded_run / "tables/table_2.csv")
