"""Let pretrained models vote: which of two images leaves a prediction closer to that on the reference?

``predict`` does all inference, each image through each network once, and stores every divergence; ``cast``
turns the stored divergences into votes and soft labels in seconds. The reference's own prediction is the
yardstick: ground truth calibrates the voters on clean images and enters no label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from mlclipsim.artifacts import iterate_table, read_table, stream_table, write_table
from mlclipsim.images import decode_image, to_tensor
from mlclipsim.machines import Machine, load
from mlclipsim.pcmp.divergence import ALL_KINDS, OF_TASK, abstains, compare, fit_temperature, prefers
from mlclipsim.pcmp.drops import Drops, drops_table
from mlclipsim.pcmp.labels import enough_votes, soft_labels

__all__ = ["cast", "predict"]

_CALIBRATION_ROLES = ("zoo_val", "pcmp_train")  # the first of which there are labelled references


def predict(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step: ``references``, ``images`` -> ``predictions`` (every divergence of every voter) and ``voters``.

    Clean accuracy counts all labelled references that the classifiers read (roles ``pcmp_*`` and
    ``zoo_val``). Equal bytes need equal ``threads`` and ``batch_size``; other batch sizes move logits by
    rounding, about 1e-5.
    """
    torch.set_num_threads(spec["threads"])
    machines = {name: load(name, entry) for name, entry in spec["voters"].items()}
    references = read_table(inputs["references"], "references", columns=["reference_id", "role", "label"])
    read = references["role"].str.startswith("pcmp_") | (references["role"] == "zoo_val")
    references = references[read].reset_index(drop=True)
    clean, pixels = _on_references(machines, inputs["references"], references, spec["batch_size"])
    voters = _calibrated(spec["voters"], references, clean)
    write_table(outputs["voters"], voters, "voters")

    temperatures = dict(zip(voters["voter"], voters["temperature"], strict=True))
    row_of = {reference_id: row for row, reference_id in enumerate(references["reference_id"])}
    labels = references["label"].to_numpy()
    total = len(read_table(inputs["images"], "images", columns=["image_id"]))
    with (
        stream_table(outputs["predictions"], "predictions") as append,
        tqdm(total=total, desc="predict", unit="image") as progress,
    ):
        columns = ["image_id", "reference_id", "psnr_db", "image"]
        for frame in iterate_table(inputs["images"], "images", columns, rows=spec["batch_size"]):
            rows = np.array([row_of[reference_id] for reference_id in frame["reference_id"]])
            batch = _tensor(frame["image"])
            answers = {name: machine.predict(batch) for name, machine in machines.items()}
            append(
                pd.concat(
                    [
                        _compared(
                            frame["image_id"],
                            name,
                            machines[name].task,
                            _pick(clean[name], rows),
                            answer,
                            labels[rows],
                            temperatures[name],
                        ).assign(psnr_seen_db=_psnr_seen(machines[name], frame, batch, pixels))
                        for name, answer in answers.items()
                    ]
                )
            )
            progress.update(len(frame))


def _tensor(stored: Iterable[bytes]) -> torch.Tensor:
    return to_tensor(np.stack([decode_image(image) for image in stored]))


def _pick(predictions: Any, rows: np.ndarray) -> Any:
    """Those of ``rows``; boxes come as a list, everything else as an array."""
    return [predictions[row] for row in rows] if isinstance(predictions, list) else predictions[rows]


