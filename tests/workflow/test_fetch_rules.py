"""`snakemake fetch_<name>`: a rule for all that does not ship, and one sentence where it cannot work."""

from __future__ import annotations

import re

import pytest

from mlclipsim import spec

pytestmark = pytest.mark.workflow


def test_whatever_does_not_ship_has_a_rule(project):
    listed = project.snakemake("--list").stdout.split()
    outside = spec.load({}, planning=True).outside
    assert {rule for rule in listed if rule.startswith("fetch_")} == {
        f"fetch_{name.replace('-', '_')}" for name in outside
    }


def test_what_needs_a_form_is_refused_in_a_sentence(project, tmp_path):
    setting = ["--cores", "1", "--config", f"assets_dir={tmp_path}"]
    done = project.snakemake("fetch_live", *setting, check=False)
    assert done.returncode != 0
    said = (project.root / "results/fetched/live.txt").read_text()
    assert re.fullmatch(r"mlclipsim: live: no address is known; .*the form on its page filled in;.*\n", said)
    assert f"refimgs/ lies in {tmp_path}/data/live" in said
