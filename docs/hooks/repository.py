"""Pages that lie elsewhere in the repository: README.md is the first, CONTRIBUTING.md another.

A built site has no repository beside it, so links to what is no page, like code, become their words alone;
those to catalogs and to the configuration lead to the pages that show them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
_LINK = re.compile(r"(?P<words>!?\[[^\]]*\])\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    for source, place in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=_LINK.sub(_as_from_docs, text)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _LINK.sub(_as_a_page, markdown)


def _as_from_docs(found: re.Match[str]) -> str:
    target = found["target"]
    if target.startswith(("#", "https:")):
        return found[0]
    inside = target.startswith("docs/")
    return f"{found['words']}({target.removeprefix('docs/') if inside else f'../{target}'})"


def _as_a_page(found: re.Match[str]) -> str:
    place = found["target"].removeprefix("../")
    if place == found["target"]:
        return found[0]
    if catalog := re.fullmatch(r"config/catalog/(\w+)\.yaml", place):
        return f"{found['words']}(catalogs.md#{catalog[1]})"
    if place == "config/catalog":
        return f"{found['words']}(catalogs.md)"
    if place == "config/config.yaml":
        return f"{found['words']}(configuration.md)"
    return found["words"].strip("[]")
