"""Printed tables come back from their Markdown as they were written."""

from __future__ import annotations

import pandas as pd
import pytest

from mlclipsim.artifacts import ArtifactError
from mlclipsim.report.tables import writer
from mlclipsim.report.tables.reader import Cell, read

SPEC = {"preset": "ci", "run": "default"}


def test_a_table_comes_back(tmp_path):
    printed = pd.DataFrame({"name": [writer.bold("x"), "1|2", "*"], "n": ["**", writer.NOTHING, "3 | 4"]})
    outputs = {kind: tmp_path / f"table.{kind}" for kind in ("csv", "md", "tex")}
    writer.write(
        SPEC, outputs, tidy=printed, printed=printed, caption="One sentence", name="table",
        notes=["First.", "Second."],
    )  # fmt: skip
    table = read(outputs["md"])
    assert table.caption == "One sentence"
    assert table.heads == ["name", "n"]
    assert table.rows == [
        [Cell("x", bold=True), Cell("**")],
        [Cell("1|2"), Cell(writer.NOTHING)],
        [Cell("*"), Cell("3 | 4")],
    ]
    assert table.notes[:2] == ["First.", "Second."]
    assert table.notes[2].startswith("preset ci, run default")


@pytest.mark.parametrize("text", [None, "", "no table", "**Caption.**\n\n| a | b |\n| --- | --- |\n| 1 |\n"])
def test_something_else_is_an_error(tmp_path, text):
    path = tmp_path / "table.md"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ArtifactError, match="table"):
        read(path)
