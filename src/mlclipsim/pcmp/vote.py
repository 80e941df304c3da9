"""Let pretrained models vote: which of two images leaves a prediction closer to that on the reference?

``predict`` does all inference, each image through each network once, and stores every divergence; ``cast``
turns the stored divergences into votes and soft labels in seconds. The reference's own prediction is the
yardstick: ground truth calibrates the voters on clean images and enters no label.
"""

from __future__ import annotations

from collections import ChainMap, Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from mlclipsim.artifacts import ArtifactError, iterate_table, read_table, stream_table, write_table
from mlclipsim.datasets.references import StoredReferences
from mlclipsim.images import decode_batch, image_size
from mlclipsim.machines import Machine, load
from mlclipsim.pcmp.divergence import ALL_KINDS, abstains, compare, fit_temperature
from mlclipsim.pcmp.drops import Drops, drops_table
from mlclipsim.pcmp.labels import cast_votes, enough_votes, own_divergences, own_kinds, soft_labels

__all__ = ["cast", "predict"]

_CALIBRATION_ROLES = ("zoo_val", "pcmp_train")  # the first of which there are labelled references
_MOST_CALIBRATION = 2_000  # of them: more would not move a temperature, and all are held in memory
_HELD = 128  # references whose predictions stay at hand; images of one stand together, so one would do
_PAIRS = 8_192  # that are voted on at a time


