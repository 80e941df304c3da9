"""The page on distortions: the table of families in docs/distortions.md, and one picture of them all.

``python -m mlclipsim.report.families --picture assets/data/kodak/kodim14.png`` makes both anew.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlclipsim.artifacts import atomic
from mlclipsim.distortions import FAMILIES
from mlclipsim.distortions.listing import as_markdown
from mlclipsim.images import read_image
from mlclipsim.pcmp.match import Curve, Match, match_block
from mlclipsim.randomness import generator
from mlclipsim.report.style import label

__all__ = ["main", "matched", "sheet", "with_table"]

PAGE = Path("docs/distortions.md")
_TABLE = re.compile(r"(?<=<!-- families -->\n).*?(?=<!-- end of families -->)", re.DOTALL)
_COLUMNS, _LARGE = 5, 2  # tiles in a row; the reference is this many tiles wide
_GAP, _LINE = 8, 20  # px


def with_table(page: str) -> str:
    """``page`` with the table between its two marks as the registry has it now."""
    if not _TABLE.search(page):
        raise ValueError(f"expected the marks of the table in {PAGE}, found none; put them back")
    return _TABLE.sub(lambda _: f"\n{as_markdown()}\n\n", page)


def matched(reference: np.ndarray, psnr_db: float, seed: int) -> dict[str, Match]:
    """Every family at one PSNR, as one block.

    Raises:
        ValueError: some family does not attain it on this picture.
    """
    curves = {
        name: Curve(reference, entry, entry.draw(reference, generator(seed, "distort", name)))
        for name, entry in FAMILIES.items()
    }
    found = match_block(curves, psnr_db, dict.fromkeys(curves, 1))
    matches = {name: match for name, match in found.items() if isinstance(match, Match)}
    if missing := [name for name in found if name not in matches]:
        raise ValueError(
            f"expected every family at {psnr_db:g} dB, but {', '.join(missing)} do not attain it; "
            "take another level or a picture with more detail"
        )
    return matches


def sheet(reference: np.ndarray, matches: dict[str, Match]) -> Image.Image:
    """The reference, enlarged, and its distortions pixel by pixel, each with its name and parameter."""
    side = len(reference)
    across, down = side + _GAP, side + _LINE + _GAP
    rows = -(-(len(matches) + _LARGE**2) // _COLUMNS)
    page = Image.new("RGB", (_GAP + _COLUMNS * across, _GAP + rows * down), "white")
    draw = ImageDraw.Draw(page)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    plain, bold = (ImageFont.truetype(fonts / f"DejaVuSans{kind}.ttf", 12) for kind in ("", "-Bold"))

    def place(column: int, row: int, image: Image.Image, *lines: tuple[str, str]) -> None:
        left, top = _GAP + column * across, _GAP + row * down
        page.paste(image, (left, top))
        for number, (name, detail) in enumerate(lines):
            base = top + image.height + 4 + number * _LINE
            draw.text((left, base), name, font=bold, fill="#222222")
            draw.text((left + image.width, base), detail, font=plain, fill="#777777", anchor="ra")

    large = Image.fromarray(reference).resize((_LARGE * across - _GAP,) * 2, Image.Resampling.LANCZOS)
    levels = [match.psnr_db for match in matches.values()]
    place(
        0, 0, large, ("Reference", "enlarged"), ("", f"all others {min(levels):.2f} to {max(levels):.2f} dB")
    )
    cells = ((column, row) for row in range(rows) for column in range(_COLUMNS))
    free = [(column, row) for column, row in cells if column >= _LARGE or row >= _LARGE]
    for (column, row), (name, match) in zip(free, matches.items(), strict=False):
        entry = FAMILIES[name]
        unit = entry.unit if len(entry.unit) <= 5 else ""  # the table has the others
        title = label(name)
        parameter = f"{entry.parameter(match.strength):.3g} {unit}"
        place(column, row, Image.fromarray(match.image), (title[0].upper() + title[1:], parameter.rstrip()))
    return page


def main(argv: Sequence[str]) -> int:
    """Write the picture beside the page, and the table into it."""
    parser = argparse.ArgumentParser(prog="python -m mlclipsim.report.families", description=__doc__)
    parser.add_argument("--picture", type=Path, required=True, help="a photograph that is free to print")
    parser.add_argument("--corner", type=int, nargs=2, default=(40, 30), metavar=("X", "Y"))
    parser.add_argument("--crop", type=int, default=440, help="side of the part that is shown, px")
    parser.add_argument("--size", type=int, default=192, help="side of the reference made of it, px")
    parser.add_argument("--psnr", type=float, default=24.0, help="dB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    (x, y), size = arguments.corner, arguments.size
    part = Image.fromarray(read_image(arguments.picture)).crop((x, y, x + arguments.crop, y + arguments.crop))
    reference = np.array(part.resize((size, size), Image.Resampling.BICUBIC))
    picture = sheet(reference, matched(reference, arguments.psnr, arguments.seed))
    with atomic(arguments.page.with_suffix(".webp")) as temporary:
        picture.save(temporary, "WEBP", quality=85, method=6)
    page = with_table(arguments.page.read_text(encoding="utf-8"))
    with atomic(arguments.page) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
