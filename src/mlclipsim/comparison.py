"""Pairs of images, encoded to be compared: as many at a time as fill a batch, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mlclipsim.encoders import Encoder
from mlclipsim.images import check_images
from mlclipsim.sizes import look, windows

__all__ = ["BATCH", "Comparison", "Encoded"]

BATCH = 32  # windows that the encoder sees at a time; more costs memory and gains little


@dataclass(frozen=True)
class Encoded:
    """What the metric needs of N images; made once per reference, used with many distorted images.

    Attributes:
        tokens: per layer ``(N * T, P_l, D_l)``, with T windows per image (1 but for the policy ``tile``).
        embedding: ``(N * T, E)``, or None where no global term is asked for.
        size: ``(H, W)`` of the images as they came.
        shape: ``(h, w)`` of what the encoder saw.
        n_images: N.
    """

    tokens: list[Tensor]
    embedding: Tensor | None
    size: tuple[int, int]
    shape: tuple[int, int]
    n_images: int

    def __len__(self) -> int:
        return self.n_images

    def __getitem__(self, images: slice) -> Encoded:
        """Some of the images."""

        def cut(values: Tensor) -> Tensor:
            return values.unflatten(0, (self.n_images, -1))[images].flatten(0, 1)

        embedding = None if self.embedding is None else cut(self.embedding)
        n_images = len(range(*images.indices(self.n_images)))
        return replace(self, tokens=[cut(t) for t in self.tokens], embedding=embedding, n_images=n_images)


@dataclass(frozen=True)
class Comparison:
    """How images are encoded to be compared: everything of the metric but theta.

    Attributes:
        encoder: the frozen tower.
        layers: its blocks that are compared, from 1, ascending.
        use_global: whether the embedding is compared, too.
        size_policy: see :mod:`mlclipsim.sizes`.
        batch_size: windows that the encoder sees at a time where no graph is kept; None: all.
    """

    encoder: Encoder
    layers: tuple[int, ...]
    use_global: bool
    size_policy: str
    batch_size: int | None

    def encode(self, images: Tensor) -> Encoded:
        """Of checked ``(N, 3, H, W)``; ``batch_size`` windows at a time."""
        seen = look(images, self.encoder, self.size_policy)  # (N * T, 3, h, w)
        parts = [
            self.encoder(part, layers=self.layers, embed=self.use_global)
            for part in seen.split(self.batch_size or len(seen))
        ]
        tokens, embedding = parts[0]
        if len(parts) > 1:
            tokens = [torch.cat(layer) for layer in zip(*(part[0] for part in parts), strict=True)]
            embedding = torch.cat([part[1] for part in parts]) if self.use_global else None
        return Encoded(tokens, embedding, _size(images), _size(seen), len(images))

    def pairs(self, reference: Tensor | Encoded, distorted: Tensor) -> Iterator[tuple[Encoded, Encoded]]:
        """Reference and distorted images, encoded: all at once where ``distorted`` needs a graph, which holds
        everything anyway, else as few images at a time as fill a batch. References never get a graph.

        Raises:
            ValueError, TypeError: images of another kind, size, number or range.
        """
        distorted = check_images(distorted, "distorted")
        if isinstance(reference, Tensor):
            reference = check_images(reference, "reference")
        elif not isinstance(reference, Encoded):
            seen_type = type(reference).__name__
            raise TypeError(
                f"reference: expected a tensor (N, 3, H, W) or what encode() gave, got {seen_type}"
            )
        elif len(reference.tokens) != len(self.layers) or (self.use_global and reference.embedding is None):
            raise ValueError("reference: encoded by a metric with other layers; encode it with this one")
        n, m, size = len(reference), len(distorted), _size(distorted)
        seen = reference.size if isinstance(reference, Encoded) else _size(reference)
        if seen != size:
            raise ValueError(
                f"reference {_text(seen)}, distorted {_text(size)}, expected equal sizes; "
                "crop or resize one to the other first"
            )
        if n not in (1, m):
            raise ValueError(f"expected one reference or as many as distorted images ({m}), got {n}")
        step, whole = m, self
        if torch.is_grad_enabled() and distorted.requires_grad:
            whole = replace(self, batch_size=None)
        elif self.batch_size is not None:
            step = max(1, self.batch_size // len(windows(size, self.encoder, self.size_policy)))
        if isinstance(reference, Tensor) and (n < m or step >= m):
            with torch.no_grad():
                reference = self.encode(reference)
        for start in range(0, m, step):
            part = slice(start, start + step)
            first = reference[part] if n == m and step < m else reference
            if isinstance(first, Tensor):
                with torch.no_grad():
                    first = self.encode(first)
            yield first, whole.encode(distorted[part])


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
