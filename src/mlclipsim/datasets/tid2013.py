"""TID2013: 3,000 images of 25 references, 24 types of distortion at 5 levels, MOS.

``reference_images/I01.BMP``, ``distorted_images/i01_01_1.bmp`` (reference, type, level) and
``mos_with_names.txt`` (MOS, name). Cases of letters differ between table and files.
"""

from __future__ import annotations

from typing import Any

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets.opinions import Folder, Opinions, Rated, read_ratings
from mlclipsim.places import locate

__all__ = ["TYPES", "read"]

# Of Ponomarenko et al., Signal Processing: Image Communication 30 (2015), table 1, from type 1.
TYPES = (
    "gaussian_noise",
    "colour_noise",
    "correlated_noise",
    "masked_noise",
    "high_frequency_noise",
    "impulse_noise",
    "quantisation_noise",
    "gaussian_blur",
    "denoising",
    "jpeg",
    "jpeg2000",
    "jpeg_errors",
    "jpeg2000_errors",
    "pattern_noise",
    "local_blocks",
    "mean_shift",
    "contrast",
    "saturation",
    "multiplicative_noise",
    "comfort_noise",
    "lossy_compression_of_noise",
    "colour_dither",
    "chromatic_aberration",
    "sparse_sampling",
)


def read(entry: dict[str, Any]) -> Opinions:
    """MOS in [0, 9]: a larger one is better."""
    folder = locate(entry["path"])
    references, distorted = Folder(folder / "reference_images"), Folder(folder / "distorted_images")
    path = folder / "mos_with_names.txt"
    table = read_ratings(path, ["mos", "name"], ["mos"], sep=r"\s+", names=["mos", "name"])
    rated = []
    for mos, name in table.itertuples(index=False):
        stem = name.lower().removesuffix(".bmp")
        try:
            reference, kind, _level = stem.split("_")
            distortion = TYPES[int(kind) - 1]
        except (ValueError, IndexError):
            raise ArtifactError(
                f"{path}: expected names like i01_01_1.bmp, got {name!r}; fetch it again"
            ) from None
        rated.append(
            Rated(
                image_id=stem,
                reference_id=reference,
                distortion=distortion,
                reference=references[f"{reference}.bmp"],
                distorted=distorted[name],
                rating=mos,
            )
        )
    return Opinions(rated)
