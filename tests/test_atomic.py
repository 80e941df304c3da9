"""A file appears whole or not at all."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys

import pytest

from mlclipsim.atomic import atomic, sweep


def test_failing_writer_leaves_the_old_file_and_no_trace(tmp_path):
    (tmp_path / "x").write_text("old")

    def fail():
        with atomic(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert (tmp_path / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_a_killed_writer_left_is_swept(tmp_path):
    code = (
        "import os, signal, sys; from mlclipsim.atomic import atomic\n"
        "with atomic(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()
    assert len(list(tmp_path.iterdir())) == 1
    with atomic(tmp_path / "y") as temporary:
        assert sweep(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [temporary]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "Error writing bytes to file"),  # pyarrow
        RuntimeError("I/O error: No space left on device (os error 28)"),  # safetensors
    ],
)
def test_a_full_disk_is_told_as_such_with_the_file(tmp_path, error):
    with pytest.raises(OSError, match="No space left on device") as raised, atomic(tmp_path / "x"):
        raise error
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_torch_fails_in_its_own_words_where_the_disk_is_full(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="No space left"), atomic(tmp_path / "x"):
        raise RuntimeError("unexpected pos 576 vs 534")
