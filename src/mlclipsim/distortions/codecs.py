"""Classical codecs at a low rate, through Pillow's encoders; always encoded and decoded for real."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mlclipsim.distortions.family import Family

__all__ = ["FAMILIES"]


def _decoded(stream: io.BytesIO) -> np.ndarray:
    with Image.open(stream) as image:
        return np.array(image.convert("RGB"))


def _jpeg(image: np.ndarray, quality: float, _: None) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(quality), subsampling="4:2:0")
    return _decoded(stream)


def _jpeg2000(image: np.ndarray, quality_db: float, _: None) -> np.ndarray:
    # The rate is set by the quality asked for: the encoder truncates its bitstream where its own estimate of
    # PSNR says so, which makes t almost linear in PSNR. Small code blocks offer more places to truncate at,
    # though on 64 px about one level in six still lies between two of them, more than 0.1 dB apart.
    stream = io.BytesIO()
    Image.fromarray(image).save(
        stream,
        "JPEG2000",
        no_jp2=True,
        irreversible=True,
        quality_mode="dB",
        quality_layers=[quality_db],
        codeblock_size=(8, 8),
    )
    return _decoded(stream)


def _webp(image: np.ndarray, quality: float, _: None) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "WEBP", quality=int(quality), method=4)
    return _decoded(stream)


def _avif(image: np.ndarray, quality: float, _: None) -> np.ndarray:
    # One thread: then the bytes cannot depend on the machine's cores. Speed 8 loses 0.3 dB to the default 6
    # at equal rate and takes a quarter of its time, of which matching needs seven encodings.
    stream = io.BytesIO()
    Image.fromarray(image).save(
        stream, "AVIF", quality=int(quality), subsampling="4:2:0", speed=8, codec="aom", max_threads=1
    )
    return _decoded(stream)


_QUALITIES = tuple(float(quality) for quality in range(95, 0, -1))
_QUALITIES_AND_0 = (*_QUALITIES, 0.0)

FAMILIES = (
    Family(
        name="jpeg",
        distort=_jpeg,
        mildest=_QUALITIES[0],
        strongest=_QUALITIES[-1],
        levels=_QUALITIES,
        quantity="libjpeg quality",
        source="JPEG, ITU-T T.81, chroma 4:2:0 (libjpeg-turbo by Pillow)",
    ),
    Family(
        name="jpeg2000",
        distort=_jpeg2000,
        mildest=48.0,
        strongest=10.0,
        logarithmic=False,
        finest=1e-3,  # 0.04 dB
        quantity="quality asked of the encoder",
        unit="dB",
        source="JPEG 2000, ITU-T T.800, 9/7 wavelet (OpenJPEG by Pillow)",
    ),
    Family(
        name="webp",
        distort=_webp,
        mildest=_QUALITIES_AND_0[0],
        strongest=_QUALITIES_AND_0[-1],
        levels=_QUALITIES_AND_0,
        quantity="libwebp quality",
        source="WebP, RFC 9649, lossy, chroma 4:2:0 (libwebp by Pillow)",
    ),
    Family(
        name="avif",
        distort=_avif,
        mildest=_QUALITIES_AND_0[0],
        strongest=_QUALITIES_AND_0[-1],
        levels=_QUALITIES_AND_0,
        quantity="libavif quality",
        source="AVIF, AV1 still picture, chroma 4:2:0 (libavif with libaom by Pillow)",
    ),
)
