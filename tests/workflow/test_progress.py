"""What Snakemake prints of a run by this project's profiles, as a job of it fails."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.workflow

SETTING = ("--config", "require_files=false", "preset=ci")


@pytest.mark.parametrize("ci", [False, True])
def test_a_failed_job_is_its_sentence_and_its_log(stand_in, tmp_path, ci):
    patch = tmp_path / "patch" / "sitecustomize.py"
    refuse = '        if step == "pcmp_images": raise ValueError("expected x, got y; mend it")\n'
    text, replaced = re.subn(r"( +def write\(.*\):\n)", rf"\g<1>{refuse}", patch.read_text())
    assert replaced == 1
    patch.write_text(text)
    stand_in.environment["CI"] = "true" if ci else ""
    done = stand_in.snakemake("figure_1", "--cores", "2", *SETTING, check=False)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow specific")]
    assert done.returncode == 1
    assert lines[0].endswith(" jobs to do")
    assert len(lines[1:-3]) == (not ci)  # the one stage that was done
    assert "pcmp_images failed: expected x, got y; mend it" in lines
    (log,) = [line.removeprefix("    log: ") for line in lines if line.startswith("    log: ")]
    assert (stand_in.root / log).read_text() == "mlclipsim: expected x, got y; mend it\n"
    assert lines[-1].startswith("1 job failed (pcmp_images), 1 of ")
