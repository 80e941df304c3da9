"""What a run costs: `make bench`. Runs in a copy of the working tree, so that no result here is touched.

Prints the time from clean, the share of it that is the workflow's own (start-up, imports, scheduling), the
largest memory of all processes together, the size of the results, and the time when there is nothing to do.
The overhead is measured: the same jobs run once more with steps that import what they need and only write.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from conftest import STAND_IN, Project, copy_project

LIMITS = {"embedded": 600.0, "ci": 90.0}  # seconds from clean on two cores
LARGEST_OVERHEAD = {"embedded": 0.2}  # share of that time; `ci` is little else
IMPORTING = "from mlclipsim.steps import function as real\n" + STAND_IN.replace(
    "def write(spec", "real(step)\n    def write(spec"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--cores", default="2")
    arguments = parser.parse_args()
    command = ["--cores", arguments.cores, "--config", f"preset={arguments.preset}"]
    with tempfile.TemporaryDirectory() as folder:
        empty = copy_project(Path(folder) / "empty")
        (Path(folder) / "sitecustomize.py").write_text(IMPORTING)
        empty.environment["PYTHONPATH"] = folder
        overhead, _ = run(empty, command)
        project = copy_project(Path(folder) / "real")
        seconds, peak = run(project, command)
        idle, _ = run(project, command)
        size = sum(path.stat().st_size for path in (project.root / "results").rglob("*") if path.is_file())
    limit = LIMITS.get(arguments.preset)
    share = LARGEST_OVERHEAD.get(arguments.preset, 1.0)
    rows = [
        ("from clean", f"{seconds:.0f} s", limit is None or seconds <= limit),
        ("workflow overhead", f"{100 * overhead / seconds:.0f} %", overhead <= share * seconds),
        ("memory at most", f"{peak / 2**30:.1f} GiB", peak <= 6e9),
        ("results", f"{size / 2**20:.0f} MiB", True),
        ("nothing to do", f"{idle:.1f} s", idle <= 5),
    ]
    for name, value, good in rows:
        print(f"{name:20s} {value:>10s}  {'ok' if good else 'OVER THE LIMIT'}")
    return 0 if all(good for _, _, good in rows) else 1


def run(project: Project, command: list[str]) -> tuple[float, int]:
    """Seconds, and bytes resident at most in all processes together (sampled)."""
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        project.command(*command), cwd=project.root, env=project.variables(), stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"bench: the run failed with exit code {process.returncode}")
    return seconds, peak


def resident(pid: int) -> int:
    try:
        root = psutil.Process(pid)
        return sum(p.memory_info().rss for p in [root, *root.children(recursive=True)])
    except psutil.Error:  # one of them has just ended
        return 0


if __name__ == "__main__":
    sys.exit(main())
