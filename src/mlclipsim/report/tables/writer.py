"""One table, three files: csv (tidy, complete, for programs), md and booktabs tex (a pivot, for readers)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mlclipsim.artifacts import atomic
from mlclipsim.report.style import footer

__all__ = ["NOTHING", "bold", "number", "write", "write_csv", "write_text"]

_TEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"<": "$<$", ">": "$>$"})
NOTHING = "\N{EN DASH}"  # printed where there is no value
_WIDE = 90  # characters in a row: more do not fit a page's width in \\small
_BOLD = "\x02"  # marks a cell to be set in bold; each format has its own way


def number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """Fixed digits without the leading zero (``.712``), as journals print proportions; an en dash for no
    value.
    """
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


def bold(text: str) -> str:
    """Mark a cell for bold print."""
    return f"{_BOLD}{text}"


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Six significant digits, so that the last bits of a sum never show; no value is an empty field."""
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def write_text(path: Path, text: str) -> None:
    """Write text, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write(
    spec: dict[str, Any],
    outputs: dict[str, Path],
    *,
    tidy: pd.DataFrame,
    printed: pd.DataFrame,
    caption: str,
    name: str,
    notes: Sequence[str] = (),
    rules: Collection[int] = (),
) -> None:
    """Write one table in the formats asked for.

    Args:
        tidy: everything, for the csv.
        printed: cells as strings, the first column naming the rows, for md and tex.
        caption: one sentence without a full stop.
        name: of the target, for the LaTeX label.
        notes: sentences below the table; preset, run and caveat follow.
        rules: numbers of rows of ``printed`` that begin a new group.
    """
    notes = [*notes, footer(spec)]
    write_csv(outputs["csv"], tidy)
    write_text(outputs["md"], _markdown(printed, caption, notes))
    write_text(outputs["tex"], _latex(printed, caption, name, notes, rules))


def _markdown(printed: pd.DataFrame, caption: str, notes: Sequence[str]) -> str:
    def cell(text: str) -> str:
        return (f"**{text[1:]}**" if text.startswith(_BOLD) else text).replace("|", "\\|")

    rows = [list(printed.columns), ["---"] + ["---:"] * (printed.shape[1] - 1)]
    rows += [[cell(text) for text in row] for row in printed.itertuples(index=False)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return f"**{caption}.**\n\n" + "\n".join(lines) + "\n\n" + "\n".join(f"{note}  " for note in notes) + "\n"


def _latex(
    printed: pd.DataFrame, caption: str, name: str, notes: Sequence[str], rules: Collection[int]
) -> str:
    def cell(text: str) -> str:
        plain = text.lstrip(_BOLD).translate(_TEX).replace(NOTHING, "--").replace("±", r"$\pm$")
        return rf"\textbf{{{plain}}}" if text.startswith(_BOLD) else plain

    body = []
    for number_, row in enumerate(printed.itertuples(index=False)):
        if number_ in rules and number_:
            body.append(r"\midrule")
        body.append(" & ".join(cell(text) for text in row) + r" \\")
    width = printed.shape[1]
    across = sum(
        max(map(len, [str(name), *printed.iloc[:, column]])) for column, name in enumerate(printed.columns)
    )
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table*}[t]",
            r"\centering\scriptsize\setlength{\tabcolsep}{4pt}" if across > _WIDE else r"\centering\small",
            rf"\caption{{{cell(caption)}.}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
            r"\toprule",
            " & ".join(cell(text) for text in printed.columns) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip\footnotesize " + " ".join(cell(note) for note in notes),
            r"\end{table*}",
            "",
        ]
    )
