"""Styles of the figures: widths and letters of their catalog, and no word off the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from mlclipsim.report import style
from mlclipsim.report.figures import figure_3, figure_6
from mlclipsim.spec import project_root, read_yaml

STYLES = read_yaml(project_root() / "config" / "catalog" / "styles.yaml")
SPEC = {"preset": "embedded", "run": "default"}


def draw(folder: Path, chosen: str, columns: int) -> dict[str, Path]:
    outputs = {kind: folder / f"{chosen}-{columns}.{kind}" for kind in ("png", "svg")}
    with style.page(SPEC | {"style": STYLES[chosen]}, outputs, height_mm=40, columns=columns) as figure:
        figure.add_subplot().plot([1, 2, 3])
    return outputs


@pytest.mark.parametrize("chosen", STYLES)
@pytest.mark.parametrize(("columns", "key"), [(1, "column_mm"), (2, "width_mm")])
def test_a_page_is_as_wide_and_written_in_the_letters_that_its_style_says(tmp_path, chosen, columns, key):
    entry = STYLES[chosen]
    outputs = draw(tmp_path, chosen, columns)
    with Image.open(outputs["png"]) as image:
        size_mm = [pixels / entry["dpi"] * 25.4 for pixels in image.size]
    assert size_mm == pytest.approx([entry[key], 40], abs=0.3)
    assert (
        f"{entry['font'].replace(' ', '')}-" in outputs["svg"].read_text()
    )  # the names of its letters' shapes


class Kept(Figure):
    """A figure that can be looked at after its page is written."""

    made: Figure

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        Kept.made = self


@pytest.mark.parametrize("chosen", STYLES)
@pytest.mark.parametrize("number", [3, 6])
def test_no_word_leaves_the_page(tmp_path, monkeypatch, chosen, number, invented_weights, invented_ablation):
    monkeypatch.setattr(style, "Figure", Kept)
    make = {3: figure_3.make, 6: figure_6.make}[number]
    inputs = {"weights": [invented_weights], "calibration": invented_ablation["calibration"]}
    outputs = {"csv": tmp_path / "figure.csv", "png": tmp_path / "figure.png"}
    make(SPEC | {"style": STYLES[chosen] | {"dpi": 100}}, inputs, outputs)
    drawn, (width, height) = Kept.made.get_tightbbox(), Kept.made.get_size_inches()
    assert min(drawn.min) > -0.01
    assert drawn.x1 < width + 0.01
    assert drawn.y1 < height + 0.01


def test_a_footer_wider_than_a_column_is_broken_into_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "Figure", Kept)
    narrow = STYLES["plain"] | {"column_mm": 50.0}
    with style.page(SPEC | {"style": narrow}, {"png": tmp_path / "page.png"}, height_mm=40, columns=1):
        pass
    (written,) = Kept.made.texts
    assert written.get_window_extent().x0 >= 0
