"""What machines still read in a decoded image: each against its own prediction on the original.

The *consistency* of one image is 1 where the prediction stayed as it was, 0 where nothing of it is left, and
larger is better in every task:

- classification: ``exp(-KL(p(original) || p(decoded)))``, in (0, 1], with calibrated probabilities. The
  divergence itself has no bound: its mean over images would be that over the few worst. The square root of
  ``1 - exp(-KL)`` bounds the total variation (Bretagnolle and Huber, 1979).
- detection: F1 of the boxes matched one to one (:func:`mlclipsim.pcmp.divergence.box_f1`)
- segmentation: mean IoU of the label maps (:func:`mlclipsim.pcmp.divergence.mean_iou`)

A machine that reads nothing in the original abstains on that image: NaN, whatever the codec.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import ArtifactError, read_table
from mlclipsim.images import to_tensor
from mlclipsim.machines import Machine, load
from mlclipsim.pcmp.divergence import OF_TASK, compare

__all__ = ["Judge", "consistency", "load_judges"]


def consistency(task: str, originals: Any, decoded: Any, temperature: float = 1.0) -> pd.DataFrame:
    """How much of its predictions on originals a machine repeats on the decoded images.

    Args:
        originals, decoded: what ``Machine.predict`` gives, one per image.
        temperature: of a classifier's logits.

    Returns:
        ``score`` in [0, 1], NaN where the machine abstains, and ``top1``, 1 where the most likely class
        stayed, else 0; NaN where the task has no classes.
    """
    if task == "classification":
        originals, decoded = np.stack(originals), np.stack(decoded)
    moved = compare(task, originals, decoded, temperature)
    if task == "classification":
        return pd.DataFrame({"score": np.exp(-moved["kl"]), "top1": 1 - moved["top1"]})
    return pd.DataFrame({"score": 1 - moved[OF_TASK[task]], "top1": np.nan})


class Judge:
    """A machine that judges codecs: its predictions on the originals are made once and kept.

    Args:
        temperature: of a classifier's logits; other tasks have none.
        originals: uint8 ``(H, W, 3)`` each; neighbours of one size go through the machine together.
        batch_size: images per forward pass.
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        temperature: float,
        originals: Sequence[np.ndarray],
        batch_size: int,
    ) -> None:
        self.name, self.task = name, machine.task
        self._machine, self._temperature, self._batch_size = machine, temperature, batch_size
        self.originals = self.predict(originals)

    def predict(self, images: Sequence[np.ndarray]) -> list[Any]:
        """The machine's prediction on each image: logits, boxes or a label map."""
        return [
            answer
            for batch in _batches(images, self._batch_size)
            for answer in self._machine.answers(to_tensor(batch))
        ]

    def consistency(self, predictions: Sequence[Any]) -> pd.DataFrame:
        """Of the predictions on decoded images, in the order of the originals; see :func:`consistency`."""
        return consistency(self.task, self.originals, predictions, self._temperature)


def _batches(images: Sequence[np.ndarray], size: int) -> Iterator[np.ndarray]:
    for _, alike in groupby(images, key=np.shape):
        together = list(alike)
        for start in range(0, len(together), size):
            yield np.stack(together[start : start + size])


def load_judges(
    entries: dict[str, dict[str, Any]],
    voters: Path,
    originals: Sequence[np.ndarray],
    batch_size: int,
    tasks: Sequence[str],
) -> list[Judge]:
    """The judges of ``tasks`` among catalog entries, each having seen the originals.

    Args:
        voters: the table with the temperatures of classifiers, which were fitted when they voted.

    Raises:
        ArtifactError: a classifier without a temperature there; or as :func:`mlclipsim.machines.load`.
    """
    temperatures = read_table(voters, "voters").set_index("voter")["temperature"]
    judges = []
    for name, entry in entries.items():
        if entry["task"] not in tasks:
            continue
        if entry["task"] == "classification" and name not in temperatures.index:
            raise ArtifactError(
                f"{voters}: expected the temperature of the judge {name!r}, found that of "
                f"{', '.join(temperatures.index)}; let it vote in one of the folds, or take another judge"
            )
        temperature = float(temperatures.get(name, np.nan))
        judges.append(Judge(name, load(name, entry), temperature, originals, batch_size))
    return judges
