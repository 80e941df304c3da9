"""PIPAL, the part with public labels (training): 23,200 images of 200 references, Elo ratings.

``Train_Ref/A0001.bmp``, ``Train_Distort/A0001_00_00.bmp`` (reference, class, number; also in folders below)
and a file ``Train_Label/A0001.txt`` per reference with lines ``name,rating``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets.opinions import Folder, Opinions, Rated, read_ratings
from mlclipsim.places import locate

__all__ = ["read"]


def read(entry: dict[str, Any]) -> Opinions:
    """Elo ratings around 1,400: a larger one is better. The type is the class in the name, ``class_00``."""
    folder = locate(entry["path"])
    references, distorted = Folder(folder / "Train_Ref"), Folder(folder / "Train_Distort")
    labels = sorted((folder / "Train_Label").glob("*.txt"))
    if not labels:
        raise ArtifactError(f"{folder / 'Train_Label'}: expected A0001.txt ..., found none; fetch it again")
    rated = []
    for path in labels:
        table = read_ratings(path, ["name", "elo"], ["elo"], names=["name", "elo"])
        for name, elo in table.itertuples(index=False):
            parts = Path(name).stem.split("_")
            if len(parts) != 3 or parts[0] != path.stem:
                raise ArtifactError(f"{path}: expected names like {path.stem}_00_00.bmp, got {name!r}")
            rated.append(
                Rated(
                    image_id=Path(name).stem,
                    reference_id=parts[0],
                    distortion=f"class_{parts[1]}",
                    reference=references[f"{parts[0]}.bmp"],
                    distorted=distorted[name],
                    rating=elo,
                )
            )
    return Opinions(rated)
