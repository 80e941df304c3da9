"""Whatever a catalog cites is in the bibliography, and a run cites what it used and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlclipsim import citations, cli, spec
from mlclipsim.artifacts import ArtifactError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def in_the_project(recorded_run, monkeypatch):
    """The recorded run, read as if its folder were the project's."""
    monkeypatch.setattr(spec, "project_root", lambda: ROOT)
    return recorded_run


def test_every_citation_is_in_the_bibliography_and_every_entry_says_what_it_is():
    bibliography = citations.bibliography()
    text = (ROOT / "config/references.bib").read_text()
    assert len(bibliography) == text.count("\n@")  # the pattern has missed none, and no key is there twice
    for key, entry in bibliography.items():
        assert re.search(r"^  author = \{.+\},$", entry, re.MULTILINE), key
        assert re.search(r"^  title = \{.+\},$", entry, re.MULTILINE), key
        assert entry.count("{") == entry.count("}"), key
    for catalog in spec.CATALOGS:
        for name, entry in spec.read_yaml(ROOT / f"config/catalog/{catalog}.yaml").items():
            cited = entry.get("citation") or []
            assert {cited} if isinstance(cited, str) else set(cited) <= bibliography.keys(), name


def test_a_citation_makes_nothing_again():
    plan = spec.load({"preset": "paper"}, planning=True)
    before = {step: plan.digest(step) for step in ("references", "predictions", "baselines", "similarities")}
    for catalog in plan.catalogs.values():
        for entry in catalog.values():
            entry["citation"] = "another"
    assert {step: plan.digest(step) for step in before} == before


def test_exactly_what_was_used(in_the_project):
    used = citations.keys(in_the_project)
    assert used >= {"ding2026mlclipsim", "wang2004ssim", "russakovsky2015imagenet", "snakemake", "numpy"}
    assert not used & {"zhang2018lpips", "gu2020pipal", "radford2021clip"}  # not run; not in the run


def test_software_has_its_version(in_the_project):
    import numpy

    text = citations.as_bibtex(in_the_project / "tables/table_2.csv")
    entries = dict(re.findall(r"^@\w+\{([^,]+),\n(.*?)^\}$", text, re.MULTILINE | re.DOTALL))
    assert list(entries) == sorted(entries)
    assert f"  note = {{version {numpy.__version__}}},\n" in entries["numpy"]
    assert "note" not in entries["wang2004ssim"]


def test_a_key_that_the_bibliography_lacks_is_named(in_the_project, monkeypatch):
    known = citations.bibliography()
    known.pop("wang2004ssim")
    monkeypatch.setattr(citations, "bibliography", lambda: known)
    with pytest.raises(ArtifactError, match="has no entry wang2004ssim; add it there"):
        citations.as_bibtex(in_the_project)


def test_in_words():
    assert citations.in_words("russakovsky2015imagenet") == (
        "Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, 2015"
    )
    assert citations.in_words("balle2018hyperprior").startswith("Ballé et al., Variational")


def test_the_command_line_writes_a_file(in_the_project, tmp_path):
    assert cli.main(["bibtex", str(in_the_project), "--output", str(tmp_path / "references.bib")]) == 0
    assert (tmp_path / "references.bib").read_text() == citations.as_bibtex(in_the_project)
