"""Distortion families: each has one strength in [0, 1], under which PSNR falls.

``FAMILIES`` maps a name to its :class:`Family`; a new one is an entry in one of the files beside this one, or
comes with a plug-in.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from mlclipsim import plugins
from mlclipsim.distortions import blur, codecs, noise, palette, photometric, replacement, sampling
from mlclipsim.distortions.family import Family

__all__ = ["FAMILIES", "Family", "families", "family"]

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


def families(names: Sequence[str], outside: Mapping[str, Mapping[str, Any]]) -> dict[str, Family]:
    """Families by name; ``outside`` has the catalog entries of those that plug-ins bring.

    Raises:
        ValueError: there is none of a name, or a plug-in's is of another name.
        TypeError: what a plug-in names is no :class:`Family`.
    """
    return {name: _of_plugin(name, outside[name]) if name in outside else family(name) for name in names}


def _of_plugin(name: str, entry: Mapping[str, Any]) -> Family:
    found = plugins.load(entry["family"])
    if not isinstance(found, Family):
        raise TypeError(
            f"{entry['family']}: expected a mlclipsim.distortions.Family, got {type(found).__name__}; "
            "name one"
        )
    if found.name != name:
        raise ValueError(
            f"{entry['family']}: expected the name {name!r} that its catalog gives, got {found.name!r}; "
            "call both the same"
        )
    return found
