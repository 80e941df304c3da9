"""A copy of the project in which runs are disturbed, and what an undisturbed one of them gave."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mlclipsim.provenance import FOLDER
from mlclipsim.report.tables.table_7 import MEASURED

from ..workflow.check_results import repeatable
from ..workflow.conftest import copy_project
from .outcome import Outcome

__all__ = ["Done", "Ground", "Run", "sentences"]

_MARK = "MLCLIPSIM_CHAOS"  # environment of every process that this campaign starts, whoever adopts it
_STATE = ("results", ".snakemake")
_ENDED_S = 20.0  # within which processes are gone after their run
# Lines of a run that explain nothing: progress, where logs lie, make's own and what follows a failure.
_PROGRESS = re.compile(
    r"== |\[ *\d+/\d+\] |    log: |make: \*\*\* |Using workflow specific|\d+ jobs? |stopped, \d+ of "
    r"|Nothing to be done|\s*$"
)


@dataclass
class Done:
    """A run that ended: its exit code, and all that it printed."""

    code: int
    said: str


@dataclass
class Run:
    """A run on its way; what it prints goes into a file."""

    process: subprocess.Popen[bytes]
    said: Path

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> Done:
        """Wait for it."""
        code = self.process.wait()
        text = self.said.read_text(encoding="utf-8", errors="replace")
        self.said.unlink()
        return Done(code, text)


@dataclass
class Ground:
    """Where the campaign takes place.

    Attributes:
        work: folder of the campaign; kept, it saves the undisturbed run of the next one.
        targets: of `make reproduce`.
        patch: folder with a ``sitecustomize.py`` for every Python of the runs, if their steps are stand-ins.
    """

    work: Path
    preset: str = "ci"
    targets: str = "all"
    cores: int = 2
    patch: Path | None = None
    expected: dict[str, str] = field(default_factory=dict)  # path below results -> digest

    def __post_init__(self) -> None:
        self.work = self.work.resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.root = self.work / "project"
        self.saved = self.work / "undisturbed"
        self.temporary = self.work / "tmp"
        self._shared_memory = set(os.listdir("/dev/shm"))

    @property
    def results(self) -> Path:
        return self.root / "results"

    def prepare(self) -> float:
        """Copy the project, let it run undisturbed, and say how many seconds that took; 0: it was there."""
        shutil.rmtree(self.root, ignore_errors=True)
        copy_project(self.root)
        (self.root / ".venv").mkdir()
        (self.root / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
        (self.root / ".venv" / ".ready").touch()
        self.clear()
        seconds = 0.0
        if not self.saved.exists():
            began = time.monotonic()
            done = self.run()
            seconds = time.monotonic() - began
            if done.code:
                raise RuntimeError(f"expected the undisturbed run to end well, got {done.code}:\n{done.said}")
            unfinished = self.saved.with_name("unfinished")
            for name in _STATE:
                _copy(self.root / name, unfinished / name)
            unfinished.rename(self.saved)
        self.expected = _digests(self.saved / "results")
        return seconds

    def restore(self, *without: str) -> None:
        """Results as after the undisturbed run, but for some: patterns below the preset's folder."""
        self.clear()
        for name in _STATE:
            _copy(self.saved / name, self.root / name)
        for pattern in without:
            for path in (self.results / self.preset).glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def clear(self) -> None:
        """No results, as in a fresh clone."""
        for folder in (*(self.root / name for name in _STATE), self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)

    @property
    def command(self) -> list[str]:
        words = [f"PRESET={self.preset}", f"CORES={self.cores}", f"TARGETS={self.targets}"]
        return ["make", "reproduce", *words]

    @property
    def snakemake(self) -> list[str]:
        """What `make reproduce` runs."""
        program = self.root / ".venv" / "bin" / "snakemake"
        return [str(program), self.targets, "--config", f"preset={self.preset}"]

    def variables(self) -> dict[str, str]:
        path = [str(self.patch)] if self.patch else []
        mine = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
        return mine | {
            "PYTHONPATH": os.pathsep.join([*path, str(self.root / "src")]),
            "TMPDIR": str(self.temporary),
            _MARK: str(self.work),
            "CI": "",
        }

    def start(self, command: Sequence[str] = (), before: Sequence[str] = ()) -> Run:
        """Start `make reproduce`, or another command, in a session of its own."""
        with tempfile.NamedTemporaryFile("w", dir=self.work, prefix="said-", delete=False) as said:
            process = subprocess.Popen(
                [*before, *(command or self.command)],
                cwd=self.root,
                env=self.variables(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Run(process, Path(said.name))

    def run(self, command: Sequence[str] = (), before: Sequence[str] = ()) -> Done:
        return self.start(command, before).end()

    def processes(self) -> list[psutil.Process]:
        """All that runs of this campaign started and that is still there."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == str(self.work) and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def orphans(self) -> list[str]:
        """What is still there after a run has ended, and some seconds."""
        deadline = time.monotonic() + _ENDED_S
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        told = []
        for process in left:
            try:
                told.append(f"process left: {' '.join(process.cmdline())[:100]}")
                process.kill()
            except psutil.NoSuchProcess:
                continue
        return told

    def half_written(self) -> list[str]:
        """Results that are there under their names, and not as the undisturbed run made them."""
        return [
            f"{path}: other content than undisturbed"
            for path, digest in _digests(self.results).items()
            if self.expected.get(path, digest) != digest
        ]

    def incomplete(self) -> list[str]:
        """What is not as after an undisturbed run, with whatever was left beside the results."""
        there = _digests(self.results)
        left = [path for path in self.results.rglob("*") if path.name.endswith(".partial")]
        left += [
            path
            for name in ("locks", "incomplete", "tmp")
            for path in (self.root / ".snakemake" / name).glob("*")
        ]
        left += self.temporary.iterdir()
        left += [Path("/dev/shm") / name for name in self._waste_in_memory()]
        return [
            *(f"{path}: not made" for path in self.expected.keys() - there.keys()),
            *(f"{path}: other content than undisturbed" for path in self.expected.keys() & there.keys()
              if there[path] != self.expected[path]),
            *(f"{path}: left behind" for path in left),
        ]  # fmt: skip

    def _waste_in_memory(self) -> Iterable[str]:
        """Shared memory of worker processes whose owner, which their names hold, is gone."""
        for name in set(os.listdir("/dev/shm")) - self._shared_memory:
            owner = re.search(r"(?:loky|joblib)\D+(\d+)", name)
            if owner and not psutil.pid_exists(int(owner[1])):
                yield name

    def endure(self, row: Outcome, mend: Callable[[], object], before: Sequence[str] = ()) -> None:
        """Run with a fault: one sentence, nothing half-written; mend it, and the same command completes."""
        done = self.run(before=before)
        told = sentences(done.said)
        row.seen = row.seen or (told[0] if told else "")
        problems = [] if done.code else ["exit code 0"]
        if len(told) != 1:
            problems.append(f"{len(told)} sentences: {' / '.join(told)[:500]}")
        problems += [*self.orphans(), *self.half_written()]
        mend()
        again = self.run()
        if again.code:
            problems.append(f"then exit code {again.code}: {' / '.join(sentences(again.said))[:500]}")
        row.note([*problems, *self.orphans(), *self.incomplete()])


def sentences(said: str) -> list[str]:
    """The lines of a run's output that explain something; what differs in step or file alone, once."""
    found: dict[str, str] = {}
    for line in said.splitlines():
        if not _PROGRESS.match(line):
            text = re.sub(r"^\w+ failed: ", "", line)
            found.setdefault(re.sub(r"^\S+: ", "", text), text)
    return list(found.values())


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def _digests(results: Path) -> dict[str, str]:
    """Of every result file but what is measured (provenance, logs, table_7's time and memory), and but
    checkpoints of trainings, which go on.
    """
    return {
        str(path.relative_to(results)): hashlib.sha256(_repeatable(path)).hexdigest()
        for path in sorted(results.rglob("*"))
        if path.is_file()
        and FOLDER not in path.parts
        and "logs" not in path.parts
        and path.name not in ("log.txt", "README.md")
        and "checkpoint" not in path.name
        and not path.name.startswith(".")
    }


def _repeatable(path: Path) -> bytes:
    if path.name == "cost.parquet":
        import pandas as pd

        try:
            return pd.read_parquet(path).drop(columns=list(MEASURED), errors="ignore").to_csv().encode()
        except ValueError:  # a stand-in's
            return path.read_bytes()
    if path.name == "table_7.csv":
        return repr(repeatable(path)).encode()
    if path.stem == "table_7":  # in print a row mixes both kinds
        return re.sub(rb"\d[\d.,]*", b"0", path.read_bytes())
    return path.read_bytes()
