"""Classical codecs: what is decoded is what the format says, at a rate that is the file's."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mlclipsim.compression.classical import FORMATS, ClassicalCodec
from mlclipsim.spec import project_root

Photograph = Callable[[int, int], np.ndarray]
LADDERS = {
    entry["model"]: entry["qualities"]
    for entry in yaml.safe_load((project_root() / "config/catalog/codecs.yaml").read_text()).values()
    if entry["library"] == "pillow"
}


def _psnr_db(image: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((image / 255.0 - other / 255.0) ** 2)))


def test_every_format_has_a_ladder() -> None:
    assert set(LADDERS) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_ladder_rises_in_rate_and_quality(name: str, photograph: Photograph) -> None:
    image = photograph(100, 77)
    rates, levels = [], []
    for quality in LADDERS[name]:
        codec = ClassicalCodec(name, quality)
        stream = codec.encode(image)
        assert codec.encode(image) == stream  # bit for bit
        decoded = codec.decode(stream)
        # Pillow, asked anew, sees the same pixels in these bytes.
        np.testing.assert_array_equal(decoded, Image.open(io.BytesIO(*stream.strings)).convert("RGB"))
        assert stream.payload_bytes == len(stream.strings[0])
        assert stream.bpp == 8 * stream.payload_bytes / 7700
        assert codec.constant_bytes((100, 77)) < stream.payload_bytes
        rates.append(stream.bpp)
        levels.append(_psnr_db(image, decoded))
    assert rates == sorted(rates)
    assert levels == sorted(levels)
    assert levels[-1] - levels[0] > 8


def test_jpeg_2000_transforms_colours(photograph: Photograph) -> None:
    """Without it a grey photograph in RGB costs three times its rate."""
    grey = np.repeat(photograph(128, 128)[..., :1], 3, axis=2)
    colour, single = io.BytesIO(), io.BytesIO()
    for image, stream in ((grey, colour), (grey[..., 0], single)):
        settings = FORMATS["jpeg2000"].settings | ({} if image.ndim == 3 else {"mct": 0})
        Image.fromarray(image).save(stream, "JPEG2000", quality_layers=[30], **settings)
    assert len(colour.getvalue()) < 1.1 * len(single.getvalue())


def test_constant_bytes_are_those_of_a_grey_image() -> None:
    codec = ClassicalCodec("webp", 45)
    assert codec.constant_bytes((64, 48)) == codec.encode(np.full((64, 48, 3), 128, np.uint8)).payload_bytes


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_damaged_streams_are_refused_or_have_the_right_size(
    name: str, photograph: Photograph, draw: st.DataObject
) -> None:
    codec = ClassicalCodec(name, LADDERS[name][1])
    stream = codec.encode(photograph(40, 56))
    data = bytearray(stream.strings[0])
    if draw.draw(st.booleans()):
        data = data[: draw.draw(st.integers(0, len(data) - 1))]
    for position in draw.draw(st.lists(st.integers(0, max(len(data) - 1, 0)), max_size=3 if data else 0)):
        data[position] ^= draw.draw(st.integers(1, 255))
    decoded = None
    with contextlib.suppress(ValueError):
        decoded = codec.decode(dataclasses.replace(stream, strings=(bytes(data),)))
    assert decoded is None or decoded.shape == (40, 56, 3)


def test_refuses_streams_of_other_formats_and_sizes(photograph: Photograph) -> None:
    stream = ClassicalCodec("jpeg", 50).encode(photograph(40, 56))
    with pytest.raises(ValueError, match="no sound header of WEBP"):
        ClassicalCodec("webp", 50).decode(stream)
    with pytest.raises(ValueError, match="expected 40x56 pixels, got 56x40"):
        ClassicalCodec("jpeg", 50).decode(dataclasses.replace(stream, size=(56, 40)))


def test_refuses_what_it_cannot_code(photograph: Photograph) -> None:
    with pytest.raises(ValueError, match="codec 'gif' is unknown"):
        ClassicalCodec("gif", 50)
    with pytest.raises(ValueError, match="jpeg: expected a quality from 1 to 95, got 96"):
        ClassicalCodec("jpeg", 96)
    with pytest.raises(TypeError, match="expected a uint8 array"):
        ClassicalCodec("jpeg", 50).encode(photograph(40, 56) / 255)
    with pytest.raises(ValueError, match="webp: cannot code 16400x16 pixels"):
        ClassicalCodec("webp", 50).encode(np.zeros((16, 16400, 3), np.uint8))
