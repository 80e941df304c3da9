"""Progress of a run: what is left, what a failed job says, and which of Snakemake's events become lines."""

from __future__ import annotations

import io
import logging
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from mlclipsim.progress import LogHandler, Stages, sentence


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(monkeypatch):
    """Makes a handler on a stream; ``tell(event, created, **given)`` is what Snakemake does, ``said()`` its
    lines.
    """

    def make(*, ci=False, terminal=False, dryrun=False):
        stream = Terminal() if terminal else io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("CI", "true") if ci else monkeypatch.delenv("CI", raising=False)
        settings = SimpleNamespace(
            stdout=False, quiet=None, show_failed_logs=False, nocolor=True, dryrun=dryrun, verbose=False
        )
        handler = LogHandler(settings, None)

        def tell(event, created=0.0, msg="", **given):
            record = logging.makeLogRecord({"msg": msg, "event": event, "levelno": logging.INFO, **given})
            record.created = created
            handler.handle(record)

        def said():
            return stream.getvalue().splitlines()

        return SimpleNamespace(tell=tell, said=said, close=handler.close, stream=stream)

    return make


def begin(made, **planned):
    made.tell(LogEvent.RESOURCES_INFO, cores=2)
    made.tell(LogEvent.RUN_INFO, msg="Job stats: ...", stats=planned | {"total": sum(planned.values())})
    made.tell(None, msg="None", expected_seconds={"votes": 10.0, "fit": 30.0, "table_1": 20.0})


def start(made, job, rule, created):
    made.tell(LogEvent.JOB_INFO, created, jobid=job, rule_name=rule)


def fail(made, job, rule, *logs, created=1.0, **given):
    given |= {"jobid": job, "rule_name": rule, "log": [str(log) for log in logs]}
    made.tell(LogEvent.JOB_ERROR, created, msg="Error in rule", **given)


def test_what_is_left_is_the_forecast_at_the_pace_so_far():
    stages = Stages({"votes": 1, "fit": 2, "table_1": 1, "all": 1}, {"votes": 10.0, "fit": 30.0}, cores=1)
    assert stages.left(0.0) == ""  # nothing has begun
    stages.start(1, "votes", 100.0)
    assert stages.left(100.0) == "at least 74 s left"  # 10 + 2 * 30, and 4 s of what nobody measured
    assert stages.finish(1) == "votes"
    stages.expected = {"votes": 10.0, "fit": 30.0, "table_1": 20.0}
    # As forecast: 10 s of 10. Half as fast: (20 + 30) / (10 + 30) of 80 s, the forecast weighing 30 s.
    assert stages.left(110.0) == "about 80 s left"
    assert stages.left(120.0) == "about 1.7 min left"
    stages.cores = 2  # and then it need not be as slow
    assert stages.left(105.0) == "about 40 s left"


def test_what_a_running_job_must_have_done_by_now_counts():
    stages = Stages({"votes": 1, "fit": 1}, {"votes": 10.0, "fit": 300.0}, cores=1)
    stages.start(1, "fit", 0.0)
    assert stages.left(0.0) == "about 5.2 min left"
    assert stages.left(150.0) == "about 2.7 min left"  # 150 s of the 300, and votes
    assert stages.left(300.0) == "about 44 s left"
    assert stages.at_work(300.0) == "fit 5.0 min"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tqdm: 3 of 9\nmlclipsim: expected a, got b; mend it\n", "expected a, got b; mend it"),
        ("mlclipsim: 'x'\nmlclipsim: this is a KeyError; --debug shows where\n\n",
         "'x'; this is a KeyError; --debug shows where"),
        ("mlclipsim: early\nTraceback\n  Killed \n", "Killed"),
        ("mlclipsim: a worker process was killed\n/resource_tracker.py:9: UserWarning: 6 leaked\n"
         "  warnings.warn('resource_tracker: There appear to be %d '\n", "a worker process was killed"),
        ("mlclipsim: a worker process was killed\n/resource_tracker.py:9: UserWarning: 1 leaked\n"
         "  warnings.warn(\n", "a worker process was killed"),
        ("", "it ended without a word"),
        (None, "it ended without a word"),
    ],
)  # fmt: skip
def test_the_sentence_of_a_failed_job(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "log.txt").write_text(text)
    assert sentence(tmp_path / "log.txt") == expected


@pytest.mark.parametrize(
    ("log", "ending", "expected"),
    [
        (
            "distort: 0 of 30",
            "Command '...' returned non-zero exit status 137.",
            "its process was killed (SIGKILL)",
        ),
        (
            "distort: 0 of 30",
            "Command '...' died with <Signals.SIGKILL: 9>.",
            "its process was killed (SIGKILL)",
        ),
        ("distort: 0 of 30", "Command '...' returned non-zero exit status 1.", "distort: 0 of 30"),
        (
            "what():  std::bad_alloc",
            "Command '...' returned non-zero exit status 134.",
            "expected enough memory",
        ),
        ("mlclipsim: expected a", "Command '...' returned non-zero exit status 137.", "expected a"),
    ],
)
def test_a_job_that_was_ended_from_outside_says_by_what(tmp_path, log, ending, expected):
    (tmp_path / "log.txt").write_text(log)
    assert sentence(tmp_path / "log.txt", ending).startswith(expected)


