"""Where the files lie that a catalog names."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["locate"]


def locate(place: str) -> Path:
    """The path that a catalog means.

    ``assets:x`` lies in the assets folder ($MLCLIPSIM_ASSETS, else ``assets/``), ``package:x`` in this
    package; anything else is a path.
    """
    kind, colon, rest = place.partition(":")
    if colon and kind == "assets":
        return Path(os.environ.get("MLCLIPSIM_ASSETS") or "assets") / rest
    if colon and kind == "package":
        return Path(__file__).parent / rest
    return Path(place)
