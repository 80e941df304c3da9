"""What people do to a run that is under way, or was: a second one, another clock, path or configuration."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator

import psutil

from .ground import Ground, Run, sentences
from .outcome import Outcome

__all__ = ["faults"]

_WITHOUT = ("default/tables", "default/figures", "default/claims.json")
_ALL_BUT_REFERENCES = ("default", "shared/[!r]*")
_DAY_S = 86_400.0


def faults(ground: Ground) -> Iterator[Outcome]:
    yield _two_runs(ground)
    yield _clock(ground)
    yield _moved(ground)
    yield _linked(ground)
    yield _edited(ground)


def _two_runs(ground: Ground) -> Outcome:
    """At the same moment; while the first is at work; by `snakemake` itself while the first is at work."""
    row = Outcome("two runs started in one folder: at once, one later, one by `snakemake` itself")
    by_itself = [*ground.snakemake, "--cores", str(ground.cores)]
    # Snakemake looks for a lock only after seconds: the first must last longer than that.
    tries = (([], False, _WITHOUT), ([], True, _WITHOUT), (by_itself, True, _ALL_BUT_REFERENCES))
    for command, later, without in tries:
        ground.restore(*without)
        first = ground.start()
        if later:
            _until(first, lambda: any((ground.root / ".snakemake" / "locks").glob("*")))
        second = ground.run(command)
        both = sorted([first.end(), second], key=lambda done: done.code)
        problems = [f"the run at work ended with {both[0].code}"] if both[0].code else []
        told = sentences(both[1].said)
        if not both[1].code or len(told) != 1:
            problems.append(f"the other ended with {both[1].code}: {' / '.join(told)[:500]}")
        row.seen = row.seen or (told or [""])[0]
        row.note([*problems, *ground.orphans(), *ground.incomplete()])
    return row


def _clock(ground: Ground) -> Outcome:
    row = Outcome("clock set back: results are a day newer than now")
    ground.restore(*_WITHOUT)
    files = [path for path in (ground.results / ground.preset).rglob("*") if path.is_file()]
    times = {path: path.stat().st_mtime for path in files}

    def shift(seconds: float) -> None:
        for path, then in times.items():  # all there still: nothing may be made again
            os.utime(path, (then + seconds, then + seconds))

    shift(_DAY_S)
    ground.endure(row, lambda: shift(0.0))  # as if the clock were right again
    return row


def _moved(ground: Ground) -> Outcome:
    """The project with its results, in the middle of a run: it goes on there and makes nothing again."""
    row = Outcome("project and results moved to another path in the middle of a run")
    left = _stopped(ground)
    home, there = ground.root, ground.root.with_name("moved elsewhere")
    home.rename(there)
    ground.root = there
    problems = _continued(ground, left)
    there.rename(home)
    ground.root = home
    row.seen = "nothing but its continuation"
    row.note(problems)
    return row


def _linked(ground: Ground) -> Outcome:
    """The results alone, in the middle of a run, with a link where they were."""
    row = Outcome("results/ moved to another path and linked in the middle of a run")
    left = _stopped(ground)
    there = ground.work / "other results"
    ground.results.rename(there)
    ground.results.symlink_to(there)
    problems = _continued(ground, left)
    ground.results.unlink()
    there.rename(ground.results)
    row.seen = "nothing but its continuation"
    row.note(problems)
    return row


def _edited(ground: Ground) -> Outcome:
    row = Outcome("configuration edited in the middle of a run")
    ground.restore(*_WITHOUT)
    preset = ground.root / "config" / "presets" / f"{ground.preset}.yaml"
    before = preset.read_text()
    times = (preset.stat().st_atime, preset.stat().st_mtime)
    run = ground.start()
    _until(run, lambda: any(ground.results.glob(f"{ground.preset}/default/tables/*.csv")))
    preset.write_text(re.sub(r"resamples: \d+", "resamples: 7", before))
    done = run.end()
    problems = [f"exit code {done.code}: {' / '.join(sentences(done.said))[:500]}"] if done.code else []
    problems += [*ground.orphans(), *ground.incomplete()]
    again = _plans(ground)
    if again == 0:
        problems.append("the next run does not make what the edit asks for")
    preset.write_text(before)
    os.utime(preset, times)
    if _plans(ground):
        problems.append("with the edit undone there is something to make")
    row.seen = "nothing: the run ends as it began, the next one makes what the edit asks for"
    row.note(problems)
    return row


def _until(run: Run, true: Callable[[], bool]) -> None:
    while not run.is_over and not true():
        time.sleep(0.02)


def _stopped(ground: Ground) -> int:
    """Stop a run after its first table, and say how many jobs are left."""
    ground.restore(*_WITHOUT)
    run = ground.start()
    _until(run, lambda: any(ground.results.glob(f"{ground.preset}/default/tables/*.csv")))
    for process in ground.processes():
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    run.end()
    return _plans(ground)


def _plans(ground: Ground) -> int:
    """How many jobs a run would have to do."""
    found = re.search(r"^total +(\d+)$", ground.run([*ground.snakemake, "--dry-run"]).said, re.MULTILINE)
    return int(found[1]) if found else 0


def _continued(ground: Ground, left: int) -> list[str]:
    done = ground.run()
    planned = re.search(r"^(\d+) jobs? to do$", done.said, re.MULTILINE)
    problems = [f"exit code {done.code}: {' / '.join(sentences(done.said))[:500]}"] if done.code else []
    if not planned or int(planned[1]) != left:
        problems.append(f"{planned[1] if planned else 'no'} jobs to do instead of {left}")
    return [*problems, *ground.orphans(), *ground.incomplete()]
