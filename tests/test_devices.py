"""Batches that are too large for memory; images that are made ahead; float32 that stays float32."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from mlclipsim.devices import Pieces, ahead, forward_passes, moved, own_device

CPU, GPU = torch.device("cpu"), torch.device("cuda")


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


@pytest.mark.parametrize("device", [CPU, GPU])
def test_items_come_in_their_order(device: torch.device):
    assert list(ahead(range(20), device)) == list(range(20))
    assert list(ahead([], device)) == []


def test_a_gpu_finds_the_next_item_made_and_one_only():
    made = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    for number in (coming := ahead(items(), GPU)):
        if number + 1 < len(made):
            assert made[number + 1].wait(10)  # while this one is worked on
        assert not any(event.is_set() for event in made[number + 2 :])
        if number == 2:
            coming.close()  # a caller may stop early


def test_a_processor_makes_each_item_when_its_turn_comes():
    made: list[int] = []
    coming = ahead((made.append(number) or number for number in range(3)), CPU)
    assert (next(coming), made) == (0, [0])
    assert (next(coming), made) == (1, [0, 1])


@pytest.mark.parametrize("device", [CPU, GPU])
def test_an_error_comes_in_its_items_place(device: torch.device):
    def items() -> Iterator[int]:
        yield 0
        raise OSError("image 1 is damaged")

    seen = []
    with pytest.raises(OSError, match="image 1 is damaged"):  # noqa: PT012
        for item in ahead(items(), device):
            seen.append(item)
    assert seen == [0]


def test_forward_passes_in_bfloat16_where_asked_for():
    layer = torch.nn.Linear(8, 8)
    for precision, expected in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with forward_passes(CPU, precision):
            assert layer(torch.ones(1, 8)).dtype == expected
    with pytest.raises(ValueError, match="expected float32 or bfloat16 as precision, got 'half'"):
        forward_passes(CPU, "half")


def test_images_move_to_the_device_unchanged():
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(moved(images, own_device()).cpu(), images)
