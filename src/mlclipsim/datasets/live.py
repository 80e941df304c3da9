"""LIVE image quality assessment database, release 2: 779 images of 29 references, DMOS.

``refimgs/``, a folder per distortion with ``img<k>.bmp`` and ``info.txt`` (reference, image, parameter),
``refnames_all.mat`` and ``dmos.mat`` or ``dmos_realigned.mat``. The matrices run through the folders in the
order below; place k of a folder is its img<k>.bmp. Places where ``orgs`` is 1 are undistorted originals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets.opinions import Folder, Opinions, Rated, read_ratings
from mlclipsim.places import locate

__all__ = ["SIZES", "read"]

SIZES = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def read(entry: dict[str, Any]) -> Opinions:
    """DMOS: a larger one is worse. The realigned ones are taken where they are there."""
    folder = locate(entry["path"])
    realigned = folder / "dmos_realigned.mat"
    file, key = (realigned, "dmos_new") if realigned.is_file() else (folder / "dmos.mat", "dmos")
    dmos, original = _matrix(file, key).astype(float), _matrix(file, "orgs").astype(bool)
    names = [str(name) for name in _matrix(folder / "refnames_all.mat", "refnames_all")]
    references = Folder(folder / "refimgs")
    rated = []
    start = 0
    for distortion, size in SIZES.items():
        said = _info(folder / distortion / "info.txt")
        for place in range(1, size + 1):
            name, reference = f"img{place}.bmp", names[start + place - 1]
            if original[start + place - 1]:
                continue
            if said.get(name, reference) != reference:
                raise ArtifactError(
                    f"{folder / distortion}: refnames_all.mat says that {name} is of {reference}, "
                    f"info.txt of {said[name]}; fetch the data set again"
                )
            rated.append(
                Rated(
                    image_id=f"{distortion}/img{place:03d}",
                    reference_id=Path(reference).stem,
                    distortion=distortion,
                    reference=references[reference],
                    distorted=folder / distortion / name,
                    rating=float(dmos[start + place - 1]),
                )
            )
        start += size
    return Opinions(rated, higher_is_better=False)


def _matrix(path: Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise ArtifactError(f"{path}: expected {key}, found no file; fetch the data set again")
    try:
        values = np.atleast_1d(loadmat(path, squeeze_me=True)[key])
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise ArtifactError(f"{path}: expected a matrix {key} ({error}); fetch the data set again") from error
    if len(values) != sum(SIZES.values()):
        raise ArtifactError(
            f"{path}: expected {sum(SIZES.values())} values of {key}, got {len(values)}; is it release 2?"
        )
    return values


def _info(path: Path) -> dict[str, str]:
    """image -> reference, as the folder itself says; empty where it does not."""
    if not path.is_file():
        return {}
    table = read_ratings(path, ["reference", "image"], [], sep=r"\s+", names=["reference", "image", "value"])
    return dict(zip(table["image"], table["reference"], strict=True))
