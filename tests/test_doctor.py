"""What is here, what is not, and what gets it."""

from __future__ import annotations

import re

import pytest

from mlclipsim import cli, doctor, spec


def test_the_embedded_preset_needs_nothing():
    missing = doctor.lacks(spec.load({"preset": "embedded"}, planning=True))
    assert {lack.kind for lack in missing} <= {"metric"}


def test_what_a_preset_lacks_and_what_gets_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLCLIPSIM_ASSETS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    missing = {lack.name: lack for lack in doctor.lacks(spec.load({"preset": "paper"}, planning=True))}
    assert missing["vgg16"].get == (
        "python -c \"import torchvision; torchvision.models.get_model('vgg16', weights='IMAGENET1K_V1')\""
    )
    assert missing["tid2013"].get.splitlines() == [
        "https://www.ponomarenko.info/tid2013.htm",
        "needs a download",
        f"tid2013.rar, about 910 MB, unpacked so that mos_with_names.txt lies in {tmp_path / 'data/tid2013'}",
    ]
    assert "torchvision.models.alexnet" in missing["lpips"].get
    assert "psnr" not in missing

    (tmp_path / "data/tid2013").mkdir(parents=True)
    assert "tid2013" not in {
        lack.name for lack in doctor.lacks(spec.load({"preset": "paper"}, planning=True))
    }


def test_the_report_has_each_part_and_each_command_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLCLIPSIM_ASSETS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cli.main(["doctor"]) == 0  # the default preset can run
    text = capsys.readouterr().out
    for title in ("Environment", "Devices", "Caches", "Presets", "Not here, and what gets it"):
        assert re.search(rf"^{title}$", text, re.MULTILINE), title
    assert re.search(r"^  embedded +ready; \d+ of \d+ metrics would not run$", text, re.MULTILINE)
    assert re.search(r"^  local +lacks 1 encoder, 7 machines, 2 data sets; ", text, re.MULTILINE)
    commands = [line for line in text.splitlines() if line.startswith("      ")]
    assert sum("models.vgg16(" in line for line in commands) == 1  # LPIPS and DISTS want the same file


def test_a_preset_by_name_decides_the_exit_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLCLIPSIM_ASSETS", str(tmp_path / "nowhere"))
    assert cli.main(["doctor", "local"]) == 1
    assert "embedded" not in capsys.readouterr().out
    assert cli.main(["doctor", "ci"]) == 0
    assert cli.main(["doctor", "locl"]) == 2
    assert "did you mean 'local'?" in capsys.readouterr().err


def test_packages_that_are_not_the_locks_are_named(tmp_path):
    import numpy

    lock = tmp_path / "requirements.lock"
    lock.write_text(
        f"numpy=={numpy.__version__} \\\n    --hash=sha256:00\n"
        "pandas==0.0.1 \\\n    --hash=sha256:00\n"
        "no-such-package==1.0\n"
        "only-elsewhere==1.0 ; sys_platform == 'win32'\n"
    )
    state = doctor._packages(lock)
    assert state.startswith("1 as in requirements.lock; pandas ")
    assert "instead of 0.0.1; no-such-package is not installed" in state
    assert "only-elsewhere" not in state


@pytest.mark.parametrize("preset", ["ci", "embedded", "local", "paper"])
def test_every_lack_says_what_to_do(preset):
    assert all(
        lack.get and "`path`" not in lack.get
        for lack in doctor.lacks(spec.load({"preset": preset}, planning=True))
    )
