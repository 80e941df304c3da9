"""The tables of docs/catalogs.md, where it says ``table: name``: what can be named, and what that needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mlclipsim import citations, pretrained, spec

Entry = Mapping[str, Any]

_COLUMNS: dict[str, dict[str, Callable[[Entry], Any]]] = {
    "datasets": {"what": lambda entry: entry["source"]},
    "encoders": {
        "model": lambda entry: " ".join(filter(None, [f"`{entry['model']}`", entry.get("pretrained")])),
        "family": lambda entry: entry["family"],
    },
    "machines": {
        "task": lambda entry: entry["task"],
        "family": lambda entry: entry["family"],
        "sees (px)": lambda entry: entry["input_size"],
    },
    "metrics": {
        "class": lambda entry: entry["class"],
        "better": lambda entry: "higher" if entry["higher_is_better"] else "lower",
        "library": lambda entry: entry["library"],
        "variant": lambda entry: entry["variant"],
    },
    "codecs": {
        "model": lambda entry: f"`{entry['model']}` ({entry['library']})",
        "qualities": lambda entry: ", ".join(map(str, entry.get("qualities") or entry["points"])),
    },
    "styles": {
        "whole page (mm)": lambda entry: entry["width_mm"],
        "column (mm)": lambda entry: entry["column_mm"],
        "letters": lambda entry: f"{entry['font']}, {entry['font_size_pt']:g} pt",
        "png (dpi)": lambda entry: entry["dpi"],
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
            columns["licence"] = lambda entry: entry.get("licence", "")
        columns["cite"] = lambda entry: ", ".join(map(_citation, _keys(entry)))
    rows = [["name", *columns], ["---"] * (len(columns) + 1)]
    rows += [[f"`{name}`", *(cell(entry) for cell in columns.values())] for name, entry in entries.items()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def _needs(entry: Entry) -> str:
    if "needs" in entry:
        return f"[{entry['needs']}]({entry['address']})" if "address" in entry else str(entry["needs"])
    if entry.get("library") == "compressai" and "pretrained" in entry:
        return "`mlclipsim codecs --fetch` with its name"
    if pretrained.is_fetched(dict(entry)):
        return f"`{pretrained.command(dict(entry))}`"
    place = entry.get("weights") or entry.get("checkpoint") or ""
    inside = place.removeprefix("assets:")
    return "nothing" if inside == place else f"`{inside}` in the assets folder"


def _keys(entry: Entry) -> list[str]:
    cited = entry.get("citation") or []
    return [cited] if isinstance(cited, str) else list(cited)


def _citation(key: str) -> str:
    return f"[{key}](#{key})" if key in citations.bibliography() else key


def _bibliography(keys: Iterable[str]) -> str:
    return "\n".join(f"- `{key}`{{ #{key} }}: {citations.in_words(key)}" for key in sorted(keys))
