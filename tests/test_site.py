"""The documentation as a site: it builds without a warning, holds every page, and fetches nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from mlclipsim.spec import CATALOGS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a browser would load for a page, and the tags that it has."""

    def __init__(self, path: Path):
        super().__init__()
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        if tag in ("script", "link", "img", "source", "iframe"):
            self.loaded += [value for key in ("src", "href", "srcset") if (value := values.get(key))]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def in_nav(entry) -> list[str]:
    """Its pages, however deep."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in in_nav(part)]


def test_every_page_of_the_nav_is_there(site):
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = [page.replace("README.md", "index.md") for page in in_nav(nav)]
    assert len(pages) > 20
    assert [page for page in pages if not (site / page).with_suffix(".html").is_file()] == []


def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.rglob("*.html"):
        outside = [place for place in Page(path).loaded if re.match(r"(https?:)?//", place)]
        assert outside == [], path
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_equations_are_drawn_by_the_browser_itself(site):
    text = (site / "method.html").read_text(encoding="utf-8")
    assert text.count("<math") > 50
    assert 'class="arithmatex"' not in text
    assert "\\frac" not in re.sub(r"<annotation.*?</annotation>", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("catalog", CATALOGS)
def test_every_entry_of_a_catalog_is_in_its_table(site, catalog):
    page = (site / "catalogs.html").read_text(encoding="utf-8")
    entries = yaml.safe_load((ROOT / f"config/catalog/{catalog}.yaml").read_text(encoding="utf-8"))
    assert catalog in Page(site / "catalogs.html").ids
    assert [name for name in entries if f"<td><code>{name}</code></td>" not in page] == []


def test_what_is_public_has_its_place_in_the_api(site):
    import mlclipsim
    from mlclipsim import fit
    from mlclipsim.pcmp import match

    top, pcmp = Page(site / "api/mlclipsim.html").ids, Page(site / "api/pcmp.html").ids
    assert {f"mlclipsim.{name}" for name in mlclipsim.__all__ if not name.startswith("__")} <= top
    assert {f"mlclipsim.fit.{name}" for name in fit.__all__ if name.islower()} <= top
    assert {f"mlclipsim.pcmp.match.{name}" for name in match.__all__} <= pcmp
    text = (site / "api/mlclipsim.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt; " in re.sub(r"<[^>]+>", "", text)  # a doctest, as code
    assert ":func:" not in text
