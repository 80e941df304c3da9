"""Several runs side by side: what changed, what did not, and what one of them lacks."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from mlclipsim.artifacts import write_json
from mlclipsim.report import compare
from mlclipsim.report.tables.writer import NOTHING, write_csv

SPEC = {"preset": "embedded", "compare": ["default", "<b>other</b>"]}
NAMES = ("record", "claims", "table_2", "table_4", "table_5", "figure_3")


def _write(folder: Path, encoder: str, shift: float, verdict: str) -> dict[str, Path]:
    rows = [
        ("none", "global", "uniform", 0.68, None),
        ("alone", "layer_01", "learned", 0.66, True),
        ("alone", "layer_01", "learned", 0.61, False),
        ("ties", "0.5", "", 0.7, None),
    ]
    keys = ["factor", "setting", "variant", "estimate", "with_global"]
    table = pd.DataFrame(rows, columns=keys).assign(slice="macro", voters="held_out")
    table["estimate"] += shift
    table = pd.concat([table, table.assign(slice="psnr=22", estimate=0.9)])
    table["ci_low"], table["ci_high"] = table["estimate"] - 0.01, table["estimate"] + 0.01
    layers = table[table["factor"] != "ties"]
    choices = table[table["factor"] == "ties"].drop(columns="with_global").assign(judges=None)
    choices = pd.concat([choices, choices.assign(judges="same rule", estimate=0.8)])
    preference = layers.iloc[:2].assign(
        **{"benchmark": "pcmp", "metric": ["ml_clipsim", "psnr"], "class": ["ours", "fidelity"]},
        n_pairs=900,
        n_references=30,
    )
    if shift:  # a layer more, and a metric less
        preference = preference.iloc[:1]
    shares = pd.DataFrame(
        {"encoder": encoder, "fold": 0, "layer": ["layer_01", "global"], "share": [0.3, 0.7]}
    ).assign(ci_low=0.2, ci_high=0.8)
    claim = {"claim": "learned_better_than_uniform", "verdict": verdict, "estimate": 0.01 + shift}
    claim |= {"ci_low": -0.01, "ci_high": 0.03, "n": 9, "evidence": ""}
    config = {"encoder": encoder, "seed": 1, "fit": {"bootstrap": 200, "penalties": [0.0, shift]}}
    paths = {name: folder / f"{name}.csv" for name in NAMES}
    write_json(paths["record"], {"config": config, "jobs": []})
    write_json(paths["claims"], [claim])
    for name, frame in (
        *(("table_2", preference), ("table_4", layers), ("table_5", choices), ("figure_3", shares)),
    ):
        write_csv(paths[name], frame)
    return paths


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    runs = [
        _write(folder / "default", "scene-clip", 0.0, "fails"),
        _write(folder / "other", "scene-clip-resnet", 0.02, "holds"),
    ]
    inputs = {name: [run[name] for run in runs] for name in NAMES}
    compare.make(SPEC, inputs, {"html": folder / "compare.html"})
    return folder / "compare.html"


class Rows(HTMLParser):
    """Table rows: the texts of their cells."""

    def __init__(self, html: str):
        super().__init__()
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in ("th", "td")

    def handle_data(self, data):
        if self._in_cell:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


def _rows(path: Path, section: str) -> dict[str, list[str]]:
    """First cell -> the texts of the others, of the tables in a section."""
    html = path.read_text(encoding="utf-8")
    part = html[html.index(f'<section id="{section}">') :]
    return {row[0]: row[1:] for row in Rows(part[: part.index("</section>")]).rows}


def test_changes_are_the_last_run_minus_the_first(made):
    rows = _rows(made, "ablations")
    assert rows["layer 01, learned, with global"][:3] == [".660 [.650, .670]", ".680 [.670, .690]", "+.020"]
    assert rows["layer 01, learned, without global"][2] == "+.020"
    assert rows["global, uniform"][0] == ".680 [.670, .690]"
    assert rows["0.5"][2] == "+.020"
    assert rows["0.5, judged by same rule"][2] == "+.000"
    assert rows["0.5, on psnr=22"][0].startswith(".900")


def test_what_a_run_lacks_is_a_dash(made):
    assert _rows(made, "preference")["PSNR"][:3] == [".660 [.650, .670]", NOTHING, NOTHING]


def test_weights_are_those_of_each_runs_own_encoder(made):
    html = made.read_text(encoding="utf-8")
    weights = html[html.index('<section id="weights">') :]
    assert weights.index("<h3>scene-clip</h3>") < weights.index("<h3>scene-clip-resnet</h3>")
    assert _rows(made, "weights")["global"][0] == NOTHING  # of the second encoder, in the first run


def test_verdicts_that_turned_are_told(made):
    assert "1 verdict turned" in " ".join(made.read_text(encoding="utf-8").split())
    assert _rows(made, "claims")["learned better than uniform"][0].startswith("✕ fails")


def test_settings_that_differ():
    first = {"encoder": "a", "fit": {"bootstrap": 200, "penalties": [0.0]}, "seed": 1}
    second = {"encoder": "b", "fit": {"bootstrap": 200, "penalties": [0.1]}, "seed": 1, "run": "x"}
    assert compare.differing([first, second]) == [
        ("encoder", ["a", "b"]),
        ("fit.penalties", [[0.0], [0.1]]),
        ("run", [None, "x"]),
    ]
    assert compare.differing([first, first]) == []


def test_names_of_runs_stay_text(made):
    html = made.read_text(encoding="utf-8")
    assert "<b>other</b>" not in html
    assert "&lt;b&gt;other&lt;/b&gt;" in html


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_has_nothing_to_complain_about(open_page, made, width):
    opened = open_page(made, width=width)
    assert opened.overflow == 0
    assert opened.complaints == []
    assert opened.requests == []
