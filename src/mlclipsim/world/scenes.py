"""Scenes: textured, coloured shapes over crops of a photograph, with classes, boxes, masks and a caption.

The photographs are those that scikit-image, scikit-learn and matplotlib carry in their wheels, so that a
scene can be rendered anywhere, offline. Each photograph plays exactly one role, and its scenes inherit it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

__all__ = [
    "COLOURS",
    "PHOTOGRAPHS",
    "SHAPES",
    "TEXTURES",
    "Scene",
    "SceneObject",
    "load_photograph",
    "render",
]

SIZE = 64
_LEAST_CONTRAST = 110.0  # Euclidean distance in RGB between an object's colour and what lies behind it
_OVERSAMPLING = 4  # masks are drawn this much larger and averaged down: antialiased edges

# name -> (package that carries it, file inside the package, role). Roles are those of the partition; nothing
# that a network was trained on lies behind a scene on which networks or metrics are compared.
_SOURCES: dict[str, tuple[str, str, str]] = {
    "astronaut": ("skimage", "data/astronaut.png", "zoo_train"),
    "coffee": ("skimage", "data/coffee.png", "zoo_train"),
    "motorcycle": ("skimage", "data/motorcycle_left.png", "zoo_train"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg", "zoo_train"),
    "camera": ("skimage", "data/camera.png", "zoo_train"),
    "coins": ("skimage", "data/coins.png", "zoo_train"),
    "grass": ("skimage", "data/grass.png", "zoo_train"),
    "brick": ("skimage", "data/brick.png", "zoo_train"),
    "clock": ("skimage", "data/clock_motion.png", "zoo_train"),
    "page": ("skimage", "data/page.png", "zoo_train"),
    "motes": ("skimage", "data/microaneurysms.png", "zoo_train"),
    "cells": ("skimage", "data/cell.png", "zoo_train"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "zoo_val"),
    "china": ("sklearn", "datasets/images/china.jpg", "pcmp_train"),
    "ihc": ("skimage", "data/ihc.png", "pcmp_train"),
    "rocket": ("skimage", "data/rocket.jpg", "pcmp_val"),
    "chelsea": ("skimage", "data/chelsea.png", "pcmp_test"),
    "retina": ("skimage", "data/retina.jpg", "pcmp_test"),
    "gravel": ("skimage", "data/gravel.png", "codec_train"),
    "moon": ("skimage", "data/moon.png", "codec_val"),
    "flower": ("sklearn", "datasets/images/flower.jpg", "rate_task_test"),
}
PHOTOGRAPHS: dict[str, str] = {name: role for name, (_, _, role) in _SOURCES.items()}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 30, 35),
    "orange": (245, 135, 20),
    "yellow": (240, 220, 40),
    "green": (40, 155, 50),
    "cyan": (50, 205, 215),
    "blue": (35, 65, 205),
    "purple": (135, 45, 175),
    "white": (238, 238, 238),
}
TEXTURES: tuple[str, ...] = ("plain", "striped", "checked", "dotted")


def _circle(radius: float = 1.0, centre: tuple[float, float] = (0.0, 0.0), n: int = 40) -> np.ndarray:
    angle = np.arange(n) * (2 * math.pi / n)
    return np.stack([radius * np.cos(angle) + centre[0], radius * np.sin(angle) + centre[1]], axis=1)


def _star() -> np.ndarray:
    angle = np.arange(10) * (math.pi / 5) - math.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _heart() -> np.ndarray:
    t = np.arange(40) * (2 * math.pi / 40)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1) / 16.5


# Outlines in [-1, 1]^2, y downwards: a list of (polygon, filled). A polygon that is not filled is cut out.
SHAPES: dict[str, list[tuple[np.ndarray, bool]]] = {
    "circle": [(_circle(0.9), True)],
    "bar": [(np.array([[-1, -0.33], [1, -0.33], [1, 0.33], [-1, 0.33]]), True)],
    "triangle": [(np.array([[0, -0.95], [0.95, 0.75], [-0.95, 0.75]]), True)],
    "diamond": [(np.array([[0, -1], [0.62, 0], [0, 1], [-0.62, 0]]), True)],
    "star": [(_star(), True)],
    "cross": [
        (np.array([[-0.28, -0.95], [0.28, -0.95], [0.28, 0.95], [-0.28, 0.95]]), True),
        (np.array([[-0.95, -0.28], [0.95, -0.28], [0.95, 0.28], [-0.95, 0.28]]), True),
    ],
    "heart": [(_heart(), True)],
    "crescent": [(_circle(0.95), True), (_circle(0.8, (0.5, 0.0)), False)],
    "ring": [(_circle(0.95), True), (_circle(0.5), False)],
    "arrow": [
        (
            np.array([[1, 0], [0.1, -0.85], [0.1, -0.34], [-1, -0.34], [-1, 0.34], [0.1, 0.34], [0.1, 0.85]]),
            True,
        )
    ],
}
_SHAPE_NAMES, _COLOUR_NAMES = tuple(SHAPES), tuple(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), float)


@dataclass(frozen=True)
class SceneObject:
    """One drawn shape. ``box`` (x0, y0, x1, y1) px holds what can be seen of it; ``mask`` is (H, W) bool."""

    shape: str
    colour: str
    texture: str
    box: tuple[int, int, int, int]
    mask: np.ndarray

    @property
    def label(self) -> int:
        return _SHAPE_NAMES.index(self.shape)

    @property
    def words(self) -> str:
        return f"{self.colour} {self.texture} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """A rendered scene: ``image`` (H, W, 3) uint8, objects from the largest to the smallest."""

    image: np.ndarray
    objects: tuple[SceneObject, ...]

    @property
    def label(self) -> int:
        """Class: the shape of the largest object, an index into :data:`SHAPES`."""
        return self.objects[0].label

    @property
    def caption(self) -> str:
        """All that can be seen, largest first: ``a large red striped star and a small blue plain ring``."""
        return " and ".join(
            f"a {'large' if i == 0 else 'small'} {o.words}" for i, o in enumerate(self.objects)
        )

    @property
    def semantic(self) -> np.ndarray:
        """(H, W) uint8 label map: 0 = photograph, 1 + class index = shape."""
        out = np.zeros(self.image.shape[:2], np.uint8)
        for o in self.objects:
            out[o.mask] = 1 + o.label
        return out


@functools.cache
def load_photograph(name: str) -> np.ndarray:
    """The photograph as (H, W, 3) uint8, read-only, its longer side at most 720 px.

    Raises:
        ValueError: ``name`` is not one of :data:`PHOTOGRAPHS`.
    """
    if name not in _SOURCES:
        raise ValueError(f"photograph {name!r} is unknown; expected one of {', '.join(_SOURCES)}")
    package, path, _ = _SOURCES[name]
    spec = find_spec(package)  # finds the folder without importing the package, which takes seconds
    if spec is None or spec.origin is None:
        raise ValueError(f"photograph {name!r} lies in the package {package}: install mlclipsim[suite]")
    with Image.open(Path(spec.origin).parent / path) as stored:
        image = stored.convert("RGB")
    image.thumbnail((720, 720), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    pixels.setflags(write=False)
    return pixels


def _crop(rng: np.random.Generator, photograph: np.ndarray, size: int) -> np.ndarray:
    """A random square crop at the scene's size, turned by quarters, channels permuted; float (H, W, 3)."""
    height, width = photograph.shape[:2]
    side = int(rng.uniform(min(size, 0.4 * min(height, width)), 0.75 * min(height, width)))
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = Image.fromarray(photograph[y : y + side, x : x + side])
    pixels = np.asarray(crop.resize((size, size), Image.Resampling.BOX, reducing_gap=2.0), np.float32)
    pixels = np.rot90(pixels, int(rng.integers(4)))
    return pixels[..., rng.permutation(3)] if rng.random() < 0.5 else pixels


