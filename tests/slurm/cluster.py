"""A SLURM cluster of one node on this machine: the real daemons, on loopback, with a state of their own.

Nothing of it is shared with a SLURM that may be installed here: other ports, another munge key, all files in
one folder, which goes when the cluster does.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psutil

WAIT_SECONDS = 120.0  # for an answer of a daemon, also on a machine that has much else to do

# No accounting: `squeue` is what knows of a job, for MinJobAge seconds after its end. Cores, memory and GPUs
# are invented; they are counted and given out as real ones. A node silent for SlurmdTimeout seconds is dead.
CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=36000
SlurmdTimeout=15
ReturnToService=2
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} Gres=gpu:2
PartitionName=cpu Nodes={host} Default=YES MaxTime=7-0
PartitionName=gpu Nodes={host} MaxTime=7-0
"""
# Snakemake's plug-in takes all variables of SLURM's from a job but a few, and this is none of them.
SRUN = '#!/bin/sh\nSLURM_CONF={configuration} exec {srun} "$@"\n'
DEVICES = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"  # SLURM asks only that they are devices


class Cluster:
    """Daemons from entry to exit; with them goes all that they started.

    Attributes:
        folder: the cluster's own, its daemons' words in ``<daemon>.log``.
        environment: variables by which SLURM's commands, and those within jobs, find this cluster.
    """

    def __init__(self, *, cpus: int, memory_mb: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mlclipsim-slurm-"))
        self.folder.chmod(0o711)  # munged wants its socket within everybody's reach
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            folder=self.folder,
            ports=_free_ports(2),
            cpus=cpus,
            memory_mb=memory_mb,
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(DEVICES)
        for name in ("bin", "spool", "state"):
            (self.folder / name).mkdir()
        srun = self.folder / "bin/srun"
        srun.write_text(SRUN.format(configuration=self.environment["SLURM_CONF"], srun=shutil.which("srun")))
        srun.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)

    def __enter__(self) -> Cluster:
        try:
            for daemon in ("munged", "slurmctld", "slurmd"):
                self.start(daemon)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, daemon: str) -> None:
        """Start a daemon and wait until it answers."""
        folder = self.folder
        command = {
            "munged": [
                *("munged", "--foreground", f"--socket={folder}/munge.socket"),
                *(f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed")),
            ],
            "slurmctld": ["slurmctld", "-D"],
            "slurmd": ["slurmd", "-D"],
        }[daemon]
        answers = {
            "munged": f"munge --no-input --socket={folder}/munge.socket",
            "slurmctld": "scontrol ping",
            "slurmd": "sinfo --noheader --format=%T | grep -E '^(idle|mixed|allocated)$'",
        }[daemon]
        with (folder / f"{daemon}.log").open("ab") as stream:
            self._daemons[daemon] = subprocess.Popen(
                command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # Ctrl-C is for the test, which then ends the daemon itself
            )
        self._wait(daemon, answers)

    def ask(self, command: str, *, check: bool = True) -> str:
        """What a command of SLURM's prints."""
        done = subprocess.run(
            command, shell=True, env=os.environ | self.environment, text=True, capture_output=True
        )
        if check and done.returncode:
            raise RuntimeError(f"{command} failed: {done.stderr.strip()}")
        return done.stdout.strip() if done.returncode == 0 else ""

    def jobs(self) -> list[dict[str, str]]:
        """All that were ever submitted, by SLURM's own names of their properties."""
        lines = self.ask("scontrol --oneliner show jobs").splitlines()
        return [
            dict(item.split("=", 1) for item in line.split() if "=" in item)
            for line in lines
            if line.startswith("JobId=")
        ]

    def job_processes(self, command: str = "") -> list[psutil.Process]:
        """What runs on the node on behalf of jobs, of commands with this text in them."""
        found = []
        for process, variables in self._processes():
            with contextlib.suppress(psutil.Error):
                of_job = any(name.startswith("SLURM_JOB_ID=") for name in variables)
                if (of_job or process.name() == "slurmstepd") and command in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kill_daemon(self) -> None:
        """slurmd alone; its jobs go on."""
        self._daemons["slurmd"].kill()
        self._daemons["slurmd"].wait()

    def kill_node(self) -> None:
        """As when the machine loses power: slurmd, and every process of every job; until SLURM notices."""
        self.kill_daemon()
        # A job's slurmstepd first, which would yet tell slurmctld how its job ended.
        for process in sorted(self.job_processes(), key=lambda process: process.name() != "slurmstepd"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._wait("slurmctld", "sinfo --noheader --format=%T | grep down")

    def stop(self) -> None:
        """End everything that was started with this cluster's configuration, and remove its folder."""
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            for daemon in self._daemons.values():
                daemon.wait(timeout=10)
        for process, _ in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for daemon in self._daemons.values():
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self, daemon: str, question: str) -> None:
        """Until a question has an answer."""
        process, end = self._daemons[daemon], time.monotonic() + WAIT_SECONDS
        while not self.ask(question, check=False):
            if time.monotonic() > end or process.poll() is not None:
                said = (self.folder / f"{daemon}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"no answer to {question!r}; the last words of {daemon}:\n{said}")
            time.sleep(0.2)

    def _processes(self) -> list[tuple[psutil.Process, list[str]]]:
        """All processes that know of this cluster, with their environments.

        Read here, since psutil ends at the first gap, and slurmstepd leaves one when it names itself.
        """
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                block = Path(f"/proc/{process.pid}/environ").read_text(errors="replace")
                variables = block.split("\0")
                if f"SLURM_CONF={self.environment['SLURM_CONF']}" in variables:
                    found.append((process, variables))
        return found


def _free_ports(count: int) -> list[int]:
    """That nobody listens on now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
