"""Where it runs: what the execution profiles ask for each job. Dry runs only."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
import yaml

from mlclipsim.steps import STEPS

pytestmark = pytest.mark.workflow

# Made beside Snakemake, not queued.
LOCAL = {"all", "record", "report", "compare", *(name for name, step in STEPS.items() if step.report)}


@pytest.fixture(params=["gpu", "slurm"])
def profile(request, project) -> str:
    """By name; where Snakemake's plugin for clusters is not installed, without what it alone understands."""
    path = project.root / "workflow/profiles" / request.param / "config.yaml"
    if find_spec("snakemake_executor_plugin_slurm") is None:
        path.write_text(re.sub(r"^(executor: slurm|slurm-.*)\n", "", path.read_text(), flags=re.M))
    return request.param


def resources(project, profile: str, *arguments: str) -> dict[str, dict[str, str]]:
    """Rule -> resources of its jobs that a dry run plans."""
    done = project.snakemake("--dry-run", "--workflow-profile", f"profiles/{profile}", *arguments)
    found = {}
    for rule, block in re.findall(r"^(?:local)?rule (\w+):\n((?: .*\n)+)", done.stdout + done.stderr, re.M):
        line = re.search(r"^ +resources: (.*)$", block, re.M)
        found[rule] = dict(re.findall(r"(\w+)=([^,]+)(?:, |$)", line[1] if line else ""))
    return found


@pytest.mark.parametrize("preset", ["paper", "local"])
def test_every_job_says_how_much_memory_and_time_it_takes(project, profile, preset, tmp_path):
    found = resources(
        project, profile, "all", "report", "--config", f"preset={preset}", f"assets_dir={tmp_path}"
    )
    assert len(found) > 40
    sized = {
        rule for rule, given in found.items() if given.get("mem_mb", "").isdigit() and "runtime" in given
    }
    assert found.keys() - sized <= (LOCAL if profile == "slurm" else {"all"})


def test_no_job_asks_a_cluster_for_more_processors_than_a_node_has(project):
    setting = yaml.safe_load((project.root / "workflow/profiles/slurm/config.yaml").read_text())
    text = "\n".join(path.read_text() for path in (project.root / "workflow/rules").glob("*.smk"))
    rules = re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    greedy = {name for name, body in rules if re.search(r"^    threads: \d\d", body, re.MULTILINE)}
    assert greedy == {"cost"} == setting["set-threads"].keys()


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
    assert {rule for rule, given in jobs.items() if given.get("gpu", "0") != "0"} == users - unsharded


def test_without_a_profile_no_job_asks_for_a_gpu(project):
    jobs = resources(project, "default", "all", "--config", "preset=paper")
    assert not any(given.get("gpu", "0") != "0" for given in jobs.values())


def test_a_users_own_file_adds_account_and_partition_and_limits_each_job(project, tmp_path):
    """As docs/cluster.md shows it. Of a key in both files Snakemake takes the workflow's whole value."""
    site = {
        "default-resources": {"slurm_account": "myproject", "slurm_partition": "normal"},
        "resources": {"runtime": 1000, "mem_mb": 20000},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(site))
    path = project.root / "workflow/profiles/slurm/config.yaml"
    ours = yaml.safe_load(path.read_text())
    assert not site.keys() & ours.keys()
    assert ours["set-resource-scopes"] == {"runtime": "local"}  # a limit of each job, not of all together
    path.write_text(re.sub(r"^(executor: slurm|slurm-.*)\n", "", path.read_text(), flags=re.M))
    jobs = resources(project, "slurm", "all", "--profile", str(tmp_path), "--config", "preset=paper")
    given = {"slurm_account": "myproject", "slurm_partition": "normal"}
    assert all(given.items() <= job.items() for rule, job in jobs.items() if rule != "all")
    assert jobs["rate_task"].items() >= {"runtime": "1000", "mem_mb": "20000"}.items()
    assert jobs["predictions"].items() >= {"runtime": "240", "mem_mb": "16000", "gpu": "1"}.items()