def test_a_log_that_cannot_be_written_is_why_the_job_said_nothing(tmp_path, monkeypatch):
    log = tmp_path / "log.txt"

    def refuse(path, mode="r", **_):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert sentence(log).startswith(f"{log}: expected a folder to write to, its file system is read-only")


def test_the_signal_is_of_the_job_whose_log_the_command_names(run, tmp_path):
    made = run()
    begin(made, votes=1, fit=1)
    for job, rule in enumerate(("votes", "fit")):
        start(made, job, rule, 0.0)
        (tmp_path / f"{rule}.txt").write_text(f"{rule}: on its way")
    for rule, status in (("votes", 137), ("fit", 1)):
        command = f"Command 'python > {tmp_path}/{rule}.txt' returned non-zero exit status {status}."
        made.tell(LogEvent.ERROR, 1.0, msg=f"RuleException:\nCalledProcessError in file x:\n{command}")
    for job, rule in enumerate(("votes", "fit")):
        fail(made, job, rule, tmp_path / f"{rule}.txt")
    said = [line for line in made.said() if "failed:" in line]
    assert said[0].startswith("votes failed: its process was killed (SIGKILL), as the system does")
    assert said[1:] == ["fit failed: fit: on its way"]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (
            "LockException:\nError: Directory cannot be locked. Please make",
            "expected no other run that makes",
        ),
        (
            'ProtectedOutputException in rule table_1 in file "/x/report.smk", line 4:\n'
            "Write-protected output files for rule table_1:\n    output: a.csv, b.json\n"
            "    affected files:\n        b.json\n        c.json",
            "b.json: expected a result that may be made anew, it is write-protected",
        ),
        (
            'PreflightError in file "/x/Snakefile", line 36:\nexpected a\n  File "/x/Snakefile", line 3',
            "expected a",
        ),
        (
            "OSError in file x: [Errno 30] Read-only file system: 'results/a'",
            "results/a: expected a folder to",
        ),
    ],
)
def test_errors_that_are_the_machines_are_one_sentence(run, text, start):
    made = run()
    made.tell(LogEvent.ERROR, msg=text)
    (line,) = made.said()
    assert line.startswith(start)
    assert "File" not in line


def test_a_line_per_stage(run):
    made = run()
    made.tell(None, msg="Building DAG of jobs...")
    begin(made, votes=1, fit=2, all=1)
    start(made, 1, "votes", 100.0)
    made.tell(LogEvent.JOB_FINISHED, 110.0, msg="Finished jobid: 1", job_id=1)
    made.tell(LogEvent.PROGRESS, 110.0, done=1, total=4)
    for job in (2, 3):
        start(made, job, "fit", 110.0)
    for job in (2, 3):
        made.tell(LogEvent.JOB_FINISHED, 130.0, job_id=job)
    start(made, 0, "all", 130.0)
    made.tell(LogEvent.JOB_FINISHED, 130.0, job_id=0)
    made.close()
    made.close()
    assert made.said() == [
        "4 jobs to do",
        "[1/4] votes                                 10 s   about 38 s left",
        "[3/4] fit (2 jobs)                          20 s",
        "4 jobs done in 30 s",
    ]


def test_a_failure_is_told_once_in_its_own_words(run, tmp_path):
    log = tmp_path / "votes.txt"
    log.write_text("mlclipsim: expected votes of 2 families, got 1; add a voter to folds\n")
    made = run(ci=True)
    begin(made, references=1, votes=1)
    start(made, 1, "references", 0.0)
    made.tell(LogEvent.JOB_FINISHED, 1.0, job_id=1)
    start(made, 2, "votes", 1.0)
    made.tell(LogEvent.ERROR, 1.0, msg="RuleException:\nCalledProcessError in file ...: Command '...'")
    fail(made, 2, "votes", log)
    fail(made, 2, "votes", log)
    made.tell(None, 1.0, msg="Shutting down, this might take some time.")
    made.tell(LogEvent.ERROR, 2.0, msg="WorkflowError:\nAt least one job did not complete successfully.")
    made.close()
    assert made.said() == [
        "2 jobs to do",
        "votes failed: expected votes of 2 families, got 1; add a voter to folds",
        f"    log: {log}",
        "1 job failed (votes), 1 of 2 done in 2 s; the same command goes on from there",
    ]


