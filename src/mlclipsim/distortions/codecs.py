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


_QUALITIES = tuple(float(quality) for quality in range(95, 0, -1))

FAMILIES = (
    Family(
        name="jpeg",
        distort=_jpeg,
        mildest=_QUALITIES[0],
        strongest=_QUALITIES[-1],
        levels=_QUALITIES,
        parameter_unit="libjpeg quality",
        source="JPEG, ITU-T T.81, chroma 4:2:0 (libjpeg-turbo by Pillow)",
    ),
    Family(
        name="jpeg2000",
        distort=_jpeg2000,
        mildest=48.0,
        strongest=10.0,
        logarithmic=False,
        finest=1e-3,  # 0.04 dB
        parameter_unit="quality asked of the encoder, dB",
        source="JPEG 2000, ITU-T T.800, 9/7 wavelet (OpenJPEG by Pillow)",
    ),
)
