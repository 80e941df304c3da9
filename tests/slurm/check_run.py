"""A preset on a real SLURM that loses jobs, a daemon and a node on the way: `make test-slurm`.

Two copies of the working tree make the same tables: one here, the other through the scheduler, by the profile
and a user's own file as docs/cluster.md shows it. On the way a job is killed, slurmd is killed and started
again, and the node dies with all its jobs. What the second run writes must be the first one's, byte for byte.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

from check_results import compare
from cluster import Cluster

from conftest import Project, copy_project

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
SITE = """\
default-resources:
  slurm_account: myproject
slurm-partition-config: partitions.yaml
slurm-status-command: squeue
slurm-init-seconds-before-status-checks: 2
"""
PARTITIONS = {"partitions": {"cpu": {"max_gpu": 0}, "gpu": {"max_gpu": 2}}}
SAME = ("same bytes", "same up to 0")  # the latter where measured columns were left out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", nargs="+", default=["preset=ci"], help="as Snakemake's")
    parser.add_argument("--targets", nargs="*", default=["all"])
    parser.add_argument("--minutes", type=float, default=40.0, help="after which it is given up")
    parser.add_argument("--keep", type=Path, help="folder to work in, which stays")
    arguments = parser.parse_args()
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing or os.geteuid():
        why = f"{', '.join(missing)} not in PATH" if missing else "SLURM's daemons start jobs only as root"
        print(f"test-slurm: {why}; run `make test-slurm` as root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("test-slurm: stopped"))  # the daemons go all the same
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        local, remote = (copy_project(folder / name) for name in ("local", "remote"))
        wanted = [*arguments.targets, "--config", *arguments.config]
        began = time.monotonic()
        local.snakemake("--cores", "2", *wanted)
        print(f"here: {time.monotonic() - began:.0f} s", flush=True)
        cluster = stack.enter_context(Cluster(cpus=4, memory_mb=256_000))
        remote.environment |= cluster.environment
        site = folder / "site"
        site.mkdir(exist_ok=True)
        (site / "config.yaml").write_text(SITE)
        (site / "partitions.yaml").write_text(yaml.safe_dump(PARTITIONS))
        command = remote.command("--profile", str(site), "--workflow-profile", "slurm", *wanted)
        began = time.monotonic()
        lost = run(cluster, remote, command, deadline=began + 60 * arguments.minutes)
        print(f"through SLURM: {time.monotonic() - began:.0f} s")
        problems = [*lost, *requests(cluster, remote), *differences(local.root, remote.root)]
        if remote.jobs(*wanted):
            problems.append("there is still something to do")
    for problem in problems:
        print(f"test-slurm: {problem}", file=sys.stderr)
    print(f"test-slurm: {'FAILED' if problems else 'same tables, byte for byte'}")
    return 1 if problems else 0


def run(cluster: Cluster, project: Project, command: list[str], deadline: float) -> list[str]:
    """Run it to its end, with every fault once; returns what went otherwise than it should."""
    step = "mlclipsim step"
    faults: list[tuple[str, Callable[[], bool]]] = [
        ("a job killed", lambda: kill_job(cluster, step)),
        ("slurmd killed and started again", lambda: restart_daemon(cluster, step)),
        ("the node died and came back", lambda: lose_node(cluster, step)),
    ]
    with subprocess.Popen(command, cwd=project.root, env=project.variables()) as process:
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    return [f"not done in time; waiting in the queue: {cluster.ask('squeue --long')}"]
                if faults and faults[0][1]():
                    print(f"-- {faults.pop(0)[0]}", flush=True)
                time.sleep(0.5)
        finally:
            end(process)
    problems = [f"never tried: {name}" for name, _ in faults]
    return problems + ([f"Snakemake ended with {process.returncode}"] if process.returncode else [])


def end(process: subprocess.Popen[bytes]) -> None:
    """As by Ctrl-C, if it has not ended by itself."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()


def kill_job(cluster: Cluster, step: str) -> bool:
    """The step of one job, as the kernel does it that has no memory left."""
    for process in cluster.job_processes(step):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("python"):  # not the shell around it
                process.kill()
                return True
    return False


def restart_daemon(cluster: Cluster, step: str) -> bool:
    # Not before SLURM knows of the job that was killed: with its node dead it would not count as failed.
    if not failed(cluster.jobs()) or not cluster.job_processes(step):
        return False
    cluster.kill_daemon()
    cluster.start("slurmd")
    return True


def lose_node(cluster: Cluster, step: str) -> bool:
    if not cluster.job_processes(step):
        return False
    cluster.kill_node()
    cluster.start("slurmd")
    return True


def requests(cluster: Cluster, project: Project) -> list[str]:
    """Whether jobs asked SLURM for what the profile says, and some ran more than once."""
    profile = yaml.safe_load((project.root / "workflow/profiles/slurm/config.yaml").read_text())
    wanted_by = profile["set-resources"]
    wanted_by |= {f"{group}_{rule}": wanted_by[rule] for rule, group in profile["groups"].items()}
    problems, jobs = [], cluster.jobs()
    for job in jobs:
        rule = job["Comment"].removeprefix("rule_").split("_wildcards_")[0]  # or a group, then its rule
        wanted = wanted_by[rule]
        gpus = job.get("TresPerJob", "gres:gpu:0").rpartition(":")[2]
        if int(gpus) != wanted.get("gpu", 0) or (job["Partition"] == "gpu") != bool(wanted.get("gpu")):
            problems.append(f"{rule} asked for {gpus} GPUs in partition {job['Partition']}")
        if job["TimeLimit"] == "UNLIMITED" or job["MinMemoryNode"] == "0":
            problems.append(f"{rule} asked for no time or no memory")
    requeued = sum(job["Restarts"] != "0" for job in jobs)
    print(f"{len(jobs)} SLURM jobs, {failed(jobs)} of them failed, {requeued} went back into the queue")
    if not failed(jobs) or not requeued:
        problems.append("faults were not seen: a job should have failed, and one gone back into the queue")
    return problems


def failed(jobs: list[dict[str, str]]) -> int:
    return sum(job["JobState"] == "FAILED" for job in jobs)


def differences(local: Path, remote: Path) -> list[str]:
    """What of the second run's tables, all that lie between steps too, is not the first's."""
    files = [
        path.relative_to(local)
        for path in sorted(local.glob("results/*/*/**/*"))
        if path.suffix in (".csv", ".parquet") or path.name == "claims.json"
        if path.name != "cost.parquet" and path.parent.name != "provenance"  # measured
    ]
    verdicts = {name: compare(local / name, remote / name)[1] for name in files}
    print(f"{len(files)} tables compared")
    return [f"{name}: {text}" for name, text in verdicts.items() if text not in SAME] or (
        [] if files else ["there is no table to compare"]
    )


if __name__ == "__main__":
    sys.exit(main())
