"""kill -9 of a random process of a run at a random moment; the run is resumed each time."""

from __future__ import annotations

import random
import time

import psutil

from .ground import Done, Ground, Run, sentences
from .outcome import Outcome

__all__ = ["VICTIMS", "campaign"]

VICTIMS = ("Snakemake", "a job's shell", "a job's Python", "a worker process")
_WAIT_S = 10.0  # for a process of the kind drawn; then it is any other's turn


def campaign(ground: Ground, kills: int, seed: int, latest_s: float) -> list[Outcome]:
    """As many kills as asked for, over runs from nothing to their end.

    Args:
        latest_s: a kill comes within so many seconds of the start of its run, or of its continuation.
    """
    draws = random.Random(seed)
    rows = {victim: Outcome(f"kill -9 of {victim}") for victim in VICTIMS}
    ground.clear()
    runs = 0
    while (tried := sum(row.tried for row in rows.values())) < kills:
        wanted, moment = draws.choice(VICTIMS), draws.uniform(0, latest_s)
        run = ground.start()
        killed = _kill(ground, run, wanted, time.monotonic() + moment, draws)
        done = run.end()
        if killed:
            row = rows[killed]
            problems = [*_explained(done), *ground.orphans(), *ground.half_written()]
            row.note(problems)
            row.seen = row.seen or (sentences(done.said) or [""])[0]
            state = "; ".join(problems) or "survived"
            print(f"  kill {tried + 1} of {kills}, {killed}, after {moment:.0f} s: {state}", flush=True)
        if not done.code:
            runs += 1
            _finish(ground, rows[killed or wanted], runs)
            ground.clear()
        elif not killed:
            rows[wanted].note([f"a run that was left alone failed: {' / '.join(sentences(done.said))[:500]}"])
            ground.clear()
    done = ground.run()
    last = next(row for row in reversed(rows.values()) if row.tried)
    if done.code:
        last.problems.append(f"the last run failed: {' / '.join(sentences(done.said))[:500]}")
    _finish(ground, last, runs + 1)
    return list(rows.values())


def _finish(ground: Ground, row: Outcome, runs: int) -> None:
    problems = [*ground.orphans(), *ground.incomplete()]
    if problems:
        row.problems.append("; ".join(problems))
    print(f"  run {runs} ended: {problems or 'equal to the undisturbed one'}", flush=True)


def _kill(ground: Ground, run: Run, wanted: str, moment: float, draws: random.Random) -> str:
    """Kill one process at ``moment`` or soon after, and say of which kind; empty: the run ended before."""
    while not run.is_over:
        now = time.monotonic()
        if now >= moment:
            there = [(kind, process) for process in ground.processes() if (kind := _kind(process))]
            mine = [pair for pair in there if pair[0] == wanted] or (there if now > moment + _WAIT_S else [])
            if mine:
                kind, victim = draws.choice(sorted(mine, key=lambda pair: pair[1].pid))
                try:
                    victim.kill()
                    return kind
                except psutil.NoSuchProcess:
                    continue
        time.sleep(0.02)
    return ""


def _kind(process: psutil.Process) -> str:
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    text = " ".join(words[:4])
    if "popen_loky" in text:
        return "a worker process"
    if "-m mlclipsim step" in text:
        return "a job's shell" if words[0].endswith("bash") else "a job's Python"
    return "Snakemake" if "bin/snakemake" in text and "--cores" in words and "bash" not in words[0] else ""


def _explained(done: Done) -> list[str]:
    """What is wrong about what the user saw; a worker that was idle may be missed by nobody."""
    told = sentences(done.said)
    if not done.code:
        return []
    return (
        [] if len(told) == 1 and "killed" in told[0] else [f"{len(told)} sentences: {' / '.join(told)[:500]}"]
    )
