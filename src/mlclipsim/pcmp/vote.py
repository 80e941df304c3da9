"""Let pretrained models vote: which of two images leaves a prediction closer to that on the reference?

``predict`` does all inference, each image through each network once, and stores every divergence; ``cast``
turns the stored divergences into votes and soft labels in seconds. The reference's own prediction is the
yardstick: ground truth calibrates the voters on clean images and enters no label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from mlclipsim.artifacts import iterate_table, read_table, stream_table, write_table
from mlclipsim.images import decode_image, to_tensor
from mlclipsim.machines import Classifier, load
from mlclipsim.pcmp.divergence import divergences, fit_temperature, prefers
from mlclipsim.pcmp.drops import Drops, drops_table

__all__ = ["cast", "predict", "soft_labels"]

_CALIBRATION_ROLES = ("zoo_val", "pcmp_train")  # the first of which there are labelled references


def predict(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step: ``references``, ``images`` -> ``predictions`` (every divergence of every voter) and ``voters``.

    Clean accuracy counts all labelled references that the voters read (roles ``pcmp_*`` and ``zoo_val``).
    Equal bytes need equal ``threads`` and ``batch_size``; other batch sizes move logits by rounding, about
    1e-5.
    """
    torch.set_num_threads(spec["threads"])
    machines = {name: load(name, entry) for name, entry in spec["voters"].items()}
    references = read_table(inputs["references"], "references", columns=["reference_id", "role", "label"])
    read = references["role"].str.startswith("pcmp_") | (references["role"] == "zoo_val")
    references = references[read].reset_index(drop=True)
    clean = _reference_logits(machines, inputs["references"], references, spec["batch_size"])
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
        columns = ["image_id", "reference_id", "image"]
        for frame in iterate_table(inputs["images"], "images", columns, rows=spec["batch_size"]):
            rows = np.array([row_of[reference_id] for reference_id in frame["reference_id"]])
            batch = _tensor(frame["image"])
            answers = {name: _logits(machine, batch) for name, machine in machines.items()}
            append(
                pd.concat(
                    [
                        _compared(
                            frame["image_id"],
                            name,
                            clean[name][rows],
                            logits,
                            labels[rows],
                            temperatures[name],
                        )
                        for name, logits in answers.items()
                    ]
                )
            )
            progress.update(len(frame))


def _tensor(stored: pd.Series) -> torch.Tensor:
    return to_tensor(np.stack([decode_image(image) for image in stored]))


@torch.inference_mode()
def _logits(machine: Classifier, images: torch.Tensor) -> np.ndarray:
    return machine(images).numpy(force=True)


def _reference_logits(
    machines: dict[str, Classifier], path: Path, wanted: pd.DataFrame, batch_size: int
) -> dict[str, np.ndarray]:
    """voter -> logits (N, C) on the references of ``wanted``, in its order."""

    def batches() -> Iterator[pd.Series]:
        ids = set(wanted["reference_id"])
        for frame in iterate_table(path, "references", ["reference_id", "image"], rows=batch_size):
            kept = frame.loc[frame["reference_id"].isin(ids), "image"]
            if len(kept):
                yield kept

    parts: dict[str, list[np.ndarray]] = {name: [] for name in machines}
    with tqdm(total=len(wanted), desc="predict references", unit="image") as progress:
        for stored in batches():
            batch = _tensor(stored)
            for name, machine in machines.items():
                parts[name].append(_logits(machine, batch))
            progress.update(len(stored))
    return {name: np.concatenate(part) for name, part in parts.items()}


def _calibrated(
    entries: dict[str, dict[str, Any]], references: pd.DataFrame, logits: dict[str, np.ndarray]
) -> pd.DataFrame:
    labels = references["label"].to_numpy()
    labelled = labels >= 0
    for role in _CALIBRATION_ROLES:
        use = labelled & (references["role"] == role).to_numpy()
        if use.any():
            break
    rows = []
    for name, entry in entries.items():
        correct = logits[name][labelled].argmax(axis=1) == labels[labelled]
        rows.append(
            {
                "voter": name,
                "task": entry["task"],
                "family": entry["family"],
                "clean_accuracy": correct.mean() if len(correct) else np.nan,
                "n_clean": len(correct),
                "temperature": fit_temperature(logits[name][use], labels[use]),
                "sha256": entry.get("sha256") or "",
            }
        )
    return pd.DataFrame(rows)


def _compared(
    image_ids: pd.Series, voter: str, x: np.ndarray, y: np.ndarray, labels: np.ndarray, temperature: float
) -> pd.DataFrame:
    known = labels >= 0
    right = {"correct": y.argmax(axis=1) == labels, "reference_correct": x.argmax(axis=1) == labels}
    return pd.DataFrame(
        {
            "image_id": image_ids.to_numpy(),
            "voter": voter,
            **divergences(x, y, temperature),
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
    kind = settings["divergence"]
    stored = read_table(inputs["predictions"], "predictions", columns=["image_id", "voter", kind])
    table = stored.pivot(index="image_id", columns="voter", values=kind)[list(voters.index)]
    ballots = prefers(
        table.reindex(pairs["image_a"]).to_numpy(),
        table.reindex(pairs["image_b"]).to_numpy(),
        kind=kind,
        tie_log=settings["tie_log"],
        epsilon=settings["epsilon"],
        tie_bounded=settings["tie_bounded"],
    )  # (pairs, voters), NaN where one abstains
    votes = pd.DataFrame(ballots, index=pairs["pair_id"], columns=voters.index)
    long = votes.stack().rename_axis(["pair_id", "voter"]).rename("vote").reset_index()
    write_table(outputs["votes"], long, "votes")

    labels, drops = [], []
    for number, fold in enumerate(folds):
        for group in ("seen", "held_out"):
            label = soft_labels(votes[fold[group]], voters["family"], voters["task"])
            # The metric is fitted on `seen`, so those labels must not hang on one or two networks.
            least = settings["min_votes"] if group == "seen" else 1
            enough = (label["n_families"] >= settings["min_families"]) & (label["n_votes"] >= least)
            labels.append(label[enough].reset_index().assign(fold=number, group=group))
            drops.append(_few(pairs[~enough.to_numpy()]).assign(fold=number, group=group))
    write_table(outputs["labels"], pd.concat(labels, ignore_index=True), "labels")
    if "drops" in outputs:
        write_table(outputs["drops"], pd.concat(drops, ignore_index=True), "drops")


def soft_labels(votes: pd.DataFrame, families: pd.Series, tasks: pd.Series) -> pd.DataFrame:
    """Soft label: mean over tasks of the mean over architecture families of the mean over voters.

    So neither a task with many networks nor a family with many members outvotes the others. A voter that
    abstains (NaN) is left out; so is a family or task that has no other.

    Args:
        votes: (pairs, voters) in {0, 1/2, 1, NaN}.
        families, tasks: of each voter, by its name.

    Returns:
        per pair: ``label`` in [0, 1] (NaN without any vote), ``n_votes``, ``n_families``.
    """
    voters = votes.columns
    by_voter = votes.T
    by_family = by_voter.groupby([tasks[voters].to_numpy(), families[voters].to_numpy()]).mean()
    by_task = by_family.groupby(level=0).mean()
    families_heard = by_voter.groupby(families[voters].to_numpy()).count() > 0
    return pd.DataFrame(
        {
            "label": by_task.mean(),
            "n_votes": votes.notna().sum(axis=1),
            "n_families": families_heard.sum(),
        }
    )


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
