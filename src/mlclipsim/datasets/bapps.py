"""BAPPS, Berkeley-Adobe perceptual patch similarity, validation: 36,344 choices between two 64-px patches.

``2afc/val/<set>/{ref,p0,p1}/000000.png`` and ``judge/000000.npy``: the share of people to whom p1 looked
closer to ref.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets.opinions import Compared, Opinions, Rated
from mlclipsim.places import locate

__all__ = ["SETS", "read"]

SETS = ("traditional", "cnn", "superres", "deblur", "color", "frameinterp")


def read(entry: dict[str, Any]) -> Opinions:
    """No ratings, but pairs; image A is p0. Sets that are not there are missing files, not fewer pairs."""
    folder = locate(entry["path"]) / "2afc" / "val"
    images, pairs = [], []
    for name in SETS:
        judged = sorted((folder / name / "judge").glob("*.npy"))
        if not judged:
            raise ArtifactError(
                f"{folder / name / 'judge'}: expected 000000.npy ..., found none; fetch it again"
            )
        for path in judged:
            reference_id = f"{name}/{path.stem}"
            of_pair = {side: f"{reference_id}/{side}" for side in ("p0", "p1")}
            images += [
                Rated(
                    image_id=image_id,
                    reference_id=reference_id,
                    distortion=name,
                    reference=folder / name / "ref" / f"{path.stem}.png",
                    distorted=folder / name / side / f"{path.stem}.png",
                )
                for side, image_id in of_pair.items()
            ]
            pairs.append(
                Compared(reference_id, reference_id, name, of_pair["p0"], of_pair["p1"], 1 - _share(path))
            )
    return Opinions(images, pairs=pairs)


def _share(path: Path) -> float:
    try:
        value = float(np.load(path, allow_pickle=False).item())
    except (ValueError, OSError, EOFError) as error:
        raise ArtifactError(f"{path}: expected one number ({error}); fetch the data set again") from error
    if not 0 <= value <= 1:
        raise ArtifactError(f"{path}: expected a share in [0, 1], got {value:g}; fetch the data set again")
    return value
