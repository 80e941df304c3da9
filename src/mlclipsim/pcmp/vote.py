"""Let pretrained models vote: which of two images leaves a prediction closer to that on the reference?

``predict`` does all inference, each image through each network once, and stores every divergence; ``cast``
turns the stored divergences into votes and soft labels in seconds. The reference's own prediction is the
yardstick: ground truth calibrates the voters on clean images and enters no label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from mlclipsim.artifacts import (
    ArtifactError,
    iterate_row_groups,
    read_table,
    row_group_sizes,
    stream_table,
    write_table,
)
from mlclipsim.datasets.references import StoredReferences
from mlclipsim.devices import ahead, forward_passes, moved, own_device
from mlclipsim.images import decode_batch, image_size
from mlclipsim.machines import Machine, load
from mlclipsim.pcmp.divergence import ALL_KINDS, abstains, compare, fit_temperature
from mlclipsim.pcmp.drops import Drops, drops_table
from mlclipsim.pcmp.drops import add_up as add_up_drops
from mlclipsim.pcmp.labels import cast_votes, enough_votes, own_divergences, own_kinds, soft_labels
from mlclipsim.pcmp.voters import add_up
from mlclipsim.shards import WHOLE, Shard

__all__ = ["calibrate", "cast", "predict"]

_CALIBRATION_ROLES = ("zoo_val", "pcmp_train")  # the first of which there are labelled references
_MOST_CALIBRATION = 2_000  # of them: more would not move a temperature, and all are held in memory


def calibrate(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``temperatures``: ``references`` -> ``calibrated``, a table of ``voters``.

    Each classifier's temperature, from labelled clean images, and its accuracy on those: what ``predict``
    begins with, apart, so that many of its shards need it only once.

    Raises:
        ValueError: a classifier, but no labelled reference to calibrate it on.
    """
    torch.set_num_threads(spec["threads"])
    machines = _machines(spec["voters"], own_device())
    write_table(outputs["calibrated"], _calibrated(spec, machines, inputs["references"]), "voters")


def predict(
    spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path], shard: Shard = WHOLE
) -> None:
    """Step: ``references``, ``images`` -> ``predictions`` (every divergence of every voter) and ``voters``.

    Images pass through a row group at a time, together with their references, which no other row group has:
    memory does not grow with their number, and no row depends on other row groups. A row group of
    ``predictions`` is of the images in that of ``images``. Equal bytes need equal ``threads`` and
    ``batch_size``; other batch sizes move logits by rounding, about 1e-5.

    ``voters`` has each classifier's temperature, from labelled clean images, and its accuracy on those and
    on all labelled references whose images it read. With the input ``calibrated``, such a table of
    :func:`calibrate` or of another run, its temperatures are used.

    Raises:
        ValueError: a classifier, but no labelled reference to calibrate it on.
        ArtifactError: a voter that ``calibrated`` lacks.
    """
    torch.set_num_threads(spec["threads"])
    device = own_device()
    machines = _machines(spec["voters"], device)
    index = read_table(inputs["references"], "references", columns=["reference_id", "role", "label"])
    labels = dict(zip(index["reference_id"], index["label"], strict=True))
    stored = StoredReferences(inputs["references"])
    if "calibrated" in inputs:
        known = _read_calibrated(inputs["calibrated"], list(machines))
    else:
        known = _calibrated(spec, machines, inputs["references"])
    temperatures = known.set_index("voter")["temperature"]
    counted = set(_calibration_sample(index))
    accuracy = _Accuracy(machines, labels)
    sizes = row_group_sizes(inputs["images"], "images")
    mine = shard.of(len(sizes))
    columns = ["image_id", "reference_id", "psnr_db", "image"]
    with (
        stream_table(outputs["predictions"], "predictions") as append,
        tqdm(total=sum(sizes[number] for number in mine), desc="predict", unit="image") as progress,
    ):
        groups = iterate_row_groups(inputs["images"], "images", columns, numbers=mine)
        decoded = ahead(_decoded(groups, stored, spec["batch_size"]), device)
        for _, batches in groupby(decoded, key=lambda batch: batch.group):
            parts = []
            references: dict[str, _Reference] = {}
            for batch in batches:
                with forward_passes(device, spec.get("precision", "float32")):
                    parts += _predicted(machines, batch, references, labels, temperatures)
                progress.update(len(batch.frame))
            append(pd.concat(parts))
            accuracy.count(references, [name for name in references if name not in counted])
    if "voters" in outputs:
        read = _voters(spec["voters"], temperatures, accuracy)
        write_table(outputs["voters"], add_up([known, read] if shard.first else [read]), "voters")


