"""A similarity map as a picture: the distorted image, and beside it where it differs from its reference.

Colour is ``1 - similarity`` of a place on one logarithmic scale, 0.001 (black) to 1 (light), the same in
every picture: so pictures compare, and JPEG at quality 90 and heavy noise are both legible. Grey is what the
encoder did not see, since the size policy cut it away. Pillow and numpy only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlclipsim.atomic import atomic
from mlclipsim.images import ImageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FLOOR", "colours", "picture", "write"]

FLOOR = 1e-3  # of 1 - similarity, the dark end of the scale; the light end is 1
UNSEEN = (128, 128, 128)
# Every 10 % of matplotlib's magma (van der Walt and Smith, CC0); between them linear, within 4/255 of it.
_MAGMA = np.array(
    [
        [0x00, 0x00, 0x04],
        [0x15, 0x0E, 0x38],
        [0x3B, 0x0F, 0x70],
        [0x65, 0x1A, 0x80],
        [0x8C, 0x29, 0x81],
        [0xB7, 0x37, 0x79],
        [0xDE, 0x49, 0x68],
        [0xF7, 0x70, 0x5C],
        [0xFE, 0x9F, 0x6D],
        [0xFE, 0xCF, 0x92],
        [0xFC, 0xFD, 0xBF],
    ]
)
_PANEL = 256  # pixels that a panel is wide at least, so that the legend is legible


def colours(similarity: np.ndarray) -> np.ndarray:
    """Similarities of any shape to uint8 RGB, ``(..., 3)``; NaN is grey."""
    difference = np.clip(1 - np.asarray(similarity, np.float64), FLOOR, 1)
    position = 1 - np.log(difference) / np.log(FLOOR)  # 0 at FLOOR, 1 at 1
    stops = np.linspace(0, 1, len(_MAGMA))
    channels = [np.interp(np.nan_to_num(position), stops, _MAGMA[:, c]) for c in range(3)]
    rgb = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    rgb[np.isnan(position)] = UNSEEN
    return rgb


def picture(distorted: np.ndarray, similarity: Tensor, score: float) -> np.ndarray:
    """The picture that :func:`write` writes, uint8 ``(rows, columns, 3)``."""
    zoom = -(-_PANEL // distorted.shape[1])  # small images are enlarged, pixels as blocks
    panels = np.hstack([distorted, colours(similarity.numpy())]).repeat(zoom, axis=0).repeat(zoom, axis=1)
    lines = [f"score {score:.4f}"] + ["grey: not seen"] * bool(similarity.isnan().any())
    return np.vstack([panels, _legend(panels.shape[1], lines)])


def write(path: str | os.PathLike[str], distorted: np.ndarray, similarity: Tensor, score: float) -> None:
    """Write the distorted image and its map side by side as PNG, a legend below, whole or not at all.

    Args:
        distorted: uint8 ``(H, W, 3)``.
        similarity: ``(H, W)``; NaN where the encoder saw nothing.
        score: of the whole pair, for the legend.

    Raises:
        ImageError: the file cannot be written there.
    """
    try:
        with atomic(Path(path)) as temporary:
            Image.fromarray(picture(distorted, similarity, score)).save(temporary, "PNG")
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None


def _legend(width: int, lines: list[str]) -> np.ndarray:
    """A strip of ``width`` pixels: some text, and the colours with the differences that they stand for."""
    size = max(13, width // 70)
    height, margin = 4 * size, size
    strip = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(size)
    for index, line in enumerate(lines):
        draw.text((margin, (1 + 1.4 * index) * size), line, "black", font, anchor="lm")

    bar = range(width // 2 + margin, width - 2 * margin)
    differences = np.geomspace(FLOOR, 1, len(bar))
    strip.paste(Image.fromarray(colours(1 - differences)[None].repeat(size, axis=0)), (bar[0], size // 2))
    for tick in (0.001, 0.01, 0.1, 1):
        x = bar[0] + (len(bar) - 1) * (1 - np.log(tick) / np.log(FLOOR))
        draw.text((x, 1.7 * size), f"{tick:g}", "black", font, anchor="mt")
    draw.text(((bar[0] + bar[-1]) / 2, 2.8 * size), "1 - similarity", "black", font, anchor="mt")
    return np.asarray(strip)
