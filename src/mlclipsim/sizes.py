"""Size policies: which windows of an image an encoder looks at, and what it found, put back in its place.

============  =============================================================================================
``resize``    one window, the central square, resized to the encoder's size (shorter side to that size,
              antialiased bicubic, then the middle)
``native``    one window, the image cropped to whole patches, as it is; position embeddings are interpolated
``tile``      windows of the encoder's size that cover the image; the last row and column overlap others
============  =============================================================================================
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mlclipsim.encoders import Encoder
from mlclipsim.images import resize

__all__ = ["SIZE_POLICIES", "SizePolicy", "Window", "look", "put_back", "windows"]

SizePolicy = Literal["resize", "native", "tile"]
SIZE_POLICIES = ("resize", "native", "tile")


class Window(NamedTuple):
    """A part of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, images: Tensor) -> Tensor:
        """A view of that part of ``(..., H, W)``."""
        return images[..., self.top : self.top + self.height, self.left : self.left + self.width]


def windows(size: tuple[int, int], encoder: Encoder, policy: str) -> list[Window]:
    """The windows of an image of ``size`` (H, W), row by row. That of ``resize`` is exact to half a pixel of
    what the encoder sees.

    Raises:
        ValueError: the image is too small for the policy.
    """
    height, width = size
    if policy == "resize":
        side = min(size)
        return [Window((height - side) // 2, (width - side) // 2, side, side)]
    if policy == "native":
        h, w = (length // encoder.stride * encoder.stride for length in size)
        if not h or not w:
            raise ValueError(
                f"native: expected at least {encoder.stride} pixels a side, got {height}x{width}; use resize"
            )
        return [Window((height - h) // 2, (width - w) // 2, h, w)]
    side = encoder.image_size
    if min(size) < side:
        raise ValueError(f"tile: expected at least {side}x{side} pixels, got {height}x{width}; use resize")
    tops, lefts = ([min(k * side, n - side) for k in range(-(-n // side))] for n in size)
    return [Window(top, left, side, side) for top in tops for left in lefts]


def look(images: Tensor, encoder: Encoder, policy: str) -> Tensor:
    """What the encoder sees of ``(N, 3, H, W)``: ``(N * T, 3, h, w)``, with T windows per image."""
    if policy == "resize":
        wide = torch.promote_types(images.dtype, torch.float32)  # halves would round after each pass
        return resize(images.to(wide), encoder.image_size)
    seen = [window.cut(images) for window in windows((images.shape[-2], images.shape[-1]), encoder, policy)]
    return torch.stack(seen, dim=1).flatten(0, 1)  # (N, T, 3, h, w) -> (N * T, 3, h, w)


def put_back(maps: Tensor, places: list[Window], size: tuple[int, int]) -> Tensor:
    """Maps of windows, ``(N, T, h, w)``, interpolated and laid into the image, ``(N, H, W)``.

    Windows that overlap are averaged there; pixels outside all windows, which the encoder never saw, are NaN.
    """
    total = maps.new_zeros(len(maps), *size)  # (N, H, W)
    count = maps.new_zeros(size)
    for place, part in zip(places, maps.unbind(1), strict=True):
        grown = F.interpolate(part[:, None], size=(place.height, place.width), mode="bilinear")
        place.cut(total).add_(grown[:, 0])
        place.cut(count).add_(1)
    return total / count  # 0 / 0 is NaN