def _on_references(
    machines: dict[str, Machine], path: Path, wanted: pd.DataFrame, batch_size: int
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """voter -> predictions on the references of ``wanted``, in its order; and the stored pixels of those that
    are distorted, by id, if some voter resizes what it reads.
    """
    parts: dict[str, list[Any]] = {name: [] for name in machines}
    pixels: dict[str, bytes] = {}
    kept = set(wanted["reference_id"])
    distorted = set(wanted.loc[wanted["role"].str.startswith("pcmp_"), "reference_id"])
    with tqdm(total=len(wanted), desc="predict references", unit="image") as progress:
        for frame in iterate_table(path, "references", ["reference_id", "image"], rows=batch_size):
            frame = frame[frame["reference_id"].isin(kept)]
            if not len(frame):
                continue
            batch = _tensor(frame["image"])
            for name, machine in machines.items():
                parts[name].append(machine.predict(batch))
            if any(machine.resizes(*batch.shape[-2:]) for machine in machines.values()):
                frame = frame[frame["reference_id"].isin(distorted)]
                pixels |= dict(zip(frame["reference_id"], frame["image"], strict=True))
            progress.update(len(batch))
    together = {
        name: list(chain.from_iterable(part)) if isinstance(part[0], list) else np.concatenate(part)
        for name, part in parts.items()
    }
    return together, pixels


def _psnr_seen(
    machine: Machine, frame: pd.DataFrame, batch: torch.Tensor, pixels: dict[str, bytes]
) -> np.ndarray:
    """PSNR in dB of the images against their references, both as the machine's preprocessing leaves them."""
    if not machine.resizes(*batch.shape[-2:]):
        return frame["psnr_db"].to_numpy()
    ids, which = np.unique(frame["reference_id"].to_numpy(str), return_inverse=True)
    references = machine.preprocess(_tensor([pixels[reference_id] for reference_id in ids]))
    error = (machine.preprocess(batch) - references[torch.from_numpy(which)]).square().mean(dim=(1, 2, 3))
    return (-10 * error.double().log10()).numpy()


def _calibrated(
    entries: dict[str, dict[str, Any]], references: pd.DataFrame, clean: dict[str, Any]
) -> pd.DataFrame:
    labels = references["label"].to_numpy()
    labelled = labels >= 0
    for role in _CALIBRATION_ROLES:
        use = labelled & (references["role"] == role).to_numpy()
        if use.any():
            break
    rows = []
    for name, entry in entries.items():
        row = {
            "voter": name,
            "task": entry["task"],
            "family": entry["family"],
            "clean_accuracy": np.nan,
            "n_clean": 0,
            "temperature": np.nan,
            "sha256": entry.get("sha256") or "",
        }
        if entry["task"] == "classification":
            logits = clean[name]
            correct = logits[labelled].argmax(axis=1) == labels[labelled]
            row |= {
                "clean_accuracy": correct.mean() if len(correct) else np.nan,
                "n_clean": len(correct),
                "temperature": fit_temperature(logits[use], labels[use]),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def _compared(
    image_ids: pd.Series, voter: str, task: str, x: Any, y: Any, labels: np.ndarray, temperature: float
) -> pd.DataFrame:
    """The rows of ``predictions`` of one voter, but for what its preprocessing does."""
    right = dict.fromkeys(("correct", "reference_correct"), np.zeros(len(labels), bool))
    known = np.zeros(len(labels), bool)
    if task == "classification":
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
    pairs = read_table(inputs["pairs"], "pairs")
    rule = {key: settings[key] for key in ("tie_log", "epsilon", "tie_bounded")}
    of_task = OF_TASK | {"classification": settings["divergence"]}
    votes = pd.DataFrame(index=pairs["pair_id"], columns=voters.index, dtype=np.float64)
    for kind, names in voters.groupby(voters["task"].map(of_task)).groups.items():
        stored = read_table(inputs["predictions"], "predictions", columns=["image_id", "voter", kind])
        stored = stored[stored["voter"].isin(names)]
        table = stored.pivot(index="image_id", columns="voter", values=kind)[list(names)]
        a, b = (table.reindex(pairs[side]).to_numpy() for side in ("image_a", "image_b"))
        votes[list(names)] = prefers(a, b, kind=kind, **rule)  # NaN where one abstains
    long = votes.stack().rename_axis(["pair_id", "voter"]).rename("vote").reset_index()
    write_table(outputs["votes"], long, "votes")

    labels, drops = [], []
    for number, fold in enumerate(folds):
        for group in ("seen", "held_out"):
            label = soft_labels(votes[fold[group]], voters["family"], voters["task"])
            enough = enough_votes(label, group, settings)
            labels.append(label[enough].reset_index().assign(fold=number, group=group))
            drops.append(_few(pairs[~enough.to_numpy()]).assign(fold=number, group=group))
    write_table(outputs["labels"], pd.concat(labels, ignore_index=True), "labels")
    if "drops" in outputs:
        write_table(outputs["drops"], pd.concat(drops, ignore_index=True), "drops")


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


def _few(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs without enough votes, counted like other drops."""
    drops: Drops = Counter()
    for row in pairs.itertuples(index=False):
        one, other = sorted((row.family_a, row.family_b))
        drops[row.role, row.target_db, f"{one}+{other}", "too_few_votes"] += 1
    return drops_table(drops)
