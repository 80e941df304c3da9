"""The listing says what the registry says, and so does the page."""

from __future__ import annotations

from pathlib import Path

from mlclipsim.distortions import FAMILIES
from mlclipsim.distortions.listing import COLUMNS, as_markdown, as_text, cells

PAGE = Path(__file__).resolve().parents[2] / "docs" / "distortions.md"


def test_every_family_has_a_line_and_says_where_it_comes_from():
    lines = as_text().splitlines()
    assert lines[0].split() == list(COLUMNS)
    assert [line.split()[0] for line in lines[1:]] == list(FAMILIES)
    for entry in FAMILIES.values():
        assert len(cells(entry)) == len(COLUMNS)
        assert entry.quantity
        assert entry.source
        assert "|" not in "".join(cells(entry))


def test_discrete_families_say_how_many_levels():
    assert cells(FAMILIES["jpeg"])[COLUMNS.index("discrete")] == "95 levels"
    assert cells(FAMILIES["fog"])[COLUMNS.index("photometric")] == "yes"


def test_the_page_has_the_table_of_the_registry():
    """`python -m mlclipsim.report.families` writes it anew."""
    assert as_markdown() in PAGE.read_text(encoding="utf-8")
