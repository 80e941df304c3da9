"""Classical codecs as reference lines, through Pillow's encoders: JPEG, WebP, JPEG 2000 and AVIF.

The distortions of the same names (mlclipsim.distortions.codecs) are other settings: they seek fine steps of
PSNR, these the lowest rate.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from mlclipsim.compression.bitstream import Bitstream
from mlclipsim.images import ImageError, check_array, decode_image, image_size
from mlclipsim.usage import UsageError

__all__ = ["FORMATS", "ClassicalCodec", "Format"]


@dataclass(frozen=True)
class Format:
    """A file format of Pillow's, and how it is written."""

    pillow: str  # its name there
    qualities: range
    settings: dict[str, Any]
    unit: str = ""

    def save(self, image: np.ndarray, quality: int) -> bytes:
        level = {"quality_layers": [quality]} if self.unit == "dB" else {"quality": quality}
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, self.pillow, **level, **self.settings)
        return stream.getvalue()


FORMATS = {
    # Huffman tables of the image's own.
    "jpeg": Format("JPEG", range(1, 96), {"subsampling": "4:2:0", "optimize": True}),
    "webp": Format("WEBP", range(101), {"method": 6}),
    # A bare codestream, cut where the encoder's own estimate of PSNR reaches the quality. Pillow leaves the
    # transform of colours out by default, which costs 5 dB at one bit per pixel.
    "jpeg2000": Format(
        "JPEG2000",
        range(10, 61),
        {"no_jp2": True, "irreversible": True, "mct": 1, "quality_mode": "dB"},
        unit="dB",
    ),
    # One thread: then the bytes cannot depend on the machine's cores.
    "avif": Format(
        "AVIF", range(101), {"subsampling": "4:2:0", "speed": 6, "codec": "aom", "max_threads": 1}
    ),
}


class ClassicalCodec:
    """One classical codec at one quality.

    Args:
        name: a key of :data:`FORMATS`.
        quality: on the codec's own scale; for jpeg2000 the PSNR in dB that is asked of the encoder.

    Raises:
        UsageError: an unknown codec, or a quality that it does not have.
    """

    def __init__(self, name: str, quality: int) -> None:
        if name not in FORMATS:
            raise UsageError(f"codec {name!r} is unknown; expected one of {', '.join(FORMATS)}")
        allowed = FORMATS[name].qualities
        if quality not in allowed:
            raise UsageError(f"{name}: expected a quality from {allowed[0]} to {allowed[-1]}, got {quality}")
        self.name, self.quality = name, quality
        self.fingerprint = bytes(32)  # it has no weights
        self.portable = True

    def padding(self, size: tuple[int, int]) -> tuple[int, int]:
        """None: what a classical codec pads by itself, its decoder cuts off again."""
        return 0, 0

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """(0, 0): no latent whose shape its decoder would have to be told."""
        return 0, 0

    def encode(self, image: np.ndarray) -> Bitstream:
        """Code a uint8 ``(H, W, 3)`` image.

        Raises:
            ValueError: the format cannot hold an image of this size.
        """
        height, width, _ = check_array(image).shape
        try:
            data = FORMATS[self.name].save(image, self.quality)
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.name}: cannot code {width}x{height} pixels ({error})") from error
        return Bitstream(strings=(data,), shape=(0, 0), size=(height, width))

    def decode(self, stream: Bitstream) -> np.ndarray:
        """The uint8 ``(H, W, 3)`` image.

        Raises:
            ImageError: the stream is damaged, of another format, or of another size than it says.
        """
        (data,) = stream.strings
        rows, columns = image_size(data, FORMATS[self.name].pillow)
        if (rows, columns) != stream.size:
            height, width = stream.size
            raise ImageError(
                f"{self.name}: expected {width}x{height} pixels, got {columns}x{rows}; encode it again"
            )
        return decode_image(data)

    def constant_bytes(self, size: tuple[int, int]) -> int:
        """Bytes that every image of this (H, W) costs at this quality: what a one-colour image takes."""
        return _constant_bytes(self.name, self.quality, size)


@cache
def _constant_bytes(name: str, quality: int, size: tuple[int, int]) -> int:
    return len(FORMATS[name].save(np.full((*size, 3), 128, np.uint8), quality))
