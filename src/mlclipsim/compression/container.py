"""The file that a bitstream goes into: 16 bytes that say what it is, then the strings.

====== ===== ================================================================================
offset bytes
====== ===== ================================================================================
0      2     magic; the first byte has its high bit set, so that no text file begins with it
2      1     version of this layout (high half), number of strings (low half)
3      1     codec: the ``id`` of its catalog entry
4      1     quality: the number of the entry's point, or the classical codec's quality
5      3     first bytes of the fingerprint of the weights, zeros for a classical codec
8      4     height and width in pixels, two bytes each, big-endian
12     4     CRC-32 of everything else
====== ===== ================================================================================

Then, for all strings but the last, the length (LEB128), and then the strings. A stream of one string, as
those of all classical and factorised codecs are, so takes exactly 16 bytes more than its payload.

The CRC finds every burst of up to 32 flipped bits, and all but one in 2^32 other damages.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FINGERPRINT_BYTES", "ContainerError", "Header", "pack", "unpack"]

_MAGIC, _VERSION = b"\xabM", 1
_LAYOUT = struct.Struct(">2sBBB3sHHI")
_CRC_AT = _LAYOUT.size - 4
FINGERPRINT_BYTES = 3


class ContainerError(ValueError):
    """Bytes that are no stream of ours, or one that has suffered."""


@dataclass(frozen=True)
class Header:
    """What a decoder must know.

    Attributes:
        codec: ``id`` of the catalog entry, 0 to 255.
        quality: number of the point, or quality, 0 to 255.
        fingerprint: :data:`FINGERPRINT_BYTES` bytes, which tell other weights of the same codec apart.
        size: (H, W) of the image.
    """

    codec: int
    quality: int
    fingerprint: bytes
    size: tuple[int, int]


def pack(header: Header, strings: Sequence[bytes]) -> bytes:
    """The file's bytes.

    Raises:
        ValueError: what the header's fields cannot hold.
    """
    height, width = header.size
    if not (0 < height < 2**16 and 0 < width < 2**16):
        raise ValueError(f"expected sides of 1 to 65535 pixels, got {width}x{height}; cut the image up")
    kind = _VERSION << 4 | len(strings)
    fields = (_MAGIC, kind, header.codec, header.quality, header.fingerprint, height, width)
    lengths = b"".join(_leb128(len(string)) for string in strings[:-1])
    body = lengths + b"".join(strings)
    head = _LAYOUT.pack(*fields, 0)[:_CRC_AT]
    return head + struct.pack(">I", zlib.crc32(body, zlib.crc32(head))) + body


def unpack(data: bytes) -> tuple[Header, tuple[bytes, ...]]:
    """The header and the strings of what :func:`pack` made.

    Raises:
        ContainerError: the bytes are foreign, of another version, truncated or damaged.
    """
    if data[: len(_MAGIC)] != _MAGIC:
        raise ContainerError("expected a stream of `mlclipsim compress`, got a file of another kind")
    if len(data) < _LAYOUT.size:
        raise ContainerError(
            f"expected at least {_LAYOUT.size} bytes, got {len(data)}: the stream is truncated"
        )
    _, kind, codec, quality, fingerprint, height, width, crc = _LAYOUT.unpack_from(data)
    body = data[_LAYOUT.size :]
    if zlib.crc32(body, zlib.crc32(data[:_CRC_AT])) != crc:
        raise ContainerError("its checksum does not fit: the stream is truncated or damaged, get it again")
    version, count = divmod(kind, 16)
    if version != _VERSION:
        raise ContainerError(
            f"expected layout {_VERSION}, got {version}; decode with the version that encoded"
        )
    lengths, at = [], 0
    for _ in range(count - 1):
        length, at = _read_leb128(body, at)
        lengths.append(length)
    if not height or not width:
        raise ContainerError("it holds no pixels, which no `mlclipsim compress` wrote")
    rest = len(body) - at - sum(lengths)
    if not count or rest < 0:
        raise ContainerError("its strings are longer than the stream, which no `mlclipsim compress` wrote")
    strings = []
    for length in (*lengths, rest):
        strings.append(body[at : at + length])
        at += length
    return Header(codec, quality, fingerprint, (height, width)), tuple(strings)


def _leb128(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    parts = []
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where it ends; cut off where no stream is that long."""
    number = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return number, at
