"""CSIQ, categorical subjective image quality database: 866 images of 30 references, DMOS.

``src_imgs/<image>.png``, ``dst_imgs/<type>/<image>.<TYPE>.<level>.png`` and the sheet ``all_by_image`` of
``csiq.DMOS.xlsx``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pandas as pd

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets.opinions import Folder, Opinions, Rated
from mlclipsim.places import locate

__all__ = ["TYPES", "read"]

# What the sheet calls a distortion -> how its files are called.
TYPES = {
    "noise": "AWGN",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
    "fnoise": "fnoise",
    "blur": "BLUR",
    "contrast": "contrast",
}
_COLUMNS = ["image", "dst_type", "dst_lev", "dmos"]


def read(entry: dict[str, Any]) -> Opinions:
    """DMOS in [0, 1]: a larger one is worse."""
    folder = locate(entry["path"])
    references, distorted = Folder(folder / "src_imgs"), Folder(folder / "dst_imgs")
    rated = []
    for row in _ratings(folder).itertuples(index=False):
        if row.dst_type not in TYPES:
            raise ArtifactError(
                f"{folder}: expected a dst_type of {', '.join(TYPES)}, got {row.dst_type!r}; fetch it again"
            )
        image, level = (
            str(row.image).removesuffix(".0"),
            int(float(row.dst_lev)),
        )  # 1600 is a name, not a number
        name = f"{image}.{TYPES[row.dst_type]}.{level}"
        rated.append(
            Rated(
                image_id=name,
                reference_id=image,
                distortion=row.dst_type,
                reference=references[f"{image}.png"],
                distorted=distorted[f"{name}.png"],
                rating=row.dmos,
            )
        )
    return Opinions(rated, higher_is_better=False)


def _ratings(folder: Path) -> pd.DataFrame:
    book = folder / "csiq.DMOS.xlsx"
    try:
        sheet = pd.read_excel(book, sheet_name="all_by_image", header=None, dtype=str)
    except (OSError, ValueError, BadZipFile) as error:
        raise ArtifactError(
            f"{book}: expected a workbook with the sheet all_by_image, found {error}; fetch it again"
        ) from error
    # A title stands above the heads, and empty columns beside them.
    heads = sheet.index[sheet.eq("image").any(axis=1)]
    missing = set(_COLUMNS) - set(sheet.loc[heads[0]] if len(heads) else ())
    if missing:
        raise ArtifactError(
            f"{book}: expected the columns {', '.join(_COLUMNS)} in all_by_image, found no "
            f"{', '.join(sorted(missing))}; fetch it again"
        )
    table = sheet.loc[heads[0] + 1 :].set_axis(sheet.loc[heads[0]], axis=1)[_COLUMNS].dropna(how="all")
    return table.assign(dmos=table["dmos"].astype(float))
