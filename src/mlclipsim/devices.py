"""Where networks run, and how many images they take at a time there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["Pieces", "own_device"]

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
