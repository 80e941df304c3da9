"""Several runs side by side: what changed in claims, preference, ablations, weights and settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlclipsim.artifacts import read_json
from mlclipsim.report import html
from mlclipsim.report.standings import primary
from mlclipsim.report.style import CLASSES, caveat

__all__ = ["differing", "make"]

# What tells the rows of a factor apart; text, "True" and numbers alike.
_NAMING = ("setting", "variant", "slice", "with_global", "judges")
Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One thing in every run: None where a run has no such thing."""

    name: str
    cells: list[Row | None]
    kind: str = ""  # class of a metric

    @property
    def change(self) -> float:
        """The last run's estimate minus the first's, NaN where either is missing."""
        first, last = self.cells[0], self.cells[-1]
        return last["estimate"] - first["estimate"] if first and last else math.nan

    @property
    def turned(self) -> bool:
        """Whether the verdicts of a claim differ."""
        return len({cell["verdict"] for cell in self.cells if cell}) > 1


@dataclass(frozen=True)
class Block:
    """Lines under one heading, on one scale."""

    title: str
    lines: list[Line]

    @property
    def scale(self) -> html.Scale:
        cells = [cell for line in self.lines for cell in line.cells if cell]
        return html.Scale.over(cell[key] for cell in cells for key in ("ci_low", "ci_high"))


def make(spec: dict[str, Any], inputs: dict[str, list[Path]], outputs: dict[str, Path]) -> None:
    """Step ``compare``: per run ``record, claims, table_2, table_4, table_5, figure_3``, lists in the order
    of ``compare`` in the spec -> one page (.html), whole in itself.
    """
    records = [read_json(path) for path in inputs["record"]]
    claims = [{claim["claim"]: claim for claim in read_json(path)} for path in inputs["claims"]]
    standings = [{row["name"]: row for row in primary(path)} for path in inputs["table_2"]]
    preference = Block("Preference", _lines(standings))
    html.render(
        "compare.html",
        outputs["html"],
        title=f"{spec['preset']}: {', '.join(spec['compare'])}",
        preset=spec["preset"],
        caveat=caveat(spec["preset"]),
        runs=spec["compare"],
        claims=_lines(claims),
        preference=preference,
        classes={n: text for n, text in CLASSES.items() if n in {line.kind for line in preference.lines}},
        weights=_weights([record["config"]["encoder"] for record in records], inputs["figure_3"]),
        ablations=[
            Block(f"{title}: {factor}", _lines(of_factor))
            for title, table in (("Layers", "table_4"), ("Choices", "table_5"))
            for factor, of_factor in _ablation(inputs[table])
        ],
        settings=differing([record["config"] | {"run": None} for record in records]),
    )


def _lines(runs: list[dict[str, Row]]) -> list[Line]:
    """One line for each name, in the order of the first run that has it."""
    names = dict.fromkeys(name for rows in runs for name in rows)
    lines = []
    for name in names:
        cells = [rows.get(name) for rows in runs]
        kind = next(cell.get("class", "") for cell in cells if cell)
        lines.append(Line(name, cells, kind))
    return lines


def _ablation(tables: list[Path]) -> list[tuple[str, list[dict[str, Row]]]]:
    """Factor -> per run what its refits reach on held-out voters, by what a reader calls them."""
    frames = []
    for path in tables:
        table = pd.read_csv(path, dtype=dict.fromkeys(_NAMING, object), keep_default_na=False, na_values=[""])
        frames.append(table[(table["voters"] == "held_out") & table["estimate"].notna()])
    factors = dict.fromkeys(factor for frame in frames for factor in frame["factor"])
    return [(f, [_named(frame[frame["factor"] == f]) for frame in frames]) for f in factors]


def _named(rows: pd.DataFrame) -> dict[str, Row]:
    found = {}
    for row in rows.to_dict("records"):
        said = {name: row[name] for name in _NAMING if isinstance(row.get(name), str)}
        parts = [said.get("setting"), said.get("variant")]
        if row["factor"] != "none" and "with_global" in said:
            parts.append("with global" if said["with_global"] == "True" else "without global")
        if said["slice"] != "macro":
            parts.append(f"on {said['slice']}")
        if "judges" in said:
            parts.append(f"judged by {said['judges']}")
        found[", ".join(filter(None, parts))] = row
    return found


def _weights(encoders: list[str], tables: list[Path]) -> list[Block]:
    """The layers' shares, a block for each encoder that is some run's own: layers of two do not match."""
    blocks = []
    for encoder in dict.fromkeys(encoders):
        shares: list[dict[str, Row]] = []
        for own, path in zip(encoders, tables, strict=True):
            table = pd.read_csv(path)
            mine = table[table["encoder"] == (encoder if own == encoder else None)]
            several = mine["fold"].nunique() > 1
            rows = mine.rename(columns={"share": "estimate"}).to_dict("records")
            shares.append({row["layer"] + (f", fold {row['fold']}" if several else ""): row for row in rows})
        blocks.append(Block(encoder, _lines(shares)))
    return blocks


def differing(configs: list[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Keys, dotted, on which configurations differ, and each one's value; None where it lacks the key."""
    flat = [_flat(config) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config)
    rows = [(key, [config.get(key) for config in flat]) for key in keys]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]


def _flat(value: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, part in value.items():
        found |= _flat(part, f"{above}{key}.") if isinstance(part, dict) else {f"{above}{key}": part}
    return found
