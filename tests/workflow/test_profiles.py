"""Where it runs: what the execution profiles ask for each job. Dry runs only."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
import yaml

from mlclipsim.steps import STEPS

pytestmark = pytest.mark.workflow


@pytest.fixture(params=["gpu", "slurm"])
def profile(request, project) -> str:
    """By name; where Snakemake's plugin for clusters is not installed, without its executor."""
    path = project.root / "workflow/profiles" / request.param / "config.yaml"
    if find_spec("snakemake_executor_plugin_slurm") is None:
        path.write_text(path.read_text().replace("executor: slurm\n", ""))
    return request.param


def resources(project, profile: str, *arguments: str) -> dict[str, dict[str, int]]:
    """Rule -> resources of its jobs that a dry run plans."""
    done = project.snakemake("--dry-run", "--workflow-profile", f"profiles/{profile}", *arguments)
    found = {}
    for rule, block in re.findall(r"^(?:local)?rule (\w+):\n((?: .*\n)+)", done.stdout + done.stderr, re.M):
        line = re.search(r"^ +resources: (.*)$", block, re.M)
        given = re.findall(r"(\w+)=(\d+)(?:,|$)", line[1] if line else "")
        found[rule] = {name: int(value) for name, value in given}
    return found


@pytest.mark.parametrize("preset", ["paper", "local"])
def test_every_job_says_how_much_memory_time_and_gpu_it_takes(project, profile, preset, tmp_path):
    found = resources(
        project, profile, "all", "report", "--config", f"preset={preset}", f"assets_dir={tmp_path}"
    )
    assert len(found) > 40
    lacking = {rule for rule, given in found.items() if not {"mem_mb", "runtime", "gpu"} <= set(given)}
    assert lacking <= {"all"}


def test_a_gpu_is_for_the_jobs_that_use_one(project, profile):
    """Those whose command is told how many it has; no other step would see it."""
    setting = yaml.safe_load((project.root / "workflow/profiles" / profile / "config.yaml").read_text())
    text = "\n".join(path.read_text() for path in (project.root / "workflow/rules").glob("*.smk"))
    users = set(re.findall(r"mlclipsim step (\w+) --spec \{params\.spec:q\} --gpus", text))
    users |= {"similarities", "channel_similarities"}  # of which one rule is made from the other
    users |= {f"{step}_part" for step in users if STEPS[step].shards}
    assert users == {rule for rule, given in setting["set-resources"].items() if given.get("gpu")}
    jobs = resources(project, profile, "all", "--config", "preset=paper")
    unsharded = {"lit_encoder", "temperatures", *(step for step in users if step.endswith("_part"))}
    assert {rule for rule, given in jobs.items() if given["gpu"]} == users - unsharded


def test_without_a_profile_no_job_asks_for_a_gpu(project):
    jobs = resources(project, "default", "all", "--config", "preset=paper")
    assert not any(given.get("gpu") for given in jobs.values())
