"""The campaign's short form, with stand-ins for the steps: a few kills, and every other fault once."""

from __future__ import annotations

import pytest

from . import __main__ as chaos
from .ground import sentences
from .outcome import Outcome, as_markdown


@pytest.mark.slow
def test_downloads_and_archives_are_survived(tmp_path):
    assert chaos.main(["--work", str(tmp_path), "--only", "network"]) == 0


@pytest.mark.slow
@pytest.mark.workflow
def test_runs_survive(tmp_path, capsys):
    few = ["--kills", "4", "--latest", "8", "--stand-ins", "--work", str(tmp_path), "--targets", "table_1"]
    code = chaos.main([*few, "--rooms", "4", "--only", "kills", "disk", "memory", "meddling"])
    print(said := capsys.readouterr().out)
    assert code == 0, said


def test_what_explains_is_told_apart_from_progress():
    said = """
== reproduce: preset ci; jobs' logs lie in results
Using workflow specific profile profiles/default for setting default command line arguments.
3 jobs to do
[1/3] references                            19 s   about 4.1 min left
votes failed: expected room, the disk is full; free some
    log: results/ci/shared/votes-1/log.txt
fit failed: expected room, the disk is full; free some
2 jobs failed (votes, fit), 1 of 3 done in 2 s; the same command goes on from there
make: *** [Makefile:57: reproduce] Error 1
"""
    assert sentences(said) == ["expected room, the disk is full; free some"]


def test_what_was_not_survived_stands_below_the_table():
    row = Outcome("a fault", seen="a | b")
    row.note([])
    row.note(["one", "two"])
    table = as_markdown([row, Outcome("another", seen="not tried: no root")])
    assert "| a fault | 2 | 1 | a \\| b |\n| another | - | - | not tried: no root |\n" in table
    assert table.endswith("- a fault: one; two\n")
