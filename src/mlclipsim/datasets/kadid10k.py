"""KADID-10k: 10,125 images of 81 references, 25 types of distortion at 5 levels.

``images/I01.png``, ``images/I01_01_01.png`` (reference, type, level) and ``dmos.csv`` (dist_img, ref_img,
dmos, var).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets.opinions import Folder, Opinions, Rated, read_ratings
from mlclipsim.places import locate

__all__ = ["TYPES", "read"]

# Of Lin, Hosu and Saupe, QoMEX 2019, from type 1.
TYPES = (
    "gaussian_blur",
    "lens_blur",
    "motion_blur",
    "colour_diffusion",
    "colour_shift",
    "colour_quantisation",
    "saturation_hsv",
    "saturation_lab",
    "jpeg2000",
    "jpeg",
    "gaussian_noise",
    "colour_noise",
    "impulse_noise",
    "multiplicative_noise",
    "denoising",
    "brighten",
    "darken",
    "mean_shift",
    "jitter",
    "patches",
    "pixelation",
    "quantisation",
    "colour_blocks",
    "sharpening",
    "contrast",
)


def read(entry: dict[str, Any]) -> Opinions:
    """Ratings from 1 to 5: a larger one is better, although the column is called dmos (5: imperceptible)."""
    folder = locate(entry["path"])
    images = Folder(folder / "images")
    path = folder / "dmos.csv"
    table = read_ratings(path, ["dist_img", "ref_img", "dmos"], ["dmos"])
    rated = []
    for name, reference, rating in table.itertuples(index=False):
        try:
            distortion = TYPES[int(name.split("_")[1]) - 1]
        except (ValueError, IndexError):
            raise ArtifactError(
                f"{path}: expected names like I01_01_01.png, got {name!r}; fetch it again"
            ) from None
        rated.append(
            Rated(
                image_id=Path(name).stem,
                reference_id=Path(reference).stem,
                distortion=distortion,
                reference=images[reference],
                distorted=images[name],
                rating=rating,
            )
        )
    return Opinions(rated)
