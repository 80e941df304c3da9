"""Many scenes at once, as arrays: what the zoo is trained and measured on."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mlclipsim import lifeline
from mlclipsim.artifacts import atomic
from mlclipsim.randomness import generator
from mlclipsim.world.scenes import COLOURS, PHOTOGRAPHS, SHAPES, SIZE, TEXTURES, load_photograph, render

__all__ = ["ScenePool", "augment", "render_pool"]

_MAX_OBJECTS = 3
_SHIFT = 6  # px of random crop


@dataclass(frozen=True)
class ScenePool:
    """``n`` scenes. Objects are padded with -1 and ordered from the largest to the smallest.

    Attributes:
        images: (n, 64, 64, 3) uint8.
        semantic: (n, 64, 64) uint8, 0 = photograph, 1 + class.
        objects: (n, 3, 3) int8 indices of shape, colour, texture.
        boxes: (n, 3, 4) int16, x0 y0 x1 y1 in pixels.
    """

    images: np.ndarray
    semantic: np.ndarray
    objects: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> np.ndarray:
        return self.objects[:, 0, 0].astype(np.int64)

    def caption(self, index: int, rng: np.random.Generator | None = None) -> str:
        """The scene's caption; ``rng`` leaves out colours, textures and small objects now and then."""
        parts = []
        for i, (shape, colour, texture) in enumerate(self.objects[index]):
            if shape < 0 or (i and rng is not None and rng.random() < 0.35):
                continue
            words = ["a", "large" if i == 0 else "small"]
            if rng is None or rng.random() > 0.25:
                words.append(tuple(COLOURS)[colour])
            if rng is None or rng.random() > 0.35:
                words.append(TEXTURES[texture])
            parts.append(" ".join([*words, tuple(SHAPES)[shape]]))
        return " and ".join(parts)


_Chunk = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _render_chunk(role: str, seed: int, start: int, stop: int) -> _Chunk:
    photographs = [load_photograph(name) for name, r in PHOTOGRAPHS.items() if r == role]
    n = stop - start
    images, semantic = np.empty((n, SIZE, SIZE, 3), np.uint8), np.empty((n, SIZE, SIZE), np.uint8)
    objects, boxes = np.full((n, _MAX_OBJECTS, 3), -1, np.int8), np.zeros((n, _MAX_OBJECTS, 4), np.int16)
    shapes, colours = list(SHAPES), list(COLOURS)
    for i in range(n):
        rng = generator(seed, "scene", role, start + i)
        scene = render(rng, photographs[int(rng.integers(len(photographs)))])
        images[i], semantic[i] = scene.image, scene.semantic
        for j, o in enumerate(scene.objects):
            objects[i, j] = shapes.index(o.shape), colours.index(o.colour), TEXTURES.index(o.texture)
            boxes[i, j] = o.box
    return images, semantic, objects, boxes


def render_pool(role: str, n: int, seed: int, cache: Path | None = None, workers: int = 1) -> ScenePool:
    """Render ``n`` scenes over the photographs of ``role``; with ``cache``, keep and map them from disk."""
    names = ("images", "semantic", "objects", "boxes")
    files = [cache / f"{role}-{n}-{seed}" / f"{name}.npy" for name in names] if cache else []
    if not files or not all(f.exists() for f in files):
        starts = range(0, n, 500)
        with ProcessPoolExecutor(workers, initializer=lifeline.follow, initargs=(os.getpid(),)) as executor:
            jobs = [executor.submit(_render_chunk, role, seed, s, min(n, s + 500)) for s in starts]
            chunks = [
                job.result() for job in tqdm(jobs, desc=f"rendering {role}", unit="x500", disable=n <= 2000)
            ]
        arrays = [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
        for file, array in zip(files, arrays, strict=bool(files)):
            with atomic(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, array)
        if not files:
            return ScenePool(*arrays)
    return ScenePool(*(np.load(f, mmap_mode="r") for f in files))


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _moves(rng: np.random.Generator, n: int) -> list[tuple[int, int, bool]]:
    """Row and column offsets into the padded image, and whether to mirror it."""
    offsets = rng.integers(0, 2 * _SHIFT + 1, (2, n)).tolist()
    return list(zip(*offsets, (rng.random(n) < 0.5).tolist(), strict=True))


def augment(
    images: np.ndarray, seed: int, *, geometric: bool = True, semantic: np.ndarray | None = None
) -> tuple[Tensor, Tensor | None]:
    """What real networks are trained with: crops, colour jitter, mild random blur, noise, JPEG.

    Args:
        images: (B, H, W, 3) uint8.
        seed: of all randomness.
        geometric: also shift and mirror (not where boxes must stay in place).
        semantic: (B, H, W) uint8 label maps that are shifted and mirrored with their images.

    Returns:
        The images, (B, 3, H, W) float32 in [0, 1], and the label maps, (B, H, W) int64, if there were any.
    """
    from torch.nn.functional import pad
    from torchvision.transforms.v2.functional import gaussian_blur

    rng, g = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    images = np.array(images)
    for coded in np.flatnonzero(rng.random(len(images)) < 0.1):
        images[coded] = _jpeg(images[coded], int(rng.integers(50, 95)))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)
    n = len(x)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, 1, 1, 1, generator=g) * (high - low) + low

    if semantic is not None:  # as a fourth channel, so that it moves with its image
        x = torch.cat([x, torch.from_numpy(np.array(semantic)).unsqueeze(1).float()], dim=1)
    if geometric:
        padded = pad(x, (_SHIFT,) * 4, mode="reflect")
        size = x.shape[-1]
        for i, (top, left, mirrored) in enumerate(_moves(rng, n)):
            crop = padded[i, :, top : top + size, left : left + size]
            x[i] = crop.flip(-1) if mirrored else crop
    labels = x[:, 3].round().long() if semantic is not None else None
    x = x[:, :3]
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * uniform(0.7, 1.3)  # saturation
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * uniform(0.65, 1.35)) * uniform(0.75, 1.25)  # contrast, brightness
    blurred = torch.rand(n, generator=g) < 0.2
    if blurred.any():
        sigma = float(torch.rand(1, generator=g) * 0.5 + 0.2)
        x[blurred] = gaussian_blur(x[blurred], [5, 5], [sigma, sigma])
    noisy = torch.rand(n, generator=g) < 0.25
    x[noisy] += uniform(0.0, 0.025)[noisy] * torch.randn(x[noisy].shape, generator=g)
    return x.clamp(0, 1), labels
