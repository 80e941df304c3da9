"""Rate and distortion of codecs on photographs, from real bitstreams, as CompressAI measures its own.

Published results differ in whether the decoded image was rounded to 8 bits before PSNR was taken, which
shifts it by up to 0.065 dB at high rates; here stand both. Means are over images, of bits per pixel and of
decibels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from mlclipsim.atomic import atomic
from mlclipsim.compression import coding
from mlclipsim.compression.classical import ClassicalCodec
from mlclipsim.compression.codecs import LearnedCodec, estimate_bits
from mlclipsim.images import read_image, to_tensor
from mlclipsim.usage import UsageError

with warnings.catch_warnings():  # it compiles a function with torch.jit
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    from pytorch_msssim import ms_ssim

__all__ = ["evaluate", "measure"]

MS_SSIM_SIDE = 161  # pixels; four halvings of fewer leave less than its window of 11


def evaluate(codec: LearnedCodec | ClassicalCodec, images: Iterable[tuple[str, np.ndarray]]) -> pd.DataFrame:
    """Code and decode each image.

    Args:
        images: names and uint8 arrays ``(H, W, 3)``.

    Returns:
        A row per image: ``image, height, width, strings, payload_bytes, constant_bytes`` (what a one-colour
        image takes, 0 for a learned codec), ``estimated_bytes`` (entropy of the latents, NaN for a classical
        codec), ``bpp, psnr_db`` and ``ms_ssim`` (of 8-bit images; NaN below 161 px) and ``psnr_float_db``
        (before the rounding, NaN for a classical codec).
    """
    rows = []
    for name, image in images:
        stream = codec.encode(image)
        original = to_tensor(image)
        row = {"image": name, "height": image.shape[0], "width": image.shape[1], "bpp": stream.bpp}
        row |= {"strings": len(stream.strings), "payload_bytes": stream.payload_bytes}
        if isinstance(codec, LearnedCodec):
            precise = codec.reconstruct(stream).cpu()
            decoded = (precise * 255).round() / 255
            row |= {
                "constant_bytes": 0,
                "estimated_bytes": estimate_bits(codec.model, image) / 8,
                "psnr_float_db": _psnr_db(original, precise),
            }
        else:
            decoded = to_tensor(codec.decode(stream))
            row |= {"constant_bytes": codec.constant_bytes(stream.size)}
            row |= dict.fromkeys(("estimated_bytes", "psnr_float_db"), math.nan)
        similar = math.nan
        if min(image.shape[:2]) >= MS_SSIM_SIDE:
            similar = float(ms_ssim(original[None], decoded[None], data_range=1.0))
        rows.append(row | {"psnr_db": _psnr_db(original, decoded), "ms_ssim": similar})
    return pd.DataFrame(rows)


def _psnr_db(original: Tensor, decoded: Tensor) -> float:
    error = float((original.double() - decoded.double()).square().mean())
    return -10 * math.log10(error) if error else math.inf


def measure(
    codec: str, folder: Path, qualities: Sequence[int] | None = None, output: Path | None = None
) -> str:
    """:func:`evaluate` a codec of the catalog on all PNG files of a folder, and give the means as a table.

    Args:
        qualities: None for all that the catalog has.
        output: a CSV file for the rows of single images.

    Raises:
        UsageError: an unknown codec, or a folder without PNG files.
        ArtifactError: weights that are not here.
    """
    entry = coding.entry_of(codec)
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise UsageError(f"expected a folder with PNG files, got {folder} without any; name another one")
    parts = []
    for quality in qualities or coding.qualities(entry):
        opened = coding.open_codec(entry, quality)
        rows = evaluate(opened, ((path.stem, read_image(path)) for path in paths))
        parts.append(rows.assign(codec=codec, quality=quality))
    table = pd.concat(parts, ignore_index=True)
    if output:
        with atomic(output) as temporary:
            table.to_csv(temporary, index=False)
    means = table.groupby(["codec", "quality"])[["bpp", "psnr_db", "psnr_float_db", "ms_ssim"]].mean()
    return str(means.reset_index().to_string(index=False, float_format="%.4f"))
