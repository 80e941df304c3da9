"""table_9: who votes. Each voter's family, task, calibration and abstentions, and with whom it agrees."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import read_table
from mlclipsim.benchmarks import consensus
from mlclipsim.report.tables.writer import NOTHING, number, write

__all__ = ["make"]


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``table_9``: the voters and what they did -> csv ``voter, task, family, quantity, with, value``
    (tidy), md and tex (a row per voter, the agreement matrix on its right).

    Inputs: ``voters, predictions, votes, images, pairs``. Quantities: ``clean_accuracy`` and ``n_clean``;
    ``temperature``; ``references`` and ``references_abstained``; ``votes``, ``ties`` and ``abstentions``, all
    of pairs; ``psnr_db`` and ``psnr_seen_db``, means over images before and after the voter's preprocessing;
    ``residual_db`` and ``residual_seen_db``, the medians of the absolute difference within pairs, likewise;
    ``agreement`` ``with`` another voter, Krippendorff's alpha.
    """
    voters = read_table(inputs["voters"], "voters").set_index("voter")
    columns = ["image_id", "reference_id", "psnr_db"]
    images = read_table(inputs["images"], "images", columns=columns)
    predictions = read_table(
        inputs["predictions"], "predictions", columns=["image_id", "voter", "abstains", "psnr_seen_db"]
    ).merge(images, on="image_id")
    pairs = read_table(inputs["pairs"], "pairs")
    votes = read_table(inputs["votes"], "votes").pivot(index="pair_id", columns="voter", values="vote")
    rows = [
        (name, row["task"], row["family"], quantity, "", value)
        for name, row in voters.iterrows()
        for quantity, value in _of_voter(
            row, predictions[predictions["voter"] == name], votes[name].to_numpy(float), pairs
        )
    ]
    alpha = {
        frozenset(two): consensus.agreement(votes[list(two)].to_numpy(float))
        for two in combinations(voters.index, 2)
    }
    rows += [
        (name, voters.at[name, "task"], voters.at[name, "family"], "agreement", other,
         alpha[frozenset((name, other))])
        for name in voters.index for other in voters.index if other != name
    ]  # fmt: skip
    tidy = pd.DataFrame(rows, columns=["voter", "task", "family", "quantity", "with", "value"])
    tidy["value"] = tidy["value"].astype(float)
    notes = [
        "Accuracy: on clean references with a class label. T: temperature that calibrates the logits. "
        "Abstains: share of pairs without its vote, its prediction on the reference being empty. "
        "PSNR: mean over images after the voter's own preprocessing, before which it is "
        f"{number(images['psnr_db'].mean(), 2)} dB for all; residual: median absolute difference within "
        f"pairs, before it {number(_residual(pairs, images.set_index('image_id')['psnr_db']))} dB.",
        "On the right, Krippendorff's alpha of the votes of each two voters, numbered as the rows "
        f"({len(votes):,} pairs).",
    ]
    tasks = list(voters["task"])
    write(
        spec, outputs, tidy=tidy, printed=_pivot(tidy, voters), caption="The voters", name="table_9",
        notes=notes, rules=[n for n in range(1, len(tasks)) if tasks[n] != tasks[n - 1]],
    )  # fmt: skip


def _of_voter(
    voter: pd.Series, predictions: pd.DataFrame, votes: np.ndarray, pairs: pd.DataFrame
) -> Iterator[tuple[str, float]]:
    yield "clean_accuracy", voter["clean_accuracy"]
    yield "n_clean", voter["n_clean"]
    yield "temperature", voter["temperature"]
    references = predictions.groupby("reference_id")["abstains"].first()
    yield "references", len(references)
    yield "references_abstained", references.sum()
    yield "votes", np.isfinite(votes).sum()
    yield "ties", (votes == 0.5).sum()
    yield "abstentions", np.isnan(votes).sum()
    by_image = predictions.set_index("image_id")
    yield "psnr_db", by_image["psnr_db"].mean()
    yield "psnr_seen_db", by_image["psnr_seen_db"].mean()
    yield "residual_db", _residual(pairs, by_image["psnr_db"])
    yield "residual_seen_db", _residual(pairs, by_image["psnr_seen_db"])


def _residual(pairs: pd.DataFrame, psnr_db: pd.Series) -> float:
    return float((pairs["image_a"].map(psnr_db) - pairs["image_b"].map(psnr_db)).abs().median())


def _pivot(tidy: pd.DataFrame, voters: pd.DataFrame) -> pd.DataFrame:
    values = tidy.set_index(["voter", "quantity", "with"])["value"].to_dict()
    rows = []
    for place, name in enumerate(voters.index, start=1):
        own = {
            quantity: value
            for (voter, quantity, other), value in values.items()
            if (voter, other) == (name, "")
        }
        row = {
            "voter": f"{place} {name}",
            "task": voters.at[name, "task"],
            "family": voters.at[name, "family"],
            "accuracy": number(own["clean_accuracy"]),
            "T": number(own["temperature"], 2),
            "abstains": number(own["abstentions"] / (own["votes"] + own["abstentions"])),
            "PSNR (dB)": number(own["psnr_seen_db"], 2),
            "residual (dB)": number(own["residual_seen_db"]),
        }
        for column, other in enumerate(voters.index, start=1):
            row[str(column)] = NOTHING if other == name else number(values[name, "agreement", other], 2)
        rows.append(row)
    return pd.DataFrame(rows)
