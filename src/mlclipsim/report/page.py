"""A run as one page that a person opens: claims, tables, figures, disagreements, and how all of it was made.

Which tables and figures there are is not known here: whatever documents come in are shown, in their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mlclipsim.artifacts import read_json, read_table
from mlclipsim.report import graph, html
from mlclipsim.report.standings import primary
from mlclipsim.report.style import CLASSES, caveat, label
from mlclipsim.report.tables import reader

__all__ = ["make"]

SIDES = {1.0: "a", 0.0: "b", 0.5: "tie"}  # where else there is none: an abstention, or no score
_VECTORS = 3_000_000  # bytes of an SVG from which on the PNG is shown instead


@dataclass(frozen=True)
class Document:
    """A target of the report: its name, and its files by kind (``csv``, ``svg``, ... and ``provenance``)."""

    name: str
    files: dict[str, Path]
    caption: html.Caption

    @property
    def heading(self) -> str:
        """``Table 2``."""
        return label(self.name).capitalize()


def make(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``report``: result files -> one page (.html), whole in itself.

    Args:
        inputs: ``documents``, every file of the tables, figures and claims, and their ``captions``;
            ``record``, ``disagreements``, ``sides``.
    """
    documents = _documents(inputs["documents"], inputs["captions"], spec["preset"])
    by_name = {document.name: document for document in documents}
    record = read_json(inputs["record"])
    claims = read_json(by_name["claims"].files["json"]) if "claims" in by_name else []
    standings = primary(by_name["table_2"].files["csv"]) if "table_2" in by_name else []
    origins = [
        (document, read_json(document.files["provenance"]))
        for document in documents
        if "provenance" in document.files
    ]
    html.render(
        "report.html",
        outputs["html"],
        title=f"{spec['preset']} / {spec['run']}",
        preset=spec["preset"],
        run=spec["run"],
        caveat=caveat(spec["preset"]),
        config=record["config"],
        settings=yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=True),
        claims=claims,
        claims_scale=html.Scale.over([0.0, *(c[key] for c in claims for key in ("ci_low", "ci_high"))]),
        standings=standings,
        standings_scale=html.Scale.over(row[key] for row in standings for key in ("ci_low", "ci_high")),
        classes={name: text for name, text in CLASSES.items() if name in {row["class"] for row in standings}},
        shown=set(by_name),
        tables=[(d, reader.read(d.files["md"])) for d in documents if "md" in d.files and "csv" in d.files],
        figures=[(d, _picture(d)) for d in documents if "png" in d.files],
        pairs=_pairs(inputs["disagreements"], inputs["sides"]),
        jobs=sorted(record["jobs"], key=lambda job: -(job["seconds"] or 0)),
        workflow=graph.draw(graph.of_rules(record["jobs"])),
        made=_made(origin["made_from"] for _, origin in origins),
        origins=[(d, origin, json.dumps(origin, indent=1, ensure_ascii=False)) for d, origin in origins],
    )


def _documents(files: list[Path], captions: list[Path], preset: str) -> list[Document]:
    """The targets that ``files`` belong to, in their order."""
    told = {path.stem: html.caption(path, preset) for path in captions}
    kinds: dict[str, dict[str, Path]] = {}
    for path in files:
        kind = "provenance" if path.parent.name == "provenance" else path.suffix[1:]
        kinds.setdefault(path.stem, {})[kind] = path
    return [Document(name, of_name, told[name]) for name, of_name in kinds.items()]


def _picture(document: Document) -> str:
    """The figure as an address. An image in an SVG can neither run a script nor fetch anything."""
    vectors = document.files.get("svg")
    kind = "svg" if vectors and vectors.stat().st_size <= _VECTORS else "png"
    return html.data_uri(document.files[kind], kind)


def _made(origins: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """What all documents were made with: mostly one value each, several where they were made apart."""
    found: dict[str, set[str]] = {}
    for origin in origins:
        dirty = " and uncommitted changes" if origin["git_dirty"] else ""
        one = {
            "commit": f"{origin['git_commit']}{dirty}" if origin["git_commit"] else "outside a repository",
            "lock (sha256)": origin["lock_sha256"],
            "Python": origin["python"],
            **origin["packages"],
        }
        for name, value in one.items():
            found.setdefault(name, set()).update([value] if value else [])
    return {name: sorted(values) for name, values in found.items()}


def _pairs(disagreements: Path, sides: Path) -> list[dict[str, Any]]:
    """Each pair with its pictures as addresses, and who sides with whom."""
    taken = read_table(sides, "sides")
    pairs = []
    for pair in read_table(disagreements, "disagreements").to_dict("records"):
        mine = taken[(taken["pair_id"] == pair["pair_id"]) & (taken["fold"] == pair["fold"])]
        own = (mine["name"] != "ml_clipsim") | (mine["variant"] == f"fold_{pair['fold']}")
        pictures = {key: html.data_uri(pair[f"pixels_{key}"], "webp") for key in ("reference", "a", "b")}
        maps = {f"map_{side}": html.data_uri(pair[f"map_{side}"], "png") for side in "ab"}
        pairs.append(pair | pictures | maps | {"sides": _sides(mine[own])})
    return pairs


def _sides(taken: pd.DataFrame) -> dict[str, dict[str, list[str]]]:
    """Kind of judge -> side -> names."""
    found: dict[str, dict[str, list[str]]] = {}
    for kind, part in taken.groupby("kind"):
        found[str(kind)] = {side: [] for side in ("a", "tie", "b", "none")}
        repeated = set(part.loc[part["name"].duplicated(), "name"])
        for judge in part.itertuples():
            name = f"{label(judge.name)} ({judge.variant})" if judge.name in repeated else label(judge.name)
            found[str(kind)][SIDES.get(judge.side, "none")].append(name)
    return found
