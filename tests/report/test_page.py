"""The report as one page: what it shows, that it repeats, that it trusts no text, and what a browser says."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mlclipsim.artifacts import write_json, write_table
from mlclipsim.images import encode_image
from mlclipsim.report import html, page, style
from mlclipsim.report.tables import writer

HOSTILE = "<script>alert('x')</script><img src=https://evil.example/x.png onerror=alert(1)>\"'&|{{ 7 * 7 }}"
SPEC = {
    "preset": "embedded",
    "run": "default",
    "style": {"width_mm": 174.0, "column_mm": 84.0, "font": "DejaVu Sans", "font_size_pt": 8.0, "dpi": 60},
}
CONFIG = {
    "encoder": "scene-clip",
    "seed": 3,
    "references": {"source": "scenes", "size": 64},
    "pcmp": {"families": ["jpeg", "fog"], "targets_db": [22.0, 25.0]},
    "note": HOSTILE,
}
WHEN = {"started_utc": "2026-01-01T00:00:00Z", "seconds": 1.5}


def write_run(folder: Path, text: str = "plain") -> SimpleNamespace:
    """An invented run with one of everything, ``text`` wherever a name or a sentence stands."""
    documents = [*_table(folder, text), *_figure(folder), *_claims(folder, text)]
    for name in ("table_2", "figure_3", "claims"):
        packages = {"numpy": "2.0", "piq": None}
        made = {"git_commit": "c" * 40, "git_dirty": True, "lock_sha256": None, "python": "3.11"}
        origin = {"made_from": made | {"packages": packages, "spec_sha256": "0123456789", "spec": text}}
        write_json(folder / f"provenance/{name}.json", origin | {"measured": WHEN})
        documents.append(folder / f"provenance/{name}.json")
    captions = []
    for name in ("table_2", "figure_3", "claims"):
        path = folder / f"captions/{name}.rst"
        sentence = text.replace("{", "").replace("|", "")  # templates of our own, in reStructuredText
        writer.write_text(
            path, f"**Title of {name}**, preset ``{{{{ snakemake.config['preset'] }}}}``: {sentence}."
        )
        captions.append(path)
    jobs = [
        {"name": "fit-a", "rule": "fit", "inputs": ["pairs"], "outputs": ["weights"], "seconds": 2.0},
        {"name": text, "rule": text, "inputs": [], "outputs": ["pairs"], "seconds": None},
        {"name": "table_2", "rule": "table_2", "inputs": ["weights"], "outputs": ["csv"], "seconds": 0.5},
    ]
    write_json(folder / "record.json", {"config": CONFIG, "jobs": jobs})
    _disagreements(folder, text)
    inputs = {
        "documents": documents,
        "captions": captions,
        "record": folder / "record.json",
        "disagreements": folder / "disagreements.parquet",
        "sides": folder / "sides.parquet",
    }
    return SimpleNamespace(inputs=inputs, folder=folder)


def _table(folder: Path, text: str) -> list[Path]:
    tidy = pd.DataFrame(
        [
            ("pcmp", "held_out", "macro", "ml_clipsim", "fitted", 0.7, 0.68, 0.72, 900, 30, "ours"),
            ("pcmp", "held_out", "macro", "ssim", text, 0.6, 0.58, 0.62, 900, 30, "fidelity"),
            ("pcmp", "held_out", "macro", "lpips", "", np.nan, np.nan, np.nan, 0, 0, "perceptual"),
            ("pcmp", "held_out", "all", "ml_clipsim", "fitted", 0.9, 0.8, 0.95, 900, 30, "ours"),
        ],
        columns=[
            *("benchmark", "voters", "slice", "metric", "variant", "estimate", "ci_low", "ci_high"),
            *("n_pairs", "n_references", "class"),
        ],
    )
    columns = {f"column {number} of many": [".700", writer.NOTHING, "10,100"] for number in range(20)}
    printed = pd.DataFrame({"metric": [writer.bold("ours"), text, "a|b"], **columns})
    printed["value"] = [".900", writer.NOTHING, "10,100"]
    outputs = {kind: folder / f"tables/table_2.{kind}" for kind in ("csv", "md", "tex")}
    writer.write(
        SPEC, outputs, tidy=tidy, printed=printed, caption=f"Caption {text}", name="table_2",
        notes=[f"Note {text}", "unbroken-" * 40],
    )  # fmt: skip
    return list(outputs.values())


def _figure(folder: Path) -> list[Path]:
    outputs = {kind: folder / f"figures/figure_3.{kind}" for kind in ("svg", "png")}
    with style.page(SPEC, outputs, height_mm=40) as figure:
        figure.add_subplot().plot([1, 2, 3])
    writer.write_csv(folder / "figures/figure_3.csv", pd.DataFrame({"x": [1]}))
    return [*outputs.values(), folder / "figures/figure_3.csv"]


def _claims(folder: Path, text: str) -> list[Path]:
    claims = [
        ("machine_preference_better_than_fidelity", "holds", 0.05, 0.03, 0.07, 5575),
        ("multi_layer_better_than_global", "fails", -0.001, -0.007, 0.006, 5575),
        ("human_competitive", "not_tested", None, None, None, 0),
    ]
    keys = ("claim", "verdict", "estimate", "ci_low", "ci_high", "n")
    rows = [dict(zip(keys, claim, strict=True)) | {"evidence": f"evidence {text}"} for claim in claims]
    write_json(folder / "claims.json", rows)
    return [folder / "claims.json"]


def _disagreements(folder: Path, text: str) -> None:
    pixels = encode_image(np.full((16, 16, 3), 128, np.uint8))
    pair = {
        "pair_id": "p1",
        "fold": 0,
        "reference_id": "r1",
        "target_db": 25.0,
        "family_a": text,
        "family_b": "gaussian_blur",
        "label_held_out": 0.9,
        "label_seen": 0.8,
        "expected": 0.1,
        "score_a": 0.8,
        "score_b": 0.9,
        **{f"pixels_{name}": pixels for name in ("reference", "a", "b")},
        **{f"map_{side}": pixels for side in "ab"},
    }
    write_table(folder / "disagreements.parquet", pd.DataFrame([pair]), "disagreements")
    sides = [
        ("held_out", text, "", 1.0),
        ("held_out", "undecided", "", 0.5),
        ("seen", "silent", "", np.nan),
        ("metric", "ml_clipsim", "fold_0", 0.0),
        ("metric", "ml_clipsim", "fold_1", 1.0),  # of another fold
        ("metric", "gmsd", "rgb", 0.0),
    ]
    frame = pd.DataFrame(sides, columns=["kind", "name", "variant", "side"]).assign(pair_id="p1", fold=0)
    write_table(folder / "sides.parquet", frame, "sides")


class Outline(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def made(run):
    path = run.folder / "report.html"
    page.make(SPEC, run.inputs, {"html": path})
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("hostile"), HOSTILE)
    page.make(SPEC | {"run": HOSTILE}, run.inputs, {"html": run.folder / "report.html"})
    return run.folder / "report.html"


def test_claims_come_first_and_all_else_is_there(made):
    text = Outline(made.read_text(encoding="utf-8")).text
    body = text[text.index("Preset embedded") :]
    order = ["✓ holds", "✕ fails", "○ not tested", "At a glance", "Title of table_2", "Title of figure_3"]
    order += ["disagree most", "Workflow", "Timings", "encoder: scene-clip", "Provenance"]
    places = [body.index(words) for words in order]
    assert places == sorted(places)
    assert "+.050 [+.030, +.070] n = 5,575" in body
    assert "synthetic scenes and small networks" in body
    assert "c" * 40 + " and uncommitted changes" in body
    assert "2 jobs" not in body
    assert "3 jobs, 2 s of work" in body  # 2.5 s, rounded to even


def test_who_sides_with_whom(made):
    text = Outline(made.read_text(encoding="utf-8")).text
    assert "held-out voters A plain neither undecided" in text
    assert "no answer silent" in text
    assert "metrics B ML-CLIPSim, GMSD" in text
    assert "fold_1" not in text


def test_what_is_not_there_is_said(run, tmp_path):
    inputs = run.inputs | {
        "documents": [path for path in run.inputs["documents"] if "figure_3" in path.name],
        "record": tmp_path / "record.json",
    }
    write_json(inputs["record"], {"config": CONFIG, "jobs": []})
    page.make(SPEC, inputs, {"html": tmp_path / "report.html"})
    text = Outline((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "decides no claim" in text
    assert "Snakemake has no record of the jobs" in text
    assert "At a glance" not in text


def test_the_same_results_give_the_same_bytes(run, made, tmp_path):
    page.make(SPEC, run.inputs, {"html": tmp_path / "again.html"})
    assert (tmp_path / "again.html").read_bytes() == made.read_bytes()


def test_nothing_comes_from_outside(made):
    text = made.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    for _, attributes in Outline(text).tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes


def test_text_from_results_stays_text(hostile, made):
    ours, theirs = (Outline(path.read_text(encoding="utf-8")) for path in (made, hostile))
    assert [tag for tag, _ in theirs.tags] == [tag for tag, _ in ours.tags]
    assert not any("onerror" in attributes for _, attributes in theirs.tags)
    assert theirs.text.count("<script>alert('x')</script>") >= 10
    assert "49" not in theirs.text.split("{{ 7 * 7 }}")[1][:20]


def test_a_caption_that_is_no_template_is_an_error(tmp_path):
    (tmp_path / "table_1.rst").write_text("{{ snakemake.")
    with pytest.raises(RuntimeError, match="cannot be read as a caption"):
        html.caption(tmp_path / "table_1.rst", "ci")


def test_a_scale_has_few_round_ticks():
    scale = html.Scale.over([0.305, None, 0.814, float("nan")])
    assert scale.ticks() == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert (scale.at(scale.low), scale.at(scale.high)) == ("0.00%", "100.00%")
    assert html.Scale.over([]).at(0.5) == "50.00%"
    assert html.Scale.over([0.7]).at(0.7) == "50.00%"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_has_nothing_to_complain_about(open_page, hostile, tmp_path, width, dark):
    opened = open_page(hostile, width=width, dark=dark)
    assert opened.run("document.querySelectorAll('main section').length") == 9
    assert opened.overflow == 0
    assert opened.run("[...document.images].every((i) => i.closest('dialog') || i.naturalWidth > 0)")
    paper = opened.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == dark
    opened.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert opened.complaints == []
    assert opened.requests == []


def test_a_click_sorts_a_table(open_page, made):
    opened = open_page(made)
    column = (
        "[...document.querySelectorAll('#table_2 tbody tr')].map((row) => row.lastElementChild.textContent)"
    )
    head = "document.querySelector('#table_2 th:last-child')"
    before = opened.run(column)
    assert before == [".900", writer.NOTHING, "10,100"]
    opened.run(f"{head}.querySelector('button').click()")
    assert opened.run(column) == ["10,100", ".900", writer.NOTHING]
    assert opened.run(f"{head}.ariaSort") == "descending"
    opened.run(f"{head}.querySelector('button').click()")
    assert opened.run(column) == [".900", "10,100", writer.NOTHING]
    opened.run(f"{head}.querySelector('button').click()")
    assert opened.run(column) == before
    assert opened.complaints == []


def test_a_figure_can_be_enlarged(open_page, made):
    opened = open_page(made)
    opened.run("document.querySelector('#figure_3 .enlarge').click()")
    assert opened.run("document.getElementById('zoom').open")
    opened.run("document.querySelector('[data-zoom=in]').click()")
    assert opened.run("document.querySelector('#zoom output').textContent") == "150 %"
    assert opened.run(
        "document.querySelector('.stage').scrollWidth / document.querySelector('.stage').clientWidth"
    )
    assert opened.run("document.querySelector('.stage img').naturalWidth") > 0
    opened.run("document.querySelector('#zoom .close').click()")
    assert not opened.run("document.getElementById('zoom').open")
    assert opened.complaints == []


def test_the_browser_would_have_complained(open_page, tmp_path):
    """What the tests above rely on: requests, errors and overflow are seen where they are."""
    path = tmp_path / "bad.html"
    path.write_text(
        "<meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<div style='width:2000px'>wide</div><img src='https://mlclipsim.invalid/x.png'>"
        "<script>console.error('oh'); missing()</script>"
    )
    opened = open_page(path)
    assert any("Uncaught" in text for text in opened.complaints)
    assert any("oh" in text for text in opened.complaints)
    assert opened.requests == ["https://mlclipsim.invalid/x.png"]
    assert opened.overflow > 700
