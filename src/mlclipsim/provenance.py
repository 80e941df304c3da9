"""Where a table or a figure comes from: settings, inputs, code and software, in a file beside the results.

What two runs of the same code on the same machine share is under ``made_from``; what they cannot share (time,
host) is under ``measured``. Tables and figures themselves hold neither, so they stay byte-identical.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlclipsim.artifacts import sha256_of, write_json
from mlclipsim.spec import canonical

__all__ = ["PACKAGES", "collect", "git_state", "package_version", "write"]

# What can move a number or a pixel of a result.
PACKAGES = (
    *("mlclipsim", "numpy", "scipy", "pandas", "pyarrow", "statsmodels", "matplotlib", "pillow"),
    *("torch", "torchvision", "open_clip_torch", "timm", "piq", "snakemake"),
)
Paths = Mapping[str, Path | list[Path]]


def write(
    record: Path, step: str, spec: Mapping[str, Any], inputs: Paths, outputs: Paths, *, started: float
) -> None:
    """Write the provenance of what ``step`` made to ``record`` (JSON).

    Args:
        started: when the step began, seconds since 1970.
    """
    write_json(record, collect(step, spec, inputs, outputs, started=started))


def collect(
    step: str, spec: Mapping[str, Any], inputs: Paths, outputs: Paths, *, started: float
) -> dict[str, Any]:
    """The provenance as a dict of ``made_from`` (reproducible) and ``measured`` (not)."""
    commit, dirty = git_state()
    lock = Path("requirements.lock")
    return {
        "made_from": {
            "step": step,
            "preset": spec.get("preset"),
            "run": spec.get("run"),
            "seed": spec.get("seed"),
            "threads": spec.get("threads"),
            "spec": dict(spec),
            "spec_sha256": hashlib.sha256(canonical(dict(spec)).encode()).hexdigest(),
            "inputs": _hashes(inputs),
            "outputs": _hashes(outputs),
            "git_commit": commit,
            "git_dirty": dirty,
            "lock_sha256": sha256_of(lock) if lock.is_file() else None,
            "python": platform.python_version(),
            "packages": {name: package_version(name) for name in PACKAGES},
        },
        "measured": {
            "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 3),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }


def _hashes(paths: Paths) -> dict[str, dict[str, str]]:
    """Name -> {path: sha256}."""
    return {
        name: {str(path): sha256_of(path) for path in (group if isinstance(group, list) else [group])}
        for name, group in sorted(paths.items())
    }


def package_version(package: str) -> str | None:
    """The installed version, None where the package runs from a source tree."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the working tree and whether tracked files differ; (None, None) outside a repository."""
    try:
        commit = _output("git", "rev-parse", "HEAD").strip()
        changed = _output("git", "status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.SubprocessError):
        return None, None
    return (commit, bool(changed)) if re.fullmatch(r"[0-9a-f]{40,64}", commit) else (None, None)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
