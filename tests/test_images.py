"""Reading, storing, checking and resizing images."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlclipsim.images import (
    ImageError,
    check_images,
    decode_image,
    encode_image,
    image_size,
    read_image,
    resize,
    to_tensor,
    to_uint8,
)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A photograph-like picture: waves, an edge and grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:150, :100]
    base = 120 + 80 * np.sin(x / 9 + y / 23) + 60 * (x > 60)
    colours = np.stack([base, base[::-1], 255 - base], axis=-1) + rng.normal(0, 6, (150, 100, 3))
    return colours.clip(0, 255).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_become_rgb(tmp_path: Path, picture: np.ndarray, mode: str) -> None:
    image = Image.fromarray(picture).convert(mode)
    read = read_image(saved(tmp_path / "x.png", image))
    assert read.shape == picture.shape
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, np.asarray(image.convert("RGB")))


def test_opaque_alpha_is_dropped_transparency_refused(tmp_path: Path, picture: np.ndarray) -> None:
    image = Image.fromarray(picture).convert("RGBA")
    np.testing.assert_array_equal(read_image(saved(tmp_path / "opaque.png", image)), picture)
    image.putpixel((3, 4), (1, 2, 3, 200))
    with pytest.raises(ImageError, match="transparent pixels, expected an opaque image; flatten"):
        read_image(saved(tmp_path / "clear.png", image))
    palette = Image.fromarray(picture).quantize(16)
    palette.info["transparency"] = int(np.asarray(palette)[0, 0])
    with pytest.raises(ImageError, match="transparent"):
        read_image(saved(tmp_path / "clear.gif", palette, transparency=palette.info["transparency"]))


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "jpg"), ("I;16", "png"), ("F", "tif"), ("LAB", "tif")])
def test_other_modes_are_refused(tmp_path: Path, picture: np.ndarray, mode: str, suffix: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(picture[..., 0].astype(np.uint16) * 257)
    elif mode == "LAB":
        image = Image.new("LAB", (32, 32))
    else:
        image = Image.fromarray(picture).convert(mode)
    with pytest.raises(ImageError, match=rf"mode {re.escape(mode)}, expected 8-bit RGB or grey"):
        read_image(saved(tmp_path / f"x.{suffix}", image))


def test_damaged_avif(picture: np.ndarray) -> None:
    """Pillow raises a RuntimeError for it, be the damage in the header or behind it."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "AVIF")
    data = bytearray(stream.getvalue())
    assert image_size(bytes(data), "AVIF") == picture.shape[:2]
    with pytest.raises(ImageError, match="no sound header of PNG"):
        image_size(bytes(data), "PNG")
    with pytest.raises(ImageError, match="no sound header of AVIF"):
        image_size(bytes(data).replace(b"iloc", b"ilox"), "AVIF")
    coded = data.index(b"mdat") + 4
    data[coded : coded + 8] = b"\xff" * 8
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode_image(bytes(data))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_truncated(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    path = saved(tmp_path / f"x.{suffix}", Image.fromarray(picture))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"x\..*truncated or damaged|x\..*not an image"):
        read_image(path)


def test_damaged_inside(tmp_path: Path, picture: np.ndarray) -> None:
    path = saved(tmp_path / "x.png", Image.fromarray(picture))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(ImageError, match="truncated or damaged"):
        read_image(path)


