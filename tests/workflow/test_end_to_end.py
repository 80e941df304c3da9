"""The whole line, really run (preset `ci`): it ends, gives the same bytes again, survives being killed."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from mlclipsim import spec
from mlclipsim.report.tables.table_7 import MEASURED

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

SETTING = ("--config", "preset=ci")
TABLE_2 = ["benchmark", "voters", "slice", "metric", "variant", "estimate", "ci_low", "ci_high", "n_pairs"]


@pytest.fixture(autouse=True)
def _weights():
    missing = spec.load({"preset": "ci"}, planning=True).missing
    if missing:
        pytest.skip(f"not there yet: {missing[0]}")


def results(root: Path) -> dict[str, bytes]:
    """Every result file except what is measured: provenance, logs, and table_7's time and memory."""
    return {
        str(path.relative_to(root)): _repeatable(path)
        for path in sorted((root / "results").rglob("*"))
        if path.is_file()
        and "provenance" not in path.parts
        and not (path.name == "log.txt" or "logs" in path.parts or "benchmark" in path.name)
    }


def _repeatable(path: Path) -> bytes:
    if path.name == "cost.parquet":
        return pd.read_parquet(path).drop(columns=list(MEASURED)).to_csv().encode()
    if path.name == "table_7.csv":
        return pd.read_csv(path).drop(columns=list(MEASURED)).to_csv().encode()
    if path.stem == "table_7":  # numbers are compared above; in print a row mixes both kinds
        return re.sub(rb"\d[\d.,]*", b"0", path.read_bytes())
    return path.read_bytes()


def test_two_runs_and_a_killed_one_give_the_same_bytes(project):
    started = time.perf_counter()
    project.snakemake("--cores", "2", *SETTING)
    print(f"preset ci: {time.perf_counter() - started:.0f} s")
    first = results(project.root)
    run = project.root / "results/ci/default"
    for number in (1, 2, 3, 4, 5, 7, 8, 9):
        for ending in ("csv", "md", "tex"):
            assert (run / f"tables/table_{number}.{ending}").stat().st_size > 0
    for number in (1, 2, 3, 6, 7, 8):
        for ending in ("pdf", "svg", "png", "csv"):
            assert (run / f"figures/figure_{number}.{ending}").stat().st_size > 0
    with (run / "tables/table_2.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[: len(TABLE_2)] == TABLE_2
    assert {"ml_clipsim", "ml_clipsim_uniform", "clip_global", "psnr", "random", "family_prior"} <= {
        r["metric"] for r in rows
    }
    assert project.jobs(*SETTING) == {}

    # Again from nothing, on one core, killed once in the middle of a job.
    subprocess.run(["rm", "-rf", "results", ".snakemake"], cwd=project.root, check=True)
    kill_during(project, "predictions")
    assert results(project.root).keys() < first.keys()
    project.snakemake("--unlock", *SETTING)
    project.snakemake("--cores", "1", *SETTING)
    second = results(project.root)
    assert second.keys() == first.keys()
    assert [name for name in first if first[name] != second[name]] == []


def kill_during(project, step: str) -> None:
    """Start a run and kill -9 it, jobs included, half a second after the log of `step` appears."""
    process = subprocess.Popen(
        project.command("--cores", "1", *SETTING),
        cwd=project.root,
        env=project.variables(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    try:
        while not list(project.root.glob(f"results/ci/shared/{step}-*/log.txt")):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
