"""The tables of docs/catalogs.md, where it says ``table: name``: what can be named, and what that needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mlclipsim import citations, fetch, spec

Entry = Mapping[str, Any]

# Heading -> what stands there of an entry, by its name and what the catalog says.
_COLUMNS: dict[str, dict[str, Callable[[str, Entry], Any]]] = {
    "datasets": {"what": lambda _, entry: entry["source"]},
    "encoders": {
        "model": lambda _, entry: " ".join(filter(None, [f"`{entry['model']}`", entry.get("pretrained")])),
        "family": lambda _, entry: entry["family"],
    },
    "machines": {
        "task": lambda _, entry: entry["task"],
        "family": lambda _, entry: entry["family"],
        "sees (px)": lambda _, entry: entry["input_size"],
    },
    "metrics": {
        "class": lambda _, entry: entry["class"],
        "better": lambda _, entry: "higher" if entry["higher_is_better"] else "lower",
        "library": lambda _, entry: entry["library"],
        "variant": lambda _, entry: entry["variant"],
    },
    "codecs": {
        "model": lambda _, entry: f"`{entry['model']}` ({entry['library']})",
        "qualities": lambda _, entry: ", ".join(map(str, entry.get("qualities") or entry["points"])),
    },
    "styles": {
        "whole page (mm)": lambda _, entry: entry["width_mm"],
        "column (mm)": lambda _, entry: entry["column_mm"],
        "letters": lambda _, entry: f"{entry['font']}, {entry['font_size_pt']:g} pt",
        "png (dpi)": lambda _, entry: entry["dpi"],
    },
}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri != "catalogs.md":
        return markdown
    catalogs = {
        name: spec.read_yaml(spec.project_root() / "config" / "catalog" / f"{name}.yaml")
        for name in spec.CATALOGS
    }
    text = re.sub(r"<!-- table: (\w+) -->", lambda found: _table(found[1], catalogs[found[1]]), markdown)
    cited = {key for entries in catalogs.values() for entry in entries.values() for key in _keys(entry)}
    return text.replace("<!-- bibliography -->", _bibliography(cited & citations.bibliography().keys()))


def _table(catalog: str, entries: Mapping[str, Entry]) -> str:
    columns = dict(_COLUMNS[catalog])
    if catalog != "styles":  # those need nothing, and cite nothing
        columns["needs"] = _needs
        if any("licence" in entry for entry in entries.values()):
            columns["licence"] = lambda _, entry: entry.get("licence", "")
        columns["cite"] = lambda _, entry: ", ".join(map(_citation, _keys(entry)))
    rows = [["name", *columns], ["---"] * (len(columns) + 1)]
    rows += [
        [f"`{name}`", *(cell(name, entry) for cell in columns.values())] for name, entry in entries.items()
    ]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def _needs(name: str, entry: Entry) -> str:
    place = entry.get("weights") or entry.get("checkpoint") or ""
    if fetch.knows(dict(entry)):
        return f"`snakemake fetch_{name.replace('-', '_')}`"
    if "address" in entry:
        return f"[{entry['needs']}]({entry['address']})"
    if place.startswith("assets:"):
        return f"`{place.removeprefix('assets:')}` in the assets folder"
    return str(entry.get("needs", "nothing"))


def _keys(entry: Entry) -> list[str]:
    cited = entry.get("citation") or []
    return [cited] if isinstance(cited, str) else list(cited)


def _citation(key: str) -> str:
    return f"[{key}](#{key})" if key in citations.bibliography() else key


def _bibliography(keys: Iterable[str]) -> str:
    return "\n".join(f"- `{key}`{{ #{key} }}: {citations.in_words(key)}" for key in sorted(keys))