def predict(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step: ``references``, ``images`` -> ``predictions`` (every divergence of every voter) and ``voters``.

    Images pass through in pieces, each together with the references that it is the first to need, so that
    memory does not grow with their number. Equal bytes need equal ``threads`` and ``batch_size``; other batch
    sizes move logits by rounding, about 1e-5.

    ``voters`` has each classifier's temperature, from labelled clean images, and its accuracy on those and
    on all labelled references whose images it read. With the input ``calibrated``, such a table of another
    run, its temperatures are used, and no ``voters`` are made: for references without labels.

    Raises:
        ValueError: a classifier, but no labelled reference to calibrate it on.
    """
    torch.set_num_threads(spec["threads"])
    machines = {name: load(name, entry) for name, entry in spec["voters"].items()}
    index = read_table(inputs["references"], "references", columns=["reference_id", "role", "label"])
    labels = dict(zip(index["reference_id"], index["label"], strict=True))
    stored = StoredReferences(inputs["references"])
    sample = _calibration_sample(index)
    clean = _on_sample(machines, stored, sample, spec["batch_size"])
    if "calibrated" in inputs:
        temperatures = _known_temperatures(inputs["calibrated"], list(machines))
    else:
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
    recent: dict[str, _Reference] = {}
    with (
        stream_table(outputs["predictions"], "predictions") as append,
        tqdm(total=pq.read_metadata(inputs["images"]).num_rows, desc="predict", unit="image") as progress,
    ):
        columns = ["image_id", "reference_id", "psnr_db", "image"]
        frames = iterate_table(inputs["images"], "images", columns, rows=spec["batch_size"])
        for frame in _of_one_size(frames):
            known = ChainMap(clean, recent)
            needed = [r for r in dict.fromkeys(frame["reference_id"]) if r not in known]
            recent |= {reference_id: _Reference(stored.get(reference_id), {}) for reference_id in needed}
            batch = decode_batch([*frame["image"], *(recent[reference_id].image for reference_id in needed)])
            here = {reference_id: known[reference_id] for reference_id in frame["reference_id"]}
            parts = []
            for name, machine in machines.items():
                seen = machine.preprocess(batch)
                answers = machine.predict(batch, seen)
                for reference_id, answer in zip(needed, answers[len(frame) :], strict=True):
                    recent[reference_id].answers[name] = answer
                part = _compared(
                    frame["image_id"],
                    name,
                    machine.task,
                    [here[reference_id].answers[name] for reference_id in frame["reference_id"]],
                    answers[: len(frame)],
                    np.array([labels[reference_id] for reference_id in frame["reference_id"]]),
                    temperatures[name],
                )
                resized = machine.resizes(*batch.shape[-2:])
                parts.append(
                    part.assign(
                        psnr_seen_db=_psnr_seen(machine, frame["reference_id"], here, seen[: len(frame)])
                        if resized
                        else frame["psnr_db"].to_numpy()
                    )
                )
            append(pd.concat(parts))
            accuracy.count(recent, needed)
            for reference_id in list(recent)[:-_HELD]:
                del recent[reference_id]
            progress.update(len(frame))
    if "voters" in outputs:
        write_table(outputs["voters"], _voters(spec["voters"], temperatures, accuracy), "voters")


def _known_temperatures(path: Path, voters: list[str]) -> dict[str, float]:
    temperatures = read_table(path, "voters").set_index("voter")["temperature"]
    missing = sorted(set(voters) - set(temperatures.index))
    if missing:
        raise ArtifactError(f"{path}: expected every voter, {missing} are not there; predict anew")
    return temperatures[voters].to_dict()


def _of_one_size(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same rows; images of other sizes come apart, since a batch is one tensor."""
    for frame in frames:
        sizes = np.array([image_size(data) for data in frame["image"]])
        for _, part in frame.groupby(np.unique(sizes, axis=0, return_inverse=True)[1].reshape(-1)):
            yield part


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
        answers = {name: machine.predict(batch) for name, machine in machines.items()}
        for place, (reference_id, image) in enumerate(part.items()):
            clean[reference_id] = _Reference(image, {name: all_[place] for name, all_ in answers.items()})
    return clean


def _psnr_seen(
    machine: Machine, reference_ids: pd.Series, references: dict[str, _Reference], seen: torch.Tensor
) -> np.ndarray:
    """PSNR in dB of preprocessed images against their references, preprocessed alike."""
    originals = machine.preprocess(decode_batch(reference.image for reference in references.values()))
    row_of = {reference_id: row for row, reference_id in enumerate(references)}
    errors = [
        (image - originals[row_of[reference_id]]).square_().mean()
        for image, reference_id in zip(seen, reference_ids, strict=True)
    ]
    return (-10 * torch.stack(errors).double().log10()).numpy()


def _voters(
    entries: dict[str, dict[str, Any]], temperatures: dict[str, float], accuracy: _Accuracy
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
        x = np.stack(x)
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


def cast(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step: ``pairs``, ``predictions``, ``voters`` -> ``votes``, ``labels`` and, where asked for, ``drops``.

    ``drops`` counts the pairs that lack votes in a group of voters: cause ``too_few_votes``, with ``fold``
    and ``group``.

    Raises:
        ValueError: a fold names a voter that made no predictions, or a family on both sides.
    """
    settings, folds = spec["votes"], spec["folds"]
    voters = read_table(inputs["voters"], "voters").set_index("voter")
    _check_folds(folds, voters)
    kinds = own_kinds(voters["task"], settings["divergence"])
    stored = _Divergences(inputs["predictions"], kinds)
    drops: dict[tuple[int, str], Drops] = defaultdict(Counter)
    with (
        stream_table(outputs["votes"], "votes") as append_votes,
        stream_table(outputs["labels"], "labels") as append_labels,
    ):
        for pairs in iterate_table(inputs["pairs"], "pairs", rows=_PAIRS):
            a, b = stored.of(pairs["image_a"], pairs["image_b"])
            votes = cast_votes(a, b, kinds, settings).set_axis(pairs["pair_id"])
            append_votes(votes.stack().rename_axis(["pair_id", "voter"]).rename("vote").reset_index())
            for number, fold in enumerate(folds):
                for group in ("seen", "held_out"):
                    found = soft_labels(votes[fold[group]], voters["family"], voters["task"])
                    enough = enough_votes(found, group, settings)
                    append_labels(found[enough].reset_index().assign(fold=number, group=group))
                    drops[number, group] += _few(pairs[~enough.to_numpy()])
    if "drops" in outputs:
        counted = [
            drops_table(few).assign(fold=number, group=group) for (number, group), few in drops.items()
        ]
        write_table(outputs["drops"], pd.concat(counted, ignore_index=True), "drops")


class _Divergences:
    """Stored divergences, by image and voter. Pairs stand in the order of images, so a window is enough."""

    def __init__(self, predictions: Path, kinds: pd.Series) -> None:
        """``kinds``: of divergence, by voter."""
        self._path, self._kinds = predictions, kinds
        columns = ["image_id", "voter", *kinds.unique()]
        self._pieces = iterate_table(predictions, "predictions", columns, rows=_PAIRS)
        self._window = pd.DataFrame({"image_id": [], "voter": [], "value": []})

    def of(self, *sides: pd.Series) -> list[pd.DataFrame]:
        """(images, voters) for each of ``sides``, which hold ids of images.

        Raises:
            ArtifactError: predictions of an image are not there, or not in the order of the pairs.
        """
        wanted = pd.unique(pd.concat(sides))
        while (self._window["image_id"].value_counts().reindex(wanted) != len(self._kinds)).any():
            piece = next(self._pieces, None)
            if piece is None:
                raise ArtifactError(f"{self._path}: lacks predictions on images of pairs; predict anew")
            piece = own_divergences(piece, self._kinds)
            self._window = pd.concat([self._window, piece]) if len(self._window) else piece
        first = self._window["image_id"].isin(wanted).to_numpy().argmax()
        self._window = self._window.iloc[first:]
        table = self._window.pivot(index="image_id", columns="voter", values="value")[self._kinds.index]
        return [table.reindex(side) for side in sides]


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
