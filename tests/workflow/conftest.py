"""A copy of the project to run Snakemake in, its steps the real ones or stand-ins."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Taken up by every Python of a stand-in run: steps are replaced by writers, only the workflow is tested.
STAND_IN = """
import hashlib, json, sys, types
import mlclipsim.shards, mlclipsim.steps

def function(step):
    def write(spec, inputs, outputs, shard=None):
        for name, path in outputs.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps([step, name, spec, sorted(inputs)], sort_keys=True)
            path.write_text(hashlib.sha256(text.encode()).hexdigest())
    return write

def gather(step, spec, parts, outputs):
    assert all((part / path.name).is_file() for part in parts for path in outputs.values())
    function(step)(spec, {}, outputs)
    record = mlclipsim.shards.record(next(iter(outputs.values())))
    record.parent.mkdir(exist_ok=True)
    made_from = {"step": step, "inputs": {}, "outputs": {}}
    record.write_text(json.dumps({"made_from": made_from, "measured": {"shards": len(parts)}}))

mlclipsim.steps.function = function
sys.modules["mlclipsim.gather"] = types.ModuleType("mlclipsim.gather")
sys.modules["mlclipsim.gather"].gather = gather
"""


@dataclass
class Project:
    """A copy of the working tree: what git knows of it, and what it does not ignore."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).parent / "snakemake"), *arguments]

    def variables(self) -> dict[str, str]:
        path = [*self.environment.get("PYTHONPATH", "").split(os.pathsep), str(self.root / "src")]
        return os.environ | self.environment | {"PYTHONPATH": os.pathsep.join(filter(None, path))}

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments), cwd=self.root, env=self.variables(), text=True, capture_output=True
        )
        assert done.returncode == 0 or not check, f"{done.stdout}\n{done.stderr}"
        return done

    def jobs(self, *arguments: str) -> dict[str, int]:
        """Rule -> number of jobs that a dry run plans (without `all`)."""
        done = self.snakemake("--dry-run", *arguments)
        found = re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
        return {rule: int(count) for rule, count in found if rule not in ("all", "total")}


def copy_project(folder: Path) -> Project:
    listing = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, listing.split("\0")):
        source, target = ROOT / name, folder / name
        if source.exists() or source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return Project(folder)


@pytest.fixture
def project(tmp_path) -> Project:
    """A fresh copy; the steps are the real ones."""
    return copy_project(tmp_path / "project")


@pytest.fixture
def stand_in(tmp_path) -> Project:
    """A fresh copy whose steps only write their outputs, also without weights and data."""
    copy = copy_project(tmp_path / "project")
    patch = tmp_path / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(STAND_IN)
    copy.environment["PYTHONPATH"] = str(patch)
    return copy
