"""Where networks run, in which precision, and how images come to them: in time, and as many as fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["Pieces", "ahead", "forward_passes", "moved", "own_device"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Batch = TypeVar("Batch", bound="Sequence[Any] | Tensor")


def own_device() -> torch.device:
    """The GPU where the process sees one, else the processor.

    On a GPU float32 then means float32: rounded to TF32, as cuDNN's convolutions are unless told otherwise,
    scores and logits would leave those of a processor by more than 1e-4.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def forward_passes(device: torch.device, precision: str) -> torch.autocast:
    """A context for forward passes in ``float32`` or ``bfloat16``, which GPUs are made for.

    Parameters stay in float32, and so do cosines and divergences, which are computed outside of networks. In
    bfloat16, similarities move by up to 1e-2 (docs/scale.md).

    Raises:
        ValueError: another precision.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"expected float32 or bfloat16 as precision, got {precision!r}")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def moved(images: Tensor, device: torch.device) -> Tensor:
    """``images`` on a device; to a GPU from pinned memory, so that nobody waits for the copy."""
    if device.type != "cuda":
        return images.to(device)
    return images.pin_memory().to(device, non_blocking=True)


def ahead(items: Iterable[Item], device: torch.device) -> Iterator[Item]:
    """The same items, each made while the caller works on the one before, so that a GPU need not wait for
    images to be decoded. On a processor they are made when their turn comes, since a job keeps to the
    threads that it was given.

    One item is held beside the caller's. An error comes in its item's place.
    """
    if device.type == "cpu":
        yield from items
        return
    coming = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as thread:
        item = thread.submit(next, coming, end)
        while (made := item.result()) is not end:
            item = thread.submit(next, coming, end)
            yield made  # type: ignore[misc]


class Pieces:
    """Calls on batches, each in as many pieces as fit into memory.

    A piece that does not fit is halved, and later batches begin with the size that was found. Batches that
    fit go through whole, so nothing depends on this class where memory suffices.

    Attributes:
        size: images at a time; None until memory ran out.
    """

    def __init__(self) -> None:
        self.size: int | None = None

    def map(self, call: Callable[[Batch], Result], batch: Batch) -> list[Result]:
        """``call`` on successive pieces of ``batch``, which is cut along its first axis.

        Raises:
            torch.OutOfMemoryError: a single image is too large.
        """
        results: list[Result] = []
        start = 0
        while start < len(batch):
            size = min(self.size or len(batch), len(batch) - start)
            try:
                results.append(call(batch[start : start + size]))  # type: ignore[arg-type]
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self.size = size // 2
            else:
                start += size
        return results
