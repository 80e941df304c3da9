"""Batches that are too large for memory; float32 that stays float32."""

from __future__ import annotations

import pytest
import torch

from mlclipsim.devices import Pieces, own_device


def sums(limit: int, calls: list[int]):
    """A network that has room for ``limit`` images."""

    def call(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        if len(images) > limit:
            raise torch.OutOfMemoryError("no room")
        return images.sum(1)

    return call


def test_what_fits_goes_through_whole():
    calls: list[int] = []
    (whole,) = Pieces().map(sums(8, calls), torch.ones(8, 3))
    assert calls == [8]
    assert whole.tolist() == [3.0] * 8


def test_the_size_is_halved_until_it_fits_and_kept():
    calls: list[int] = []
    pieces, images = Pieces(), torch.arange(10.0)[:, None]
    assert torch.cat(pieces.map(sums(3, calls), images)).tolist() == list(range(10))
    assert calls == [10, 5, 2, 2, 2, 2, 2]
    assert torch.cat(pieces.map(sums(3, calls), images)).tolist() == list(range(10))
    assert calls[7:] == [2] * 5
    assert pieces.map(len, ["a", "b", "c"]) == [2, 1]  # lists as well


def test_an_image_that_does_not_fit_alone_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        Pieces().map(sums(0, []), torch.ones(4, 3))


def test_no_rounding_to_tf32():
    own_device()
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