def _decoded(groups: Iterable[pd.DataFrame], stored: StoredReferences, size: int) -> Iterator[_Batch]:
    """Batches of up to ``size`` images, and with those of a reference that is new in its row group, it."""
    for number, group in enumerate(groups):
        known: set[str] = set()
        for frame in _of_one_size(_batches(group, size)):
            new = {name: stored.get(name) for name in frame["reference_id"].unique() if name not in known}
            known |= set(new)
            yield _Batch(number, frame, new, decode_batch([*frame["image"], *new.values()]))


def _predicted(
    machines: dict[str, Machine],
    batch: _Batch,
    references: dict[str, _Reference],
    labels: dict[str, int],
    temperatures: pd.Series,
) -> list[pd.DataFrame]:
    """The rows of ``predictions`` of a batch, by voter. Its new references are added to ``references``."""
    frame = batch.frame
    references |= {name: _Reference(image, {}) for name, image in batch.new.items()}
    here = {name: references[name] for name in frame["reference_id"]}
    parts = []
    images = moved(batch.images, next(iter(machines.values())).device)
    for voter, machine in machines.items():
        seen = machine.preprocess(images)
        answers = machine.answers(images, seen)
        for name, answer in zip(batch.new, answers[len(frame) :], strict=True):
            references[name].answers[voter] = answer
        part = _compared(
            frame["image_id"],
            voter,
            machine.task,
            [here[name].answers[voter] for name in frame["reference_id"]],
            answers[: len(frame)],
            np.array([labels[name] for name in frame["reference_id"]]),
            float(temperatures[voter]),
        )
        resized = machine.resizes(*batch.images.shape[-2:])
        parts.append(
            part.assign(
                psnr_seen_db=_psnr_seen(machine, frame["reference_id"], here, seen[: len(frame)])
                if resized
                else frame["psnr_db"].to_numpy()
            )
        )
    return parts


def _machines(entries: dict[str, dict[str, Any]], device: torch.device) -> dict[str, Machine]:
    return {name: load(name, entry).to(device) for name, entry in entries.items()}


def _calibrated(spec: dict[str, Any], machines: dict[str, Machine], references: Path) -> pd.DataFrame:
    """The table ``voters`` over the labelled references that temperatures are fitted on."""
    index = read_table(references, "references", columns=["reference_id", "role", "label"])
    labels = dict(zip(index["reference_id"], index["label"], strict=True))
    sample = _calibration_sample(index)
    with forward_passes(next(iter(machines.values())).device, spec.get("precision", "float32")):
        clean = _on_sample(machines, StoredReferences(references), sample, spec["batch_size"])
    temperatures = {
        name: fit_temperature(
            np.array([clean[reference_id].answers[name] for reference_id in sample]),
            np.array([labels[reference_id] for reference_id in sample]),
        )
        if machine.task == "classification"
        else np.nan
        for name, machine in machines.items()
    }
    accuracy = _Accuracy(machines, labels)
    accuracy.count(clean, sample)
    return _voters(spec["voters"], temperatures, accuracy)


def _read_calibrated(path: Path, voters: list[str]) -> pd.DataFrame:
    known = read_table(path, "voters")
    missing = sorted(set(voters) - set(known["voter"]))
    if missing:
        raise ArtifactError(f"{path}: expected every voter, {missing} are not there; predict anew")
    return known


