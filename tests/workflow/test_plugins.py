"""The example of docs/extending.md in the workflow."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mlclipsim import spec

pytestmark = pytest.mark.workflow

METRIC = "my_plugin.metrics:gradient_error"
SETTINGS = {
    "preset": "ci",
    "plugins": ["my_plugin"],
    "metrics": ["psnr", "gradient_error"],
    "pcmp": {"families": ["gaussian_noise", "gaussian_blur", "jpeg", "vignette"]},
    "encoder": "scene-clip-shallow",
    "encoders": [],
}


@pytest.fixture
def setting(project, tmp_path) -> Path:
    project.environment["PYTHONPATH"] = str(project.root / "tests" / "example")
    path = tmp_path / "mine.yaml"
    (fold,) = spec.load({"preset": "ci"}, planning=True).config["folds"]
    path.write_text(json.dumps(SETTINGS | {"folds": [fold | {"seen": [*fold["seen"], "patchwork"]}]}))
    return path


def test_a_data_set_of_a_plugin_has_its_check(project, setting):
    done = project.snakemake("check_sketches", "--dry-run", "--printshellcmds", "--configfile", str(setting))
    (command,) = re.findall(r"python -m mlclipsim (check-data .*) 2>&1", done.stdout + done.stderr)
    assert "my_plugin" in command
    checked = cli(project, *shlex.split(command))
    assert checked.returncode == 1
    assert "data/sketches is not there; get sketches (needs: a copy of the lab's drive)" in checked.stderr


def test_a_missing_plugin_stops_the_workflow_in_one_sentence(project, setting):
    done = project.snakemake("table_2", "--dry-run", "--config", "plugins=[elsewhere]", check=False)
    assert done.returncode == 1
    assert "`plugins`: there is no module 'elsewhere' in" in done.stdout + done.stderr


@pytest.mark.slow
def test_table_2_has_the_row_of_a_plugin(project, setting):
    """Its metric, family, machine and encoder, really run (preset `ci`)."""
    project.snakemake("table_2", "--cores", "2", "--configfile", str(setting))
    run = project.root / "results/ci/scene-clip-shallow"
    table = pd.read_csv(run / "tables/table_2.csv")
    of_metric = table[table["metric"] == "gradient_error"]
    assert set(of_metric["quantity"]) == {"2afc", "tau"}
    macro = of_metric.set_index(["voters", "slice"]).loc[("held_out", "macro")]
    assert (macro["variant"], macro["class"]) == ("l1", "fidelity")
    assert 0 < macro["estimate"] < 1
    assert macro["n_unscored"] == 0
    assert "gradient error" in (run / "tables/table_2.md").read_text(encoding="utf-8")
    (images,) = (project.root / "results/ci/shared").glob("pcmp_images-*/images.parquet")
    assert "vignette" in set(pd.read_parquet(images, columns=["family"])["family"])
    (votes,) = (project.root / "results/ci/shared").glob("votes-*/votes.parquet")
    assert "patchwork" in set(pd.read_parquet(votes)["voter"])

    # The same function from the command line: the same rows, whatever it is called.
    done = cli(project, "bench", METRIC, "--lower-is-better", "--run", "results/ci/scene-clip-shallow")
    assert done.returncode == 0, done.stderr
    folder = project.root / "results/ci/bench/scene-clip-shallow/my_plugin.metrics.gradient_error"
    named = ["metric", "variant", "class"]
    again = pd.read_csv(folder / "table_2.csv").drop(columns=named)
    expected = of_metric[again.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, expected, check_dtype=False)  # counts beside rows that have none
    assert "PSNR" in done.stdout
    assert "no difference shown" in done.stdout

    # Its code is part of what its steps depend on: all that the package names is made again, no reference is.
    with (project.root / "tests/example/my_plugin/metrics.py").open("a") as file:
        file.write("# another word\n")
    jobs = project.jobs("table_2", "--configfile", str(setting))
    assert {"baselines", "predictions", "pcmp_images", "preference"} <= jobs.keys()
    assert "references" not in jobs


def cli(project, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlclipsim", *arguments]
    return subprocess.run(command, cwd=project.root, env=project.variables(), text=True, capture_output=True)
