"""Distortion families: each has one strength in [0, 1], under which PSNR falls.

``FAMILIES`` maps a name to its :class:`Family`; a new one is an entry in one of the files beside this one.
"""

from __future__ import annotations

import difflib

from mlclipsim.distortions import blur, codecs, noise, palette, photometric, replacement, sampling
from mlclipsim.distortions.family import Family

__all__ = ["FAMILIES", "Family", "family"]

FAMILIES: dict[str, Family] = {
    entry.name: entry
    for module in (noise, replacement, blur, sampling, codecs, palette, photometric)
    for entry in module.FAMILIES
}


def family(name: str) -> Family:
    """The family called ``name``.

    Raises:
        ValueError: there is none; says which name was probably meant.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        close = difflib.get_close_matches(name, FAMILIES, n=1)
        mend = f"did you mean {close[0]!r}?" if close else "take one of those"
        raise ValueError(
            f"distortion {name!r} is unknown, expected one of {', '.join(FAMILIES)}; {mend}"
        ) from None
