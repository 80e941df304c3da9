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
    for name in ("vgg16", "tid2013", "lpips", "bmshj2018-hyperprior", "deeplabv3-resnet50", "kodak"):
        assert missing[name].get == f"mlclipsim fetch {name}"
    assert missing["pipal"].get.splitlines() == [
        "https://github.com/HaomingCai/PIPAL-dataset",
        "needs a download by the links on its page",
        "Train_Ref, Train_Label and the four archives Distortion_1 to _4, these unpacked in Train_Distort",
    ]
    assert missing["live"].get.endswith(f"unpacked so that refimgs/ lies in {tmp_path / 'data/live'}")
    assert missing["dreamsim"].get.startswith("DreamSim (MIT), pip install dreamsim")
    assert "psnr" not in missing

    (tmp_path / "data/imagenet-val").mkdir(parents=True)
    (tmp_path / "data/tid2013").mkdir(parents=True)
    names = {lack.name for lack in doctor.lacks(spec.load({"preset": "paper"}, planning=True))}
    assert "imagenet-val" not in names
    assert "tid2013" in names  # its folder is there, its files are not


def test_the_report_has_each_part_and_each_command_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLCLIPSIM_ASSETS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cli.main(["doctor"]) == 0  # the default preset can run
    text = capsys.readouterr().out
    for title in ("Environment", "Devices", "Caches", "Presets", "Not here, and what gets it"):
        assert re.search(rf"^{title}$", text, re.MULTILINE), title
    assert re.search(r"^  embedded +ready; \d+ of \d+ metrics would not run$", text, re.MULTILINE)
    assert re.search(r"^  local +lacks 1 encoder, 8 machines, 4 data sets; ", text, re.MULTILINE)
    commands = [line.strip() for line in text.splitlines() if line.startswith("      ")]
    assert len(set(commands)) == len(commands)
    assert "mlclipsim fetch csiq tid2013 kadid10k bapps coco128-val" not in text  # this one by hand
    assert "mlclipsim fetch csiq tid2013 kadid10k bapps" in commands  # together


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
