"""What a codec makes of an image, before it goes into a file."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bitstream"]


@dataclass(frozen=True)
class Bitstream:
    """The entropy-coded strings of one image.

    Attributes:
        strings: one for each entropy-coded latent; a classical codec's only one is its whole file.
        shape: (h, w) of the coarsest latent, which a decoder needs; (0, 0) for a classical codec.
        size: (H, W) of the image in pixels, before any padding.
    """

    strings: tuple[bytes, ...]
    shape: tuple[int, int]
    size: tuple[int, int]

    @property
    def payload_bytes(self) -> int:
        """Bytes of the strings, nothing else."""
        return sum(map(len, self.strings))

    @property
    def bpp(self) -> float:
        """Bits of the strings per pixel of the image, not of the padded one."""
        return 8 * self.payload_bytes / (self.size[0] * self.size[1])
