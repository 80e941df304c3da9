"""Jobs end with their run, workers with their job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from mlclipsim import lifeline
from mlclipsim.workers import worker_processes

JOB = (
    "import time; from mlclipsim import lifeline; lifeline.follow_run(); print('ready', flush=True); "
    "time.sleep(60)"
)
# What Snakemake does: a shell between the run and the Python of its job.
RUN = (
    "import os, subprocess, sys; os.environ['MLCLIPSIM_RUN'] = str(os.getpid()); "
    "subprocess.run(['bash', '-c', 'echo $$; \"$0\" -c \"$1\"; true', sys.executable, sys.argv[1]])"
)
STEP = (
    "import joblib, os, time; from mlclipsim.workers import worker_processes\n"
    "def work(n):\n    print(os.getpid(), flush=True); time.sleep(60)\n"
    "list(worker_processes(2)(joblib.delayed(work)(n) for n in range(2)))"
)


def gone(process: int) -> bool:
    """Whether it ends within seconds; one that is left to reap has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{process}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("victim", ["run", "shell"])
def test_a_job_ends_with_its_run_and_with_its_shell(victim):
    run = subprocess.Popen([sys.executable, "-c", RUN, JOB], stdout=subprocess.PIPE, text=True)
    shell = int(run.stdout.readline())
    assert run.stdout.readline() == "ready\n"
    (job,) = map(int, subprocess.check_output(["pgrep", "--parent", str(shell)], text=True).split())
    os.kill(run.pid if victim == "run" else shell, signal.SIGKILL)
    assert gone(job)
    run.wait()
    run.stdout.close()


def test_workers_end_with_their_step():
    step = subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, text=True)
    workers = [int(step.stdout.readline()) for _ in range(2)]
    step.kill()
    step.wait()
    assert all(map(gone, workers))
    step.stdout.close()


def test_a_job_of_no_living_run_says_so(monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for stranger in (ended.pid, 2**22 + 1):
        monkeypatch.setenv(lifeline.RUN, str(stranger))
        with pytest.raises(RuntimeError, match=f"process {stranger}, which has ended; start it again"):
            lifeline.follow_run()


def test_a_job_whose_shell_was_killed_before_it_looked_says_so(monkeypatch):
    run = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setenv(lifeline.RUN, str(run.pid))
    with pytest.raises(RuntimeError, match="shell that started this job was killed, as the system does"):
        lifeline.follow_run()
    run.communicate(b"\n")


def test_one_worker_is_this_process():
    import joblib

    assert list(worker_processes(1)(joblib.delayed(os.getpid)() for _ in range(2))) == [os.getpid()] * 2
