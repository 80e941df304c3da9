"""What a person sees of a run: a line per stage with what is left, and of a failed job its one sentence.

A logger plug-in of Snakemake, which every profile of this project asks for. Snakemake's own text stays in
its log under ``.snakemake/log``; dry runs and ``--verbose`` show it as ever. Where ``CI`` is set only the
beginning, the end and failures are told.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from mlclipsim import steps
from mlclipsim.forecast import duration
from mlclipsim.mishaps import killed, mishap
from mlclipsim.preflight import from_the_future

__all__ = ["LogHandler", "Stages", "sentence"]

_UNKNOWN_SECONDS = 4.0  # of a job whose costs are not known: to start Python and its libraries
_QUIET_SECONDS = 60.0  # after which the end of one job of many is told, too
_TICK_SECONDS = 5.0  # between two looks at what is running, on a terminal
_PRIOR_SECONDS = 30.0  # of forecast work: so much the forecast weighs against the pace of the run so far
_LEAST_ROOM = 2**20  # bytes free; a disk with less is full
# Python's, which complains after the end of a job whose worker was killed: a line, and often its source.
_TRACKER = re.compile(r"^.*resource_tracker.*(?:\n[ \t].*)?$", re.MULTILINE)
# What Snakemake and its plug-ins say about themselves, and what a failed job's line and the last say better.
_CHATTER = (
    "Assuming unrestricted shared filesystem usage",
    "Auto-selected partition",
    "Both 'sacctmgr' and 'sshare' returned empty results",
    "Building DAG of jobs",
    "Cleaning up SLURM log files",
    "Complete log(s)",
    "Conda environments: ignored",
    "Elapsed time",
    "Execute ",
    "Exiting because a job execution failed",
    "Removing output files of failed job",
    "Removing temporary output",
    "Select jobs to execute",
    "Shutting down, this might take some time",
    "Submitted array job",
    "Trying to restart job",
    "Using shell:",
    "WorkflowError:\nAt least one job did not complete successfully",
)
_ADVICE = "For further error details see the cluster/cloud log"  # put behind what every scheduler says
_SUBMITTED = "has been submitted with SLURM jobid"  # in a line that begins with the job's name


@dataclass
class Stages:
    """What of a run is done and what is left; a stage is a rule with all its jobs.

    Attributes:
        planned: jobs by rule.
        expected: rule -> seconds of one of its jobs on one core, where that is known.
        cores: at once.
    """

    planned: Mapping[str, int] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)
    cores: int = 1
    finished: Counter[str] = field(default_factory=Counter)
    began: float | None = None  # the first job; in seconds since the epoch, as all times here
    running: dict[int, str] = field(default_factory=dict)  # rule by job
    _starts: dict[str, float] = field(default_factory=dict)  # of rules
    _since: dict[int, float] = field(default_factory=dict)  # of running jobs

    @property
    def total(self) -> int:
        return sum(self.planned.values())

    def start(self, job: int, rule: str, now: float) -> None:
        self.running[job] = rule
        self._since[job] = now
        self._starts.setdefault(rule, now)
        self.began = now if self.began is None else self.began

    def finish(self, job: int) -> str:
        """Count a job and return its rule; empty where it was never seen to start."""
        rule = self.running.pop(job, "")
        self.finished[rule] += 1
        return rule

    def at_work(self, now: float) -> str:
        """The rules whose jobs are running, each with the time of its oldest."""
        since: dict[str, float] = {}
        for job, rule in list(self.running.items()):
            since[rule] = min(since.get(rule, now), self._since[job])
        return ", ".join(f"{rule} {duration(now - since[rule])}" for rule in sorted(since))

    def took(self, rule: str, now: float) -> float:
        """Seconds since the first job of a rule began."""
        return now - self._starts[rule]

    def left(self, now: float) -> str:
        """How long the rest takes, in words: the forecast, at the pace at which its beginning came true.

        Of a running job as much counts as done as the forecast has it by now, but for the last tenth: a long
        job does not slow the pace while it runs, nor is it over before it ends. *At least*, where costs of
        some rule are not known; empty at the end.
        """
        rest = {rule: count - self.finished[rule] for rule, count in self.planned.items()}
        rest = {rule: count for rule, count in rest.items() if count > 0 and rule != "all"}
        if not rest or self.began is None:
            return ""
        half_done = sum(
            min(now - self._since[job], 0.9 * self._seconds(rule)) for job, rule in self.running.items()
        )
        done = half_done + sum(self._seconds(rule) * count for rule, count in self.finished.items())
        pace = (now - self.began + _PRIOR_SECONDS / self.cores) / (done + _PRIOR_SECONDS)
        seconds = pace * (sum(self._seconds(rule) * count for rule, count in rest.items()) - half_done)
        return f"{'about' if rest.keys() <= self.expected.keys() else 'at least'} {duration(seconds)} left"

    def _seconds(self, rule: str) -> float:
        return self.expected.get(rule, _UNKNOWN_SECONDS)


def sentence(log: Path, ending: str = "", outside: str = "") -> str:
    """Why a job failed: the command line's own words at the end of its log, else what ended it from outside,
    else its very last line.

    Args:
        log: of the job; it may not be there.
        ending: what Snakemake says of the command, which is whether a signal ended it.
        outside: what a scheduler says of a job that it ran. It comes before that last line, which knows of no
            time limit.
    """
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in _TRACKER.sub("", text).splitlines() if line.strip()]
    except OSError:
        lines = []
    ours: list[str] = []
    while lines and lines[-1].startswith("mlclipsim: "):
        ours.insert(0, lines.pop().removeprefix("mlclipsim: "))
    last = lines[-1].strip() if lines else ""
    signalled = _signal(ending)
    seen = [outside.partition(_ADVICE)[0].partition("\n")[0].strip(), last]
    return (
        "; ".join(ours)
        or _unwritable(log)
        or mishap(last)
        or (killed(signalled) if signalled else "")
        or " The end of its log: ".join(filter(None, seen))
        or "it ended without a word"
    )


def _unwritable(log: Path) -> str:
    """Why a job could say nothing in its log; empty: it could.

    On a full disk what it had begun is removed when it ends, and leaves room for a line that it had not.
    """
    try:
        with log.open("a", encoding="utf-8") as stream:
            stream.write("\n")
        if shutil.disk_usage(log.parent).free < _LEAST_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log))
    except OSError as error:
        return mishap(error) or ""
    return ""


def _signal(ending: str) -> str:
    """The name of the signal that ended a command, or the command that its shell waited for; else empty."""
    if found := re.search(r"died with <Signals\.(\w+)", ending):
        return found[1]
    found = re.search(r"returned non-zero exit status (\d+)", ending)
    number = int(found[1]) - 128 if found else 0  # as shells say it
    return signal.Signals(number).name if number in set(signal.Signals) else ""


class LogHandler(LogHandlerBase):
    """Snakemake's events as lines on the terminal."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.stream = sys.stdout if settings.stdout else sys.stderr
        formatter = DefaultFormatter(settings.quiet, settings.show_failed_logs)
        own = ColorizingTextHandler(nocolor=settings.nocolor, stream=self.stream, formatter=formatter)
        self.snakemakes_own = own if settings.dryrun or settings.verbose else None
        self.told = not os.environ.get("CI")
        self.live = self.told and self.stream.isatty()
        self.stages = Stages()
        self.failed: dict[int, str] = {}
        self._endings: list[str] = []  # of commands that failed, in Snakemake's words
        self._begun = self._shown = False
        self._now = self._told_at = 0.0
        self._writing = threading.RLock()
        self._over = threading.Event()
        if self.live and not self.snakemakes_own:
            threading.Thread(target=self._tick, daemon=True).start()

    writes_to_stream = True
    writes_to_file = has_filter = has_formatter = needs_rulegraph = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.snakemakes_own and getattr(record, "exception", None) != "MissingRuleException":
                self.snakemakes_own.emit(record)
            else:
                self._tell(record, getattr(record, "event", None))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """The last line: what was done, and how to go on."""
        self._over.set()
        if self._begun:
            self._begun = False
            stages, done = self.stages, sum(self.stages.finished.values())
            took = duration(self._now - stages.began) if stages.began is not None else "no time"
            if done == stages.total:
                self._line(f"{_jobs(done)} done in {took}")
            else:
                names = ", ".join(dict.fromkeys(self.failed.values()))
                why = f"{_jobs(len(self.failed))} failed ({names})" if self.failed else "stopped"
                said = f"{why}, {done} of {stages.total} done in {took}"
                self._line(f"{said}; the same command goes on from there")
        super().close()

    def _tell(self, record: logging.LogRecord, event: LogEvent | None) -> None:
        self._now, given = record.created, record.__dict__
        if "expected_seconds" in given:
            self.stages.expected = given["expected_seconds"]
        elif event == LogEvent.RUN_INFO:
            self.stages.planned = {rule: n for rule, n in given["stats"].items() if rule != "total"}
            self._begun = True
            self._line(f"{_jobs(self.stages.total)} to do")
        elif event == LogEvent.RESOURCES_INFO:
            self.stages.cores = given.get("cores") or self.stages.cores
        elif event == LogEvent.JOB_INFO:
            if rule := self.failed.pop(given["jobid"], None):
                self._line(f"{rule} is tried again")
            self.stages.start(given["jobid"], given["rule_name"], self._now)
            self._show_running(self._now)
        elif event == LogEvent.JOB_FINISHED:
            self._finished(self.stages.finish(given["job_id"]))
        elif event == LogEvent.JOB_ERROR:
            self._failure(given)
        elif event in (None, LogEvent.ERROR, LogEvent.SHELLCMD):
            text = record.getMessage()
            # The exception of a failed command comes before its JOB_ERROR; a record without text says None.
            if "CalledProcessError" in text:
                self._endings.append(text)
            elif given.get("exception") == "MissingRuleException":
                self._line(_unknown_target(text))
            elif not (text in ("", "None") or text.startswith(_CHATTER) or _SUBMITTED in text):
                self._line(_in_a_sentence(text) if event == LogEvent.ERROR else text)

    def _finished(self, rule: str) -> None:
        stages = self.stages
        done, planned = stages.finished[rule], stages.planned.get(rule, 0)
        silent = self._now - self._told_at < _QUIET_SECONDS
        if self.told and rule != "all" and (done == planned or not silent):
            all_done, width = sum(stages.finished.values()), len(str(stages.total))
            which = _jobs(planned) if done == planned else f"{done} of {planned}"
            name = rule if planned == 1 else f"{rule} ({which})"
            took = duration(stages.took(rule, self._now))
            left = stages.left(self._now)
            self._line(f"[{all_done:{width}}/{stages.total}] {name:32} {took:>9}   {left}".rstrip())
        self._show_running(self._now)

    def _failure(self, given: Mapping[str, Any]) -> None:
        """Once per job: Snakemake repeats what failed."""
        if given["jobid"] in self.failed:
            return
        self.failed[given["jobid"]] = rule = given["rule_name"]
        self.stages.running.pop(given["jobid"], None)
        logs, outside = list(given["log"]), given.get("rule_msg") or ""
        # a command writes to its log, and so names it
        ending = next((text for text in self._endings if logs and logs[0] in text), "")
        why = sentence(Path(logs[0]), ending, outside) if logs else "it has no log"
        self._line(f"{rule} failed: {why}")
        for log in logs:
            self._line(f"    log: {log}")

    def _tick(self) -> None:
        while not self._over.wait(_TICK_SECONDS):
            self._show_running(time.time())

    def _show_running(self, now: float) -> None:
        """On a terminal: what is being made, and what is left, in a line that the next one replaces."""
        with self._writing:
            if self.live and (at_work := self.stages.at_work(now)):
                room = shutil.get_terminal_size().columns - 1
                self._write(f"... {at_work}   {self.stages.left(now)}".rstrip()[:room], end="")
                self._shown = True

    def _line(self, text: str) -> None:
        with self._writing:
            self._write(text, end="\n")
            self._shown, self._told_at = False, self._now

    def _write(self, text: str, end: str) -> None:
        self.stream.write(("\r\033[K" if self._shown else "") + text + end)
        self.stream.flush()