def _background(rng: np.random.Generator, photograph: np.ndarray, size: int) -> np.ndarray:
    """Clutter from a few photographs: a crop, often cut by the edge of a second one, in a light of its own.

    A dozen photographs would be learnt by heart; cuts, tints and gains make backgrounds that generalise.
    """
    canvas = _crop(rng, photograph, size)
    if rng.random() < 0.5:
        y, x = np.mgrid[:size, :size] / size - rng.uniform(0.2, 0.8, 2)[:, None, None]
        angle = rng.uniform(0, 2 * math.pi)
        beyond = (math.cos(angle) * x + math.sin(angle) * y > 0)[..., None]
        canvas = np.where(beyond, _crop(rng, photograph, size), canvas)
    mean = canvas.mean((0, 1))
    tinted = mean * rng.uniform(0.7, 1.3, 3) + rng.uniform(-25, 25)
    return np.clip(tinted + (canvas - mean) * rng.uniform(0.35, 0.75), 0, 255).astype(np.float32)


def _coverage(
    rng: np.random.Generator, shape: str, centre: np.ndarray, radius: float, size: int
) -> np.ndarray:
    """How much of each pixel the shape covers: (H, W) float in [0, 1]."""
    angle = math.radians(rng.uniform(-20, 20))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    stretch = np.exp(rng.uniform(-0.1, 0.1, 2)) * [1 if rng.random() < 0.5 else -1, 1]
    big = Image.new("L", (size * _OVERSAMPLING,) * 2, 0)
    draw = ImageDraw.Draw(big)
    for polygon, filled in SHAPES[shape]:
        points = ((polygon * stretch) @ turn.T * radius + centre) * _OVERSAMPLING
        draw.polygon([tuple(p) for p in points], fill=255 if filled else 0)
    return np.asarray(big.reduce(_OVERSAMPLING), np.float32) / 255


