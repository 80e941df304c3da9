"""Images in and out: files, stored bytes, arrays, tensors, and the one resize that everything uses.

Two forms only: uint8 RGB arrays ``(H, W, 3)`` (what is stored, distorted and compared) and float RGB
tensors ``(N, 3, H, W)`` in [0, 1] (what networks take). torch is imported where a tensor is asked for, so
that matching and plotting, which need only the first form, start without it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from mlclipsim.atomic import atomic

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "ImageError",
    "check_array",
    "check_images",
    "decode_batch",
    "decode_image",
    "encode_image",
    "image_size",
    "read_image",
    "resize",
    "to_tensor",
    "to_uint8",
    "write_png",
]

MIN_SIDE = 16  # pixels; below this neither a CLIP tower nor SSIM's window has anything to look at
MAX_PIXELS = 2**26  # 200 MB as RGB; a small file that says it holds more is a mistake or a bomb


class ImageError(ValueError):
    """A file or byte string that cannot serve as an image, and why."""


def read_image(path: str | PathLike[str]) -> np.ndarray:
    """Read an image file as 8-bit RGB.

    Grey, bilevel and palette images become RGB (no information is lost); an alpha channel is dropped where it
    is opaque everywhere. Everything else would need a decision that is not ours and is refused: transparency
    (which background?), CMYK and other colour spaces (which profile?), 16-bit or float greys (which range?).
    Pixels stay as stored: no EXIF rotation, no colour management, as usual for ImageNet and COCO.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        ImageError: missing or unreadable file, not an image, truncated, a refused mode, under 16 pixels
            on a side, or more than :data:`MAX_PIXELS` in all.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: expected an image file, found none; check the path") from None
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror}); check that it is a file you may read"
        ) from None
    return _decode(data, str(path))


def check_array(image: np.ndarray) -> np.ndarray:
    """``image`` if it is a uint8 array ``(H, W, 3)``.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        seen = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"expected a uint8 array (H, W, 3), got {seen}; use to_uint8() on float tensors")
    return image


def encode_image(image: np.ndarray) -> bytes:
    """Lossless WebP of a uint8 ``(H, W, 3)`` array; the same array gives the same bytes."""
    buffer = io.BytesIO()
    # Without loss, quality and method are effort, not fidelity: the least effort costs a few percent in size.
    Image.fromarray(check_array(image)).save(buffer, "WEBP", lossless=True, quality=0, method=0, exact=True)
    return buffer.getvalue()


def write_png(path: str | PathLike[str], image: np.ndarray) -> None:
    """Write a uint8 ``(H, W, 3)`` array as PNG, whole or not at all.

    Raises:
        ImageError: the file cannot be written there.
    """
    try:
        with atomic(Path(path)) as temporary:
            Image.fromarray(image).save(temporary, "PNG")
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def decode_image(data: bytes) -> np.ndarray:
    """The uint8 ``(H, W, 3)`` array in the bytes of an image file, be it of :func:`encode_image` or not.

    Raises:
        ImageError: as :func:`read_image`.
    """
    return _decode(data, "image bytes")


def image_size(data: bytes, form: str | None = None) -> tuple[int, int]:
    """(height, width) of an image's bytes, from its header.

    Args:
        form: the only format to accept, by Pillow's name.

    Raises:
        ImageError: no such header.
    """
    try:
        with warnings.catch_warnings():  # of sizes that would not fit in memory: nothing is decoded here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=[form] if form else None) as image:
                return image.height, image.width
    except Exception as error:  # see _decode
        kind = form or "any format"
        raise ImageError(f"image bytes: no sound header of {kind} ({error}); make it again") from None


def _decode(data: bytes, name: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its remarks on metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                image.load()
                rgb = _as_rgb(image, name)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"{name}: its header says more than {MAX_PIXELS / 1e6:.0f} million pixels, the most that is "
            "read; cut the image up"
        ) from None
    except UnidentifiedImageError:
        size = f"{len(data)} bytes of another kind" if data else "an empty file"
        raise ImageError(f"{name}: not an image (expected JPEG, PNG, WebP, ..., got {size})") from None
    except Exception as error:  # Pillow's readers fail on damaged files in as many ways as there are
        raise ImageError(f"{name}: truncated or damaged image ({error}); fetch or make it again") from None
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"{name}: {width}x{height} pixels, expected at least {MIN_SIDE} on each side")
    return rgb


def _as_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode not in {"RGB", "L", "1", "P", "RGBA", "LA", "PA", "RGBX"}:
        raise ImageError(f"{name}: mode {image.mode}, expected 8-bit RGB or grey; convert it to RGB first")
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            raise ImageError(
                f"{name}: mode {image.mode} with transparent pixels, expected an opaque image; "
                "flatten it on a background"
            )
    return np.array(image.convert("RGB"))


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 ``(H, W, 3)`` or ``(N, H, W, 3)`` to float32 ``(3, H, W)`` or ``(N, 3, H, W)`` in [0, 1]."""
    import torch

    if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise TypeError(f"expected a uint8 array (H, W, 3) or (N, H, W, 3), got {image.dtype} {image.shape}")
    channels_first = np.ascontiguousarray(np.moveaxis(image, -1, -3))
    return torch.from_numpy(channels_first).float() / 255


