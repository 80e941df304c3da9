"""What a run was asked to do and what it did: its whole configuration, and the jobs that made its results.

The jobs are Snakemake's own account (``--detailed-summary``), which is the one place that knows them all,
whichever rules there are. How long each took stands in its log's last line. Times are measured, so that two
runs' records differ in them.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlclipsim.artifacts import write_json
from mlclipsim.atomic import temporary
from mlclipsim.spec import canonical

__all__ = ["write"]

_RESULTS = "results/"
_SECONDS = re.compile(r"^\w+: (\d+\.\d) s$", re.MULTILINE)  # what `mlclipsim step` ends a log with


def write(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``record``: ``config`` of the spec -> record (.json) ``{config, jobs}``; a job is ``{name, rule,
    inputs, outputs, seconds}``, its files those under ``results/``.

    Raises:
        RuntimeError: Snakemake cannot read the configuration.
    """
    summary = _summary(spec["config"], outputs["record"])
    write_json(outputs["record"], {"config": spec["config"], "jobs": jobs(summary)})


def _summary(config: dict[str, Any], beside: Path) -> str:
    """Snakemake's account of every file of this configuration's `all`; it starts no job."""
    with temporary(beside) as file:
        file.write_text(canonical(config), encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", "all", "--detailed-summary", "--configfile", str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"expected Snakemake's account of the run, got an error: {last[0]}; see this log")
    return done.stdout


def jobs(summary: str) -> list[dict[str, Any]]:
    """The jobs in Snakemake's account, by name; results that it did not make itself are left out.

    Args:
        summary: tab-separated; a row per output file with columns ``output_file``, ``rule``,
            ``log-file(s)`` and ``input-file(s)``, lists separated by commas.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in csv.DictReader(summary.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
        log = Path(row["log-file(s)"].split(",")[0])
        if row["rule"] == "-" or not log.name:
            continue
        # `logs/fit-scene-clip.txt` in the run, `similarities-scene-clip-4cf96a26/log.txt` in what runs share
        name = log.parent.name if log.name == "log.txt" else log.stem
        read = [path for path in row["input-file(s)"].split(",") if path.startswith(_RESULTS)]
        job = found.setdefault(
            name, {"name": name, "rule": row["rule"], "inputs": read, "outputs": [], "seconds": _seconds(log)}
        )
        job["outputs"].append(row["output_file"])
    return [found[name] for name in sorted(found)]


def _seconds(log: Path) -> float | None:
    """How long the job took, None where its log does not say."""
    try:
        told = _SECONDS.findall(log.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return float(told[-1]) if told else None
