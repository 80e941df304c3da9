"""GPUs are given out one by one; without any here, the list of them is invented."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mlclipsim import gpus


@pytest.fixture(autouse=True)
def host(tmp_path, monkeypatch):
    """Two GPUs, and nobody on them."""
    monkeypatch.setattr(gpus, "_FOLDER", tmp_path / "locks")
    monkeypatch.setattr(gpus, "_held", held := [])
    monkeypatch.setattr(gpus, "visible", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    yield held
    for descriptor in held:
        os.close(descriptor)


def test_two_jobs_get_two_gpus_and_a_third_waits_for_one_of_them(host, monkeypatch, capsys):
    assert gpus.claim(1) == ["GPU-a"]
    assert gpus.claim(1) == ["GPU-b"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    waited = []

    def first_ends(seconds):
        waited.append(seconds)
        os.close(host.pop(0))

    monkeypatch.setattr(gpus.time, "sleep", first_ends)
    assert gpus.claim(1) == ["GPU-a"]
    assert len(waited) == 1
    assert "waiting for a GPU" in capsys.readouterr().err


def test_who_waits_for_two_keeps_none(host, monkeypatch):
    gpus.claim(1)
    monkeypatch.setattr(gpus.time, "sleep", lambda seconds: os.close(host.pop(0)))
    assert gpus.claim(2) == ["GPU-a", "GPU-b"]
    assert len(host) == 2


def test_a_killed_process_gives_its_gpu_back(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from mlclipsim import gpus;"
        "gpus._FOLDER = Path(sys.argv[1]); gpus.visible = lambda: ['GPU-a', 'GPU-b'];"
        "print(*gpus.claim(1), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "locks")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline().strip() == "GPU-a"
        assert gpus._try(["GPU-a"], 1) == []
        holder.kill()
        holder.wait()
    assert gpus.claim(1) == ["GPU-a"]


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="expected 3 GPUs, found 2"):
        gpus.claim(3)


def test_without_a_gpu_nothing_changes(monkeypatch):
    monkeypatch.setattr(gpus, "visible", list)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus.claim(1) == []
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, ["GPU-a", "GPU-b", "GPU-c"]),
        ("2,0", ["GPU-c", "GPU-a"]),
        ("GPU-b", ["GPU-b"]),
        ("", []),
    ],
)
def test_what_the_scheduler_chose_is_kept(tmp_path, monkeypatch, chosen, expected):
    monkeypatch.undo()
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'GPU-a\\nGPU-b\\nGPU-c\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpus.visible() == expected