def decode_batch(stored: Iterable[bytes]) -> Tensor:
    """Stored images of one size as float32 ``(N, 3, H, W)`` in [0, 1].

    Raises:
        ImageError: as :func:`read_image`.
    """
    return to_tensor(np.stack([decode_image(data) for data in stored]))


def to_uint8(images: Tensor) -> np.ndarray:
    """Float ``([N,] 3, H, W)`` to uint8 ``([N,] H, W, 3)``, rounded to the nearest and clipped to [0, 1]."""
    rounded = (images.detach().float().clamp(0, 1) * 255).round().byte()
    return np.ascontiguousarray(np.moveaxis(rounded.cpu().numpy(), -3, -1))


def check_images(images: Tensor, name: str = "images") -> Tensor:
    """Float RGB in [0, 1], ``(N, 3, H, W)``, or one sentence that says what came instead and how to mend it.

    uint8 tensors of that shape are accepted and divided by 255. Under ``torch.compile``, which cannot branch
    on values, the range is not checked.

    Raises:
        TypeError: not a tensor, or an integer one that is not uint8.
        ValueError: another shape, under 16 pixels, values outside [0, 1] or not finite.
    """
    import torch

    if not isinstance(images, torch.Tensor):
        raise TypeError(
            f"{name}: expected a tensor (N, 3, H, W), got {type(images).__name__}; use images.to_tensor"
        )
    shape = tuple(images.shape)
    if images.ndim == 3 and shape[0] == 3:
        raise ValueError(
            f"{name}: expected (N, 3, H, W), got one image {shape}; add a batch axis with images[None]"
        )
    if images.ndim == 4 and shape[1] != 3 and shape[3] == 3:
        raise ValueError(
            f"{name}: expected (N, 3, H, W), got {shape}, channels last; use images.permute(0, 3, 1, 2)"
        )
    if images.ndim == 4 and shape[1] == 1:
        raise ValueError(f"{name}: expected 3 channels, got {shape}, grey; use images.expand(-1, 3, -1, -1)")
    if images.ndim != 4 or shape[1] != 3:
        raise ValueError(f"{name}: expected (N, 3, H, W) in RGB, got {shape}")
    if shape[0] == 0 or min(shape[2:]) < MIN_SIDE:
        raise ValueError(f"{name}: expected at least one image of {MIN_SIDE}x{MIN_SIDE} pixels, got {shape}")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise TypeError(f"{name}: expected float in [0, 1] or uint8, got {images.dtype}")
    if torch.compiler.is_compiling():
        return images
    low, high = (float(bound) for bound in images.detach().aminmax())
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        if low != low or high != high or high - low == float("inf"):
            mend = "it holds NaN or infinity; find out where they come from"
        elif low >= 0 and high <= 255 and high > 2:
            mend = "it looks like 0..255; divide by 255"
        elif low >= -1.01 and high <= 1.01:
            mend = "if it was scaled to [-1, 1], use (images + 1) / 2; if it overshoots, images.clamp(0, 1)"
        else:
            mend = "undo mean/std normalisation (the encoder does its own), or clamp(0, 1) what overshoots"
        raise ValueError(f"{name}: expected values in [0, 1], got [{low:.4g}, {high:.4g}]; {mend}")
    return images


def resize(images: Tensor, size: int, *, crop: bool = True) -> Tensor:
    """Shorter side to ``size`` by antialiased bicubic interpolation, then the central square.

    Differentiable. Pillow's BICUBIC: the same kernel (a = -0.5, widened when shrinking), columns before
    rows, overshoot clipped to [0, 1] after each pass; but no rounding to 8 bit. They agree to 1.5/255.
    An image of the right size comes back untouched.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1].
        size: pixels.
        crop: False leaves the longer side whole.
    """
    import torch.nn.functional as F

    height, width = images.shape[-2:]
    short, long = sorted((height, width))
    if short != size:
        longer = int(size * long / short)  # torchvision's rounding, so that crops agree with its transforms
        rows, columns = (size, longer) if height <= width else (longer, size)
        for shape in ((height, columns), (rows, columns)):
            images = F.interpolate(images, size=shape, mode="bicubic", antialias=True).clamp(0, 1)
    if crop:
        top, left = (round((side - size) / 2) for side in images.shape[-2:])
        images = images[..., top : top + size, left : left + size]
    return images