def _unknown_target(text: str) -> str:
    """What to ask for instead of a target that no rule makes."""
    found = re.search(r"No rule to produce (\S+)", text)
    if not found:
        return text
    documents = [name for name, step in steps.STEPS.items() if step.report]
    close = difflib.get_close_matches(found[1], documents, n=1)
    meant = f"did you mean {close[0]}?" if close else f"known: all, report, {', '.join(documents)}"
    return f"{found[1]} is neither a target nor a file that some rule makes; {meant}"


def _in_a_sentence(text: str) -> str:
    """Snakemake's text of an error that is the machine's or another run's doing; others as they are."""
    if found := re.match(r"PreflightError in file .*:\n(.*)", text):
        return found[1]
    if text.startswith("LockException"):
        return (
            "expected no other run that makes the same files in this folder, found one; wait for its end, or "
            "use `make reproduce`, which unlocks where none is at work"
        )
    if found := re.match(r"ProtectedOutputException.*affected files:\s+(\S+)", text, re.DOTALL):
        return (
            f"{found[1]}: expected a result that may be made anew, it is write-protected, or its file system "
            "is read-only; change that, and run the same command again"
        )
    if found := re.search(r"than input (\S+) \(.*clock skew", text, re.DOTALL):
        return from_the_future(Path(found[1]))
    return mishap(text) or text


def _jobs(number: int) -> str:
    return f"{number} job{'s' * (number != 1)}"