def test_a_job_that_the_scheduler_ended_says_so_and_is_told_again_when_it_fails_again(run, tmp_path):
    log, slurm = tmp_path / "fit.txt", tmp_path / "slurm_logs/rule_fit/7.log"
    log.write_text("fit: 4/10\n")
    made = run()
    begin(made, fit=1, votes=1)
    start(made, 1, "fit", 0.0)
    start(made, 2, "votes", 0.0)
    made.tell(None, msg=f"Job 1 has been submitted with SLURM jobid 7 (log: {slurm}).")
    ended = (
        "SLURM-job '7' failed, SLURM status is: 'TIMEOUT'.For further error details see the cluster/cloud log"
    )
    fail(made, 1, "fit", log, slurm, rule_msg=ended)
    made.tell(None, msg="Trying to restart job 1.")
    start(made, 1, "fit", 2.0)
    log.write_text("mlclipsim: expected a, got b; mend it\n")
    fail(made, 1, "fit", log, rule_msg="SLURM-job '8' failed, SLURM status is: 'FAILED'.")
    start(made, 1, "fit", 3.0)
    for job in (1, 2):
        made.tell(LogEvent.JOB_FINISHED, 34.0, job_id=job)
    made.close()
    assert made.said() == [
        "2 jobs to do",
        "fit failed: SLURM-job '7' failed, SLURM status is: 'TIMEOUT'. The end of its log: fit: 4/10",
        f"    log: {log}",
        f"    log: {slurm}",
        "fit is tried again",
        "fit failed: expected a, got b; mend it",
        f"    log: {log}",
        "fit is tried again",
        "[1/2] fit                                   34 s   about 1 s left",
        "[2/2] votes                                 34 s",
        "2 jobs done in 34 s",
    ]


def test_other_errors_are_told_as_they_are(run):
    made = run()
    made.tell(LogEvent.ERROR, msg="WorkflowError:\n2 problems in the configuration: ...")
    made.tell(None, msg="Nothing to be done (all requested files are present and up to date).")
    made.close()
    assert made.said() == [
        "WorkflowError:",
        "2 problems in the configuration: ...",
        "Nothing to be done (all requested files are present and up to date).",
    ]


@pytest.mark.parametrize(
    ("target", "words"),
    [("figure_9", "did you mean figure_"), ("everything", "known: all, report, claims, table_1, ")],
)
def test_an_unknown_target_is_answered_with_known_ones(target, words, run):
    made = run()
    text = f"MissingRuleException:\nNo rule to produce {target} (if you use input functions ...)."
    made.tell(LogEvent.ERROR, msg=text, exception="MissingRuleException")
    (line,) = made.said()
    assert line.startswith(f"{target} is neither a target nor a file that some rule makes; {words}")


def test_on_a_terminal_what_runs_stands_in_a_line_that_is_replaced(run):
    made = run(terminal=True)
    begin(made, votes=1, fit=1)
    start(made, 1, "votes", 0.0)
    start(made, 2, "fit", 0.0)
    made.tell(LogEvent.JOB_FINISHED, 5.0, job_id=1)
    text = made.stream.getvalue()
    assert "\n... votes 0 s   about " in text
    assert "\r\033[K... fit 0 s, votes 0 s   about " in text
    assert "left\r\033[K[1/2] votes" in text
    assert text.splitlines()[-1].startswith("... fit 5 s   about ")
    made.close()


def test_a_long_job_is_seen_to_be_at_work(run, monkeypatch):
    monkeypatch.setattr("mlclipsim.progress._TICK_SECONDS", 0.01)
    made = run(terminal=True)
    begin(made, votes=1)
    start(made, 1, "votes", time.time() - 240)
    for _ in range(500):
        if "... votes 4.0 min" in made.stream.getvalue():
            break
        time.sleep(0.01)
    made.close()
    assert "... votes 4.0 min" in made.stream.getvalue()


def test_a_dry_run_is_snakemakes_own(run):
    made = run(dryrun=True)
    begin(made, votes=1)
    assert "Job stats: ..." in made.said()
    assert "1 job to do" not in made.said()


def test_the_end_of_one_of_many_jobs_is_told_after_a_minute_of_silence(run):
    made = run()
    begin(made, votes=3)
    for job, created in ((1, 10.0), (2, 70.0), (3, 80.0)):
        start(made, job, "votes", created - 10)
        made.tell(LogEvent.JOB_FINISHED, created, job_id=job)
    told = [line.split("   ")[0] for line in made.said()]
    assert told == ["3 jobs to do", "[2/3] votes (2 of 3)", "[3/3] votes (3 jobs)"]


def test_a_dry_run_names_targets_too(run):
    made = run(dryrun=True)
    made.tell(LogEvent.ERROR, msg="No rule to produce tabel_2 (if ...)", exception="MissingRuleException")
    assert made.said() == [
        "tabel_2 is neither a target nor a file that some rule makes; did you mean table_2?"
    ]


def test_on_a_full_disk_a_job_that_said_nothing_had_no_room(tmp_path, monkeypatch):
    log = tmp_path / "log.txt"
    log.touch()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
    assert sentence(log).startswith(f"{log}: expected room to write, the disk is full")
    log.write_text("mlclipsim: expected a, got b\n")
    assert sentence(log) == "expected a, got b"
