"""Four distortions of TID2013 rendered anew from the Kodak photographs: 480 images of 24 references, MOS.

TID2013's references I01 to I24 are 512 x 384 crops of kodim01 to kodim24, and four of its distortions are
deterministic enough to be drawn again from what ``labels.csv`` says: crop, operator, parameter. Every image
is checked when it is drawn: its PSNR must be that published for the genuine file.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import correlate1d

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets.opinions import Opinions, Rated, read_ratings
from mlclipsim.images import read_image
from mlclipsim.pcmp.match import psnr_db
from mlclipsim.places import locate

__all__ = ["TOLERANCE_DB", "jpeg_tables", "read", "render"]

TOLERANCE_DB = 0.001  # published values are rounded to single precision, which moves them by up to 0.0007 dB
_TEXT = ["tid_name", "kodak", "distortion"]
_NUMBERS = ["crop_y", "crop_x", "width", "height", "param", "mos", "psnr_published"]
_NAMES = {"gblur": "gaussian_blur"}  # as the readers of the other sets call it
_TAPS = 11

# ITU-T T.81, Annex K, by rows.
_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMA = np.full((8, 8), 99)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def read(entry: dict[str, Any]) -> Opinions:
    """MOS in [0, 9]: a larger one is better. ``entry["photographs"]`` is the folder of the Kodak images."""
    path, photographs = locate(entry["path"]) / "labels.csv", locate(entry["photographs"])
    table = read_ratings(path, [*_TEXT, *_NUMBERS], _NUMBERS)
    unknown = sorted(set(table["distortion"]) - set(_OPERATORS))
    if unknown:
        raise ArtifactError(
            f"{path}: expected distortions {sorted(_OPERATORS)}, got {unknown}; fetch it again"
        )
    rated = []
    for row in table.to_dict("records"):
        name = row["tid_name"].removesuffix(".bmp")
        box = tuple(int(row[key]) for key in ("crop_x", "crop_y", "width", "height"))
        reference = partial(_crop, photographs / row["kodak"], box)
        rated.append(
            Rated(
                image_id=name,
                reference_id=name.split("_")[0],
                distortion=_NAMES.get(row["distortion"], row["distortion"]),
                reference=reference,
                distorted=partial(
                    _checked, reference, row["distortion"], row["param"], row["psnr_published"], name
                ),
                rating=row["mos"],
            )
        )
    return Opinions(rated)


@lru_cache(maxsize=2)  # rows come by reference
def _photograph(path: Path) -> np.ndarray:
    return read_image(path)


def _crop(path: Path, box: tuple[int, ...]) -> np.ndarray:
    x, y, width, height = box
    return np.ascontiguousarray(_photograph(path)[y : y + height, x : x + width])


def _checked(
    reference: Callable[[], np.ndarray], distortion: str, parameter: float, published_db: float, name: str
) -> np.ndarray:
    original = reference()
    image = render(original, distortion, parameter)
    found = psnr_db(original, image)
    if abs(found - published_db) > TOLERANCE_DB:
        raise ArtifactError(
            f"{name}: drawn at {found:.4f} dB, expected the published {published_db:.4f} dB within "
            f"{TOLERANCE_DB} dB; is it another photograph, or another JPEG library?"
        )
    return image


def render(reference: np.ndarray, distortion: str, parameter: float) -> np.ndarray:
    """Draw a distortion of TID2013.

    Args:
        reference: uint8 ``(H, W, 3)``.
        distortion: ``gblur`` (parameter: sigma in px), ``jpeg`` (quality), ``mean_shift`` (levels added) or
            ``contrast`` (gain about the mean over all samples).

    Returns:
        uint8 ``(H, W, 3)``.
    """
    return _OPERATORS[distortion](reference, parameter)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _gblur(image: np.ndarray, sigma: float) -> np.ndarray:
    """11 taps whatever sigma, black beyond the border, rounded once after both passes."""
    place = np.arange(_TAPS) - _TAPS // 2
    taps = np.exp(-(place**2) / (2 * sigma**2))
    taps /= taps.sum()
    values = image.astype(np.float64)
    for axis in (0, 1):
        values = correlate1d(values, taps, axis=axis, mode="constant")
    return _rounded(values)


def jpeg_tables(quality: int) -> list[list[int]]:
    """Annex K's tables scaled by the IJG's rule, entries above 255 kept.

    Pillow's own ``quality`` cuts them off at 255, as baseline JPEG must: up to 0.23 dB off at qualities 8
    and 4.
    """
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return [np.clip((table * scale + 50) // 100, 1, 32767).ravel().tolist() for table in (_LUMA, _CHROMA)]


def _jpeg(image: np.ndarray, quality: float) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", qtables=jpeg_tables(int(quality)), subsampling="4:2:0")
    with Image.open(stream) as decoded:
        return np.asarray(decoded.convert("RGB"))


def _mean_shift(image: np.ndarray, levels: float) -> np.ndarray:
    return _rounded(image.astype(np.float64) + levels)


def _contrast(image: np.ndarray, gain: float) -> np.ndarray:
    mean = image.mean()
    return _rounded(mean + gain * (image - mean))


_OPERATORS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "gblur": _gblur,
    "jpeg": _jpeg,
    "mean_shift": _mean_shift,
    "contrast": _contrast,
}
