"""The container: what goes in comes out, and nothing that was touched since."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlclipsim.compression.container import ContainerError, Header, pack, unpack

HEADERS = st.builds(
    Header,
    codec=st.integers(0, 255),
    quality=st.integers(0, 255),
    fingerprint=st.binary(min_size=3, max_size=3),
    size=st.tuples(st.integers(1, 65535), st.integers(1, 65535)),
)
STRINGS = st.lists(st.binary(max_size=300), min_size=1, max_size=3).map(tuple)
STREAM = pack(Header(1, 2, b"abc", (30, 40)), (bytes(200), b"second"))


@given(HEADERS, STRINGS)
def test_round_trip_and_overhead(header: Header, strings: tuple[bytes, ...]) -> None:
    data = pack(header, strings)
    assert unpack(data) == (header, strings)
    lengths = sum(1 if len(string) < 128 else 2 for string in strings[:-1])
    assert len(data) == 16 + lengths + sum(map(len, strings))


def test_layout_is_as_documented() -> None:
    """Written out once more by the table: streams of today must stay readable."""
    head = b"\xabM\x12\x01\x02abc" + struct.pack(">HH", 30, 40)
    body = b"\xc8\x01" + bytes(200) + b"second"
    assert head + struct.pack(">I", zlib.crc32(head + body)) + body == STREAM


@given(st.integers(0, 8 * len(STREAM) - 1))
def test_no_flipped_bit_passes(bit: int) -> None:
    damaged = bytearray(STREAM)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ContainerError):
        unpack(bytes(damaged))


@given(st.integers(0, len(STREAM) - 1))
def test_no_truncated_stream_passes(length: int) -> None:
    with pytest.raises(ContainerError):
        unpack(STREAM[:length])
    with pytest.raises(ContainerError):
        unpack(STREAM + bytes(length + 1))


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_foreign_or_damaged(data: bytes) -> None:
    for prefix in (b"", STREAM[:2], STREAM[:12]):
        with pytest.raises(ContainerError):
            unpack(prefix + data)


@given(st.integers(0, 255), st.binary(max_size=40))
def test_layouts_that_no_one_wrote_are_refused_even_with_a_good_checksum(kind: int, body: bytes) -> None:
    head = STREAM[:2] + bytes([kind]) + STREAM[3:12]
    try:
        _, strings = unpack(head + struct.pack(">I", zlib.crc32(head + body)) + body)
    except ContainerError:
        return
    assert kind >> 4 == 1
    assert len(strings) == kind & 15
    assert sum(map(len, strings)) <= len(body)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n and so on", "file of another kind"),
        (STREAM[:9], "expected at least 16 bytes, got 9"),
        (STREAM[:-1], "truncated or damaged"),
    ],
)
def test_says_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(ContainerError, match=message):
        unpack(data)


def test_sizes_beyond_two_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected sides of 1 to 65535 pixels, got 70000x10"):
        pack(Header(1, 1, b"abc", (10, 70000)), (b"",))