def test_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture at all, whatever the suffix says")
    with pytest.raises(ImageError, match=r"not an image .* 43 bytes of another kind"):
        read_image(tmp_path / "text.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"not an image .* an empty file"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(ImageError, match="expected an image file, found none"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)


def test_tiny(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="20x15 pixels, expected at least 16"):
        read_image(saved(tmp_path / "x.png", Image.new("RGB", (20, 15))))
    assert read_image(saved(tmp_path / "y.png", Image.new("RGB", (16, 16)))).shape == (16, 16, 3)


def test_storing_is_lossless_and_stable(picture: np.ndarray) -> None:
    data = encode_image(picture)
    np.testing.assert_array_equal(decode_image(data), picture)
    assert data == encode_image(picture.copy())
    assert Image.open(io.BytesIO(data)).format == "WEBP"
    black = np.zeros((16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(encode_image(black)), black)
    with pytest.raises(ImageError, match="image bytes: not an image"):
        decode_image(b"nothing")


@pytest.mark.parametrize(
    "wrong", [np.zeros((16, 16, 3)), np.zeros((16, 16), np.uint8), np.zeros((3, 16, 16), np.uint8), [[1]]]
)
def test_storing_refuses_other_arrays(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"expected a uint8 array \(H, W, 3\), got"):
        encode_image(wrong)  # type: ignore[arg-type]


def test_tensors_and_back(picture: np.ndarray) -> None:
    tensor = to_tensor(picture)
    assert tensor.shape == (3, 150, 100)
    assert tensor.dtype == torch.float32
    assert 0 <= tensor.min() <= tensor.max() <= 1
    assert tensor[1, 7, 5] == picture[7, 5, 1] / np.float32(255)
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(to_uint8(to_tensor(every)), every)
    np.testing.assert_array_equal(to_uint8(to_tensor(np.stack([picture, picture]))), [picture, picture])
    # rounded, not cut off, and clipped
    values = torch.tensor([-0.2, 0.4999 / 255, 0.5001 / 255, 1.7]).view(1, 2, 2).expand(3, -1, -1)
    assert to_uint8(values)[..., 0].ravel().tolist() == [0, 0, 1, 255]
    with pytest.raises(TypeError, match="expected a uint8 array"):
        to_tensor(picture / 255)


GOOD = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (lambda x: x.numpy(), TypeError, r"expected a tensor .* got ndarray; use images.to_tensor"),
        (lambda x: x[0], ValueError, r"got one image \(3, 16, 20\); add a batch axis"),
        (lambda x: x.permute(0, 2, 3, 1), ValueError, r"channels last; use images.permute\(0, 3, 1, 2\)"),
        (lambda x: x[:, :1], ValueError, r"grey; use images.expand"),
        (lambda x: x[:, :2], ValueError, r"expected \(N, 3, H, W\) in RGB, got \(2, 2, 16, 20\)"),
        (lambda x: x[:0], ValueError, r"at least one image"),
        (lambda x: x[..., :15], ValueError, r"16x16 pixels, got \(2, 3, 16, 15\)"),
        (lambda x: (x * 255).long(), TypeError, r"expected float in \[0, 1\] or uint8, got torch.int64"),
        (lambda x: x * 255, ValueError, r"looks like 0..255; divide by 255"),
        (lambda x: x * 2 - 1, ValueError, r"\(images \+ 1\) / 2"),
        (lambda x: (x - 0.45) / 0.22, ValueError, r"undo mean/std normalisation"),
        (lambda x: x + 0.01, ValueError, r"clamp\(0, 1\)"),
        (lambda x: x.log().where(x > 0.5, torch.nan), ValueError, r"NaN or infinity"),
    ],
)
def test_check_says_what_came_and_how_to_mend_it(
    wrong: Callable[[torch.Tensor], torch.Tensor], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^distorted: .*{message}"):
        check_images(wrong(GOOD), "distorted")


def test_check_accepts() -> None:
    assert check_images(GOOD) is GOOD
    assert check_images(GOOD.half()).dtype == torch.float16
    eight_bit = (GOOD * 255).round().byte()
    torch.testing.assert_close(check_images(eight_bit), GOOD, atol=0.5 / 255 + 1e-6, rtol=0)


@pytest.mark.parametrize("side", [32, 64, 99, 128, 200])
def test_resize_is_pillows(picture: np.ndarray, side: int) -> None:
    """Reference: Pillow's own BICUBIC on 8-bit pixels, which rounds twice; hence the tolerance of 1.5/255."""
    noise = np.random.default_rng(1).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    for image in (picture, picture.transpose(1, 0, 2), noise):
        ours = resize(to_tensor(image)[None], side, crop=False)[0]
        size = ours.shape[2], ours.shape[1]
        assert min(size) == side
        theirs = np.asarray(
            Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BICUBIC)
        )
        difference = np.abs(ours.permute(1, 2, 0).numpy() * 255 - theirs)
        assert difference.max() < 1.5
        assert difference.mean() < 0.4


def test_resize_crops_the_middle_and_leaves_the_right_size_alone(picture: np.ndarray) -> None:
    images = to_tensor(picture)[None]
    torch.testing.assert_close(resize(images, 100), images[..., 25:125, :])
    square = images[..., :100, :]
    assert torch.equal(resize(square, 100), square)
    assert resize(images, 48).shape == (1, 3, 48, 48)


def test_resize_is_differentiable(picture: np.ndarray) -> None:
    images = (to_tensor(picture)[None] * 0.8 + 0.1).requires_grad_()
    resize(images, 32).mean().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert (
        images.grad.abs().amax(dim=(0, 1)) > 0
    ).float().mean() > 0.6  # antialiased: all of the crop takes part