def _batches(frame: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    for start in range(0, len(frame), size):
        yield frame.iloc[start : start + size]


def _of_one_size(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same rows; images of other sizes come apart, since a batch is one tensor."""
    for frame in frames:
        sizes = np.array([image_size(data) for data in frame["image"]])
        for _, part in frame.groupby(np.unique(sizes, axis=0, return_inverse=True)[1].reshape(-1)):
            yield part


class _Batch(NamedTuple):
    """Images of one size, decoded, and the references among them that no earlier batch had."""

    group: int  # number of their row group, among those that are read
    frame: pd.DataFrame  # the rows of ``images``
    new: dict[str, bytes]  # references by id, as stored
    images: torch.Tensor  # (N + R, 3, H, W): of ``frame``, then ``new``


class _Reference(NamedTuple):
    """A reference and what the machines make of it."""

    image: bytes  # as stored
    answers: dict[str, Any]  # by voter


class _Accuracy:
    """Right answers of each classifier on clean references with a label."""

    def __init__(self, machines: dict[str, Machine], labels: dict[str, int]) -> None:
        self._labels = labels
        self.right = {name: 0 for name, machine in machines.items() if machine.task == "classification"}
        self.n = 0

    def count(self, references: Mapping[str, _Reference], reference_ids: Iterable[str]) -> None:
        for reference_id in reference_ids:
            label = self._labels[reference_id]
            if label >= 0:
                self.n += 1
                for name in self.right:
                    self.right[name] += int(references[reference_id].answers[name].argmax() == label)


def _calibration_sample(references: pd.DataFrame) -> list[str]:
    """Labelled references of the first role that has any."""
    labelled = references[references["label"] >= 0]
    for role in _CALIBRATION_ROLES:
        sample = labelled.loc[labelled["role"] == role, "reference_id"]
        if len(sample):
            return list(sample[:_MOST_CALIBRATION])
    return []


def _on_sample(
    machines: dict[str, Machine], stored: StoredReferences, sample: list[str], batch_size: int
) -> dict[str, _Reference]:
    """reference_id -> what the machines make of it."""
    clean: dict[str, _Reference] = {}
    for start in tqdm(range(0, len(sample), batch_size), desc="predict references", unit="batch"):
        part = {reference_id: stored.get(reference_id) for reference_id in sample[start : start + batch_size]}
        batch = decode_batch(part.values())
        answers = {name: machine.answers(batch) for name, machine in machines.items()}
        for place, (reference_id, image) in enumerate(part.items()):
            clean[reference_id] = _Reference(image, {name: all_[place] for name, all_ in answers.items()})
    return clean


def _psnr_seen(
    machine: Machine, reference_ids: pd.Series, references: dict[str, _Reference], seen: torch.Tensor
) -> np.ndarray:
    """PSNR in dB of preprocessed images against their references, preprocessed alike."""
    images = decode_batch(reference.image for reference in references.values())
    originals = machine.preprocess(images.to(machine.device))
    row_of = {reference_id: row for row, reference_id in enumerate(references)}
    errors = [
        (image - originals[row_of[reference_id]]).square_().mean()
        for image, reference_id in zip(seen, reference_ids, strict=True)
    ]
    return (-10 * torch.stack(errors).double().log10()).cpu().numpy()


def _voters(
    entries: dict[str, dict[str, Any]], temperatures: Mapping[str, float] | pd.Series, accuracy: _Accuracy
) -> pd.DataFrame:
    rows = []
    for name, entry in entries.items():
        n = accuracy.n if name in accuracy.right else 0
        rows.append(
            {
                "voter": name,
                "task": entry["task"],
                "family": entry["family"],
                "clean_accuracy": accuracy.right[name] / n if n else np.nan,
                "n_clean": n,
                "temperature": temperatures[name],
                "sha256": entry.get("sha256") or "",
            }
        )
    return pd.DataFrame(rows)


def _compared(
    image_ids: pd.Series, voter: str, task: str, x: Any, y: Any, labels: np.ndarray, temperature: float
) -> pd.DataFrame:
    """The rows of ``predictions`` of one voter, but for what its preprocessing does."""
    right = dict.fromkeys(("correct", "reference_correct"), np.zeros(len(labels), bool))
    known = np.zeros(len(labels), bool)
    if task == "classification":
        x, y = np.stack(x), np.stack(y)
        known = labels >= 0
        right = {"correct": y.argmax(axis=1) == labels, "reference_correct": x.argmax(axis=1) == labels}
    return pd.DataFrame(
        {
            "image_id": image_ids.to_numpy(),
            "voter": voter,
            **dict.fromkeys(ALL_KINDS, np.nan),
            **compare(task, x, y, temperature),
            "abstains": [abstains(task, prediction) for prediction in x],
            **{key: pd.Series(value).astype("boolean").mask(~known) for key, value in right.items()},
        }
    )


def cast(
    spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path], shard: Shard = WHOLE
) -> None:
    """Step: ``pairs``, ``predictions``, ``voters`` -> ``votes``, ``labels`` and, where asked for, ``drops``.

    ``drops`` counts the pairs that lack votes in a group of voters: cause ``too_few_votes``, with ``fold``
    and ``group``. ``pairs`` and ``predictions`` are read side by side, a row group at a time.

    Raises:
        ValueError: a fold names a voter that made no predictions, or a family on both sides.
        ArtifactError: predictions of an image are not there, or not in the row group of its pairs.
    """
    settings, folds = spec["votes"], spec["folds"]
    voters = read_table(inputs["voters"], "voters").set_index("voter")
    _check_folds(folds, voters)
    kinds = own_kinds(voters["task"], settings["divergence"])
    groups = ("seen", "held_out")
    drops: dict[tuple[int, str], Drops] = {
        (number, group): Counter() for number in range(len(folds)) for group in groups
    }
    with (
        stream_table(outputs["votes"], "votes") as append_votes,
        stream_table(outputs["labels"], "labels") as append_labels,
    ):
        for pairs, a, b in _divergences_of_pairs(inputs["pairs"], inputs["predictions"], kinds, shard):
            votes = cast_votes(a, b, kinds, settings).set_axis(pairs["pair_id"])
            append_votes(votes.stack().rename_axis(["pair_id", "voter"]).rename("vote").reset_index())
            for number, fold in enumerate(folds):
                for group in groups:
                    found = soft_labels(votes[fold[group]], voters["family"], voters["task"])
                    enough = enough_votes(found, group, settings)
                    append_labels(found[enough].reset_index().assign(fold=number, group=group))
                    drops[number, group] += _few(pairs[~enough.to_numpy()])
    if "drops" in outputs:
        counted = [
            drops_table(few).assign(fold=number, group=group) for (number, group), few in drops.items()
        ]
        write_table(outputs["drops"], add_up_drops(counted), "drops")


def _divergences_of_pairs(
    pairs: Path, predictions: Path, kinds: pd.Series, shard: Shard
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]]:
    """Pairs, some at a time, with the stored divergences of image A and of image B, a column per voter.

    ``kinds``: of divergence, by voter.
    """
    counts = {len(row_group_sizes(pairs, "pairs")), len(row_group_sizes(predictions, "predictions"))}
    if len(counts) > 1:
        raise ArtifactError(f"{predictions}: predictions are not of the images of {pairs}; predict anew")
    mine = shard.of(counts.pop())
    columns = ["image_id", "voter", *kinds.unique()]
    together = zip(
        iterate_row_groups(pairs, "pairs", numbers=mine),
        iterate_row_groups(predictions, "predictions", columns, numbers=mine),
        strict=True,
    )
    for some, stored in together:
        wanted = pd.unique(pd.concat([some["image_a"], some["image_b"]]))
        if (stored["image_id"].value_counts().reindex(wanted) != len(kinds)).any():
            raise ArtifactError(f"{predictions}: lacks predictions on images of pairs; predict anew")
        if len(some):
            long = own_divergences(stored, kinds)
            table = long.pivot(index="image_id", columns="voter", values="value")[kinds.index]
            yield some, table.reindex(some["image_a"]), table.reindex(some["image_b"])


def _check_folds(folds: list[dict[str, list[str]]], voters: pd.DataFrame) -> None:
    for number, fold in enumerate(folds):
        unknown = sorted({*fold["seen"], *fold["held_out"]} - set(voters.index))
        if unknown:
            raise ValueError(
                f"folds[{number}] names {unknown}, but predictions are of {list(voters.index)}; predict anew"
            )
        shared = set(voters["family"][fold["seen"]]) & set(voters["family"][fold["held_out"]])
        if shared:
            raise ValueError(
                f"folds[{number}]: expected disjoint families, but {sorted(shared)} are both in seen and "
                "held_out; let each stand on one side only"
            )


def _few(pairs: pd.DataFrame) -> Drops:
    """Pairs without enough votes, counted like other drops."""
    drops: Drops = Counter()
    for row in pairs.itertuples(index=False):
        one, other = sorted((row.family_a, row.family_b))
        drops[row.role, row.target_db, f"{one}+{other}", "too_few_votes"] += 1
    return drops