def _paint(rng: np.random.Generator, colour: str, texture: str, radius: float, size: int) -> np.ndarray:
    """The object's surface: colour with a little jitter, two-tone texture, soft shading; (H, W, 3) float."""
    base = np.clip(np.array(COLOURS[colour], np.float32) + rng.normal(0, 8, 3).astype(np.float32), 0, 255)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle = rng.uniform(0, math.pi)
    u, v = math.cos(angle) * x + math.sin(angle) * y, -math.sin(angle) * x + math.cos(angle) * y
    period = max(4.0, radius * rng.uniform(0.45, 0.65))
    phase = rng.uniform(0, 1, 2) * period
    wave_u, wave_v = (np.sin(2 * math.pi * (w + p) / period) for w, p in ((u, phase[0]), (v, phase[1])))
    pattern = {
        "plain": np.zeros_like(x),
        "striped": wave_u,
        "checked": wave_u * wave_v * 2,
        "dotted": (wave_u + wave_v - 0.6) * 1.3,
    }[texture]
    dark = np.clip(pattern * 2 + 0.5, 0, 1)[..., None] * (texture != "plain")
    shading = 1 + rng.uniform(0.05, 0.2) * np.cos(
        2 * math.pi * (u / (4 * size)) + rng.uniform(0, 2 * math.pi)
    )
    return base * (1 - rng.uniform(0.35, 0.5) * dark) * shading[..., None]


def _place(rng: np.random.Generator, radii: np.ndarray, size: int) -> np.ndarray:
    """Centres (n, 2): the largest near the middle, as photographers place it, the others by rejection."""
    best, best_gap = None, -np.inf
    middle = size * (0.5 + rng.uniform(-0.1, 0.1, 2))
    for _ in range(30):
        centres = np.stack([middle, *(rng.uniform(0.9 * r, size - 0.9 * r, 2) for r in radii[1:])])
        gap = min(
            (
                float(np.linalg.norm(centres[i] - centres[j]) - 0.85 * (radii[i] + radii[j]))
                for i in range(len(radii))
                for j in range(i)
            ),
            default=np.inf,
        )
        if gap > best_gap:
            best, best_gap = centres, gap
        if gap >= 0:
            break
    assert best is not None
    return best


def render(rng: np.random.Generator, photograph: np.ndarray, size: int = SIZE) -> Scene:
    """Render one scene.

    Args:
        rng: all of the scene's randomness; the same state gives the same bytes.
        photograph: (H, W, 3) uint8, each side at least ``size / 0.75`` px.
        size: side of the scene in pixels.
    """
    n = int(rng.integers(1, 4))
    large = size * rng.uniform(0.23, 0.32)
    radii = np.array([large, *rng.uniform(0.10 * size, 0.48 * large, n - 1)])
    radii[1:] = -np.sort(-radii[1:])
    centres = _place(rng, radii, size)
    canvas = _background(rng, photograph, size)
    drawn: list[tuple[str, str, str, np.ndarray]] = []
    for radius, centre in reversed(list(zip(radii, centres, strict=True))):  # the largest last: on top
        shape, texture = str(rng.choice(_SHAPE_NAMES)), str(rng.choice(TEXTURES))
        coverage = _coverage(rng, shape, centre, radius, size)
        behind = np.average(canvas.reshape(-1, 3), axis=0, weights=coverage.ravel())
        contrast = np.linalg.norm(_PALETTE - behind, axis=1)
        colour = _COLOUR_NAMES[int(rng.choice(np.flatnonzero(contrast > _LEAST_CONTRAST)))]
        paint = _paint(rng, colour, texture, radius, size)
        opacity = rng.uniform(0.85, 1.0)  # some of the photograph shows through: contrast is part of the task
        canvas = canvas + opacity * coverage[..., None] * (paint - canvas)
        drawn = [(s, c, t, m & (coverage <= 0.5)) for s, c, t, m in drawn]
        drawn.append((shape, colour, texture, coverage > 0.5))
    objects = []
    for shape, colour, texture, mask in reversed(drawn):
        if mask.sum() < 12:  # hidden behind a larger one
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        objects.append(SceneObject(shape, colour, texture, box, mask))
    return Scene(np.clip(np.rint(canvas), 0, 255).astype(np.uint8), tuple(objects))
