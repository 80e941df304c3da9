"""Draw the pixels of an image again from its reference: same family, strength and field, same bytes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import features

from mlclipsim.distortions import families
from mlclipsim.provenance import package_version
from mlclipsim.randomness import derive_seed

__all__ = ["Pen", "field_seed", "libraries", "pixel_sha256"]

_PACKAGES = ("mlclipsim", "numpy", "scipy", "pillow", "pyarrow")


def field_seed(seed: int, reference_id: str, family_name: str) -> int:
    """Seed of the field that ``mlclipsim.pcmp.build`` drew for a family on a reference."""
    return derive_seed(seed, "field", reference_id, family_name)


def pixel_sha256(image: np.ndarray) -> str:
    """SHA-256 of a uint8 ``(H, W, 3)`` image's bytes, row by row."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


class Pen:
    """Draws the distorted images of one reference, uint8 ``(H, W, 3)``; each field is drawn once.

    ``outside``: catalog entries of families that plug-ins bring. Whoever draws a data set of others has none:
    what they published does not say which code runs here.
    """

    def __init__(self, reference: np.ndarray, outside: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._reference, self._outside = reference, outside or {}
        self._fields: dict[tuple[str, int], Any] = {}

    def draw(self, family_name: str, seed: int, strength: float) -> np.ndarray:
        entry = families([family_name], self._outside)[family_name]
        if (family_name, seed) not in self._fields:
            self._fields[family_name, seed] = entry.draw(self._reference, np.random.default_rng(seed))
        return entry.apply(self._reference, strength, self._fields[family_name, seed])


def libraries() -> dict[str, str | None]:
    """Versions of what pixels and stored bytes depend on."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: package_version(name) for name in _PACKAGES},
        "libjpeg-turbo": features.version_feature("libjpeg_turbo"),
        "openjpeg": features.version_codec("jpg_2000"),
        "libwebp": features.version_module("webp"),
        "libavif": features.version_module("avif"),
    }
