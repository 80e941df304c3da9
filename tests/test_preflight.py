"""A run that would fail is refused before its first job."""

from __future__ import annotations

import os
import time

import pytest

from mlclipsim import preflight
from mlclipsim.atomic import temporary
from mlclipsim.preflight import PreflightError, prepare


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(tmp_path):
    (tmp_path / "ci").mkdir()
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / ".b.x8.partial").touch()
    (tmp_path / "ci" / ".a.parquet.x7.partial").write_bytes(b"half")
    (tmp_path / "ci" / "a.parquet").write_bytes(b"whole")
    with temporary(tmp_path / "ci" / "b.parquet") as theirs:
        prepare(tmp_path, "ci")
        assert not any((tmp_path / "zoo").iterdir())
        assert sorted((tmp_path / "ci").iterdir()) == sorted([tmp_path / "ci" / "a.parquet", theirs])


def test_a_folder_that_is_not_there_is_made(tmp_path):
    prepare(tmp_path / "results", "ci")
    assert list((tmp_path / "results" / "ci").iterdir()) == []


def test_files_of_the_future_are_refused(tmp_path):
    path = tmp_path / "ci" / "a.parquet"
    path.parent.mkdir()
    path.touch()
    prepare(tmp_path, "ci")
    os.utime(path, (time.time() + 3600,) * 2)
    with pytest.raises(
        PreflightError, match=r"a\.parquet: expected a file of the past, it is of 20.* set the clock"
    ):
        prepare(tmp_path, "ci")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(preflight, "temporary", refuse)
    with pytest.raises(
        PreflightError, match=r"^/\S+: expected a folder to write to, its file system is read-only"
    ):
        prepare(tmp_path, "ci")
