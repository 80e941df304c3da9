"""What all machines share: a frozen network with its own preprocessing inside."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlclipsim.devices import Pieces
from mlclipsim.images import resize as resize_bicubic

__all__ = ["CHANNELS", "FITS", "Machine"]

FITS = ("crop", "whole", "stretch", "letterbox")
CHANNELS = ("rgb", "bgr")
_PAD = 114 / 255  # the grey around a letterboxed image, YOLOX's own


class Machine(nn.Module):
    """A frozen network behind one interface, ``predict``; a subclass per task says what it gives.

    Images of another size than the network's are resized inside, so that what is stored, matched and measured
    stays the image itself.

    Args:
        input_size: px.
        resize: ``bicubic`` or ``bilinear``, antialiased; not for ``letterbox``, since YOLOX was trained with
            plain bilinear interpolation (antialiased, its mAP on COCO falls by a point).
        mean, std: of RGB in [0, 1]; a std of 1/255 makes 0..255 of it.
        fit: ``crop``: shorter side to ``input_size``, then the central square; ``whole``: shorter side to
            ``input_size``, nothing cut off; ``stretch``: to the square, whatever the aspect; ``letterbox``:
            longer side to ``input_size``, at the top left of a grey square.
        channels: the order in which the network takes them.
    """

    task: ClassVar[str]
    fits: ClassVar[tuple[str, ...]] = FITS
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        input_size: int,
        resize: str,
        mean: list[float],
        std: list[float],
        fit: str = "crop",
        channels: str = "rgb",
    ):
        super().__init__()
        for name, value, known in (
            ("resize", resize, ("bicubic", "bilinear")),
            ("fit", fit, self.fits),
            ("channels", channels, CHANNELS),
        ):
            if value not in known:
                expected = ", ".join(known[:-1]) + f" or {known[-1]}"
                raise ValueError(
                    f"{name} of a {type(self).__name__.lower()}: expected {expected}, got {value!r}"
                )
        self.network = network
        self.input_size = input_size
        self.resize, self.fit, self.channels = resize, fit, channels
        for key, rgb in (("mean", mean), ("std", std)):  # in the network's order of channels
            ordered = torch.tensor(rgb if channels == "rgb" else rgb[::-1])
            self.register_buffer(key, ordered.view(1, 3, 1, 1), persistent=False)
        # channels_last: torch's small networks take a quarter to a half less time on a CPU
        self.layout = getattr(network, "layout", torch.channels_last)
        self.eval().requires_grad_(False).to(memory_format=self.layout)
        self._pieces = Pieces()

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def answers(self, images: Tensor, preprocessed: Tensor | None = None) -> list[Any]:
        """What :meth:`predict` says of each of ``(N, 3, H, W)``, from whatever device they come, in as many
        pieces as fit into the memory of the machine's own."""

        def predict(numbers: range) -> Any:
            part = slice(numbers.start, numbers.stop)
            seen = None if preprocessed is None else preprocessed[part].to(self.device)
            return self.predict(images[part].to(self.device), seen)

        return [answer for piece in self._pieces.map(predict, range(len(images))) for answer in piece]

    def predict(self, images: Tensor, preprocessed: Tensor | None = None) -> Any:
        """The predictions on ``(N, 3, H, W)`` in [0, 1], one per image, as numpy arrays.

        ``preprocessed`` is what :meth:`preprocess` gave for them, where the caller has it already.
        """
        raise NotImplementedError

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) that an image of this size takes up before cropping or padding."""
        size = self.input_size
        if self.fit == "stretch":
            return size, size
        side = max(height, width) if self.fit == "letterbox" else min(height, width)
        return height * size // side, width * size // side

    def resizes(self, height: int, width: int) -> bool:
        """Whether :meth:`preprocess` changes an image of this size."""
        return (height, width) != (self.input_size, self.input_size)

    def preprocess(self, images: Tensor) -> Tensor:
        """What the network sees, before normalisation: RGB in [0, 1]."""
        height, width = images.shape[-2:]
        shape = self.extent(height, width)
        if self.resize == "bicubic" and self.fit in ("crop", "whole"):
            return resize_bicubic(images, self.input_size, crop=self.fit == "crop")
        if shape != (height, width):
            images = F.interpolate(
                images, shape, mode=self.resize, antialias=self.fit != "letterbox", align_corners=False
            )
            images = images.clamp(0, 1)  # bicubic overshoots
        if self.fit == "crop":
            top, left = (round((side - self.input_size) / 2) for side in shape)
            images = images[..., top : top + self.input_size, left : left + self.input_size]
        elif self.fit == "letterbox":
            below, right = self.input_size - shape[0], self.input_size - shape[1]
            images = F.pad(images, (0, right, 0, below), value=_PAD)
        return images

    def normalised(self, images: Tensor, preprocessed: Tensor | None = None) -> Tensor:
        """What the network is given: preprocessed, channels in its order, normalised."""
        images = self.preprocess(images) if preprocessed is None else preprocessed
        images = images.flip(1) if self.channels == "bgr" else images
        return (images.contiguous(memory_format=self.layout) - self.mean).div_(self.std)
