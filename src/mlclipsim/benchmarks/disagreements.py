"""Where the metric and the machines disagree most: a few pairs to look at, with who sided with whom and where
the encoder saw a difference.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from PIL import Image
from scipy.special import expit

from mlclipsim import heatmap
from mlclipsim.artifacts import ArtifactError, read_json, read_table, write_table
from mlclipsim.benchmarks.consensus import preference
from mlclipsim.images import decode_batch
from mlclipsim.metric import MLCLIPSim
from mlclipsim.similarities import load_entry

__all__ = ["choose", "find"]

GROUPS = ("held_out", "seen")


def find(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``disagreements``: references, images, pairs, labels, votes, scores (a list), weights
    [, ``checkpoint``] -> ``disagreements`` (the pairs, with their images and maps) and ``sides``.

    Args:
        spec: ``page`` with ``disagreements``, how many pairs; ``benchmark`` with ``roles``; ``folds``;
            ``encoder``: {``name``, ``entry``}; ``threads``.
        inputs: ``checkpoint`` is the network that another step made, for encoders of source ``lit``.

    Raises:
        ArtifactError: no pair of these roles has a label of held-out voters.
    """
    torch.set_num_threads(int(spec["threads"]))
    pairs = read_table(inputs["pairs"], "pairs")
    scores = pd.concat([read_table(path, "scores") for path in inputs["scores"]], ignore_index=True)
    judged = _judged(pairs[pairs["role"].isin(spec["benchmark"]["roles"])], inputs, scores)
    chosen = choose(judged, int(spec["page"]["disagreements"]))
    frame = chosen.join(_pictures(spec, inputs, chosen))
    write_table(outputs["disagreements"], frame, "disagreements")
    write_table(outputs["sides"], _sides(chosen, spec["folds"], inputs["votes"], scores), "sides")


def _judged(pairs: pd.DataFrame, inputs: dict[str, Any], scores: pd.DataFrame) -> pd.DataFrame:
    """Every (pair, fold) with the machines' labels and what the fold's metric expects of them."""
    labels = read_table(inputs["labels"], "labels").pivot(
        index=["pair_id", "fold"], columns="group", values="label"
    )
    labels = labels.reindex(columns=list(GROUPS)).add_prefix("label_").dropna(subset="label_held_out")
    judged = pairs.merge(labels.reset_index(), on="pair_id")
    if judged.empty:
        raise ArtifactError("expected pairs that held-out voters labelled, got none; check benchmark.roles")
    parts = []
    for fitted in read_json(inputs["weights"])["folds"]:
        part = judged[judged["fold"] == fitted["fold"]]
        mine = scores[(scores["metric"] == "ml_clipsim") & (scores["variant"] == f"fold_{fitted['fold']}")]
        by_image = mine.set_index("image_id")["score"]
        sides = {f"score_{side}": part[f"image_{side}"].map(by_image) for side in "ab"}
        margin = (sides["score_a"] - sides["score_b"]) / fitted["tau"]
        parts.append(part.assign(**sides, expected=expit(margin)))
    return pd.concat(parts, ignore_index=True).dropna(subset="expected")


def choose(judged: pd.DataFrame, count: int) -> pd.DataFrame:
    """The ``count`` pairs whose ``label_held_out`` lies farthest from what the metric ``expected``, no
    reference and no two families twice: else a single scene, or a single weakness, would fill the list.
    """
    gap = (judged["label_held_out"] - judged["expected"]).abs()
    order = judged.assign(gap=gap).sort_values(["gap", "pair_id", "fold"], ascending=[False, True, True])
    references: set[str] = set()
    families: set[frozenset[str]] = set()
    rows: list[int] = []
    for row in order[["reference_id", "family_a", "family_b"]].itertuples():
        both = frozenset((row.family_a, row.family_b))
        if row.reference_id not in references and both not in families and len(rows) < count:
            references.add(row.reference_id)
            families.add(both)
            rows.append(row.Index)
    return order.loc[rows].drop(columns="gap").reset_index(drop=True)


def _pictures(spec: dict[str, Any], inputs: dict[str, Any], chosen: pd.DataFrame) -> pd.DataFrame:
    """The stored images of each pair, and its maps as PNG, row by row as ``chosen``."""
    name, entry = spec["encoder"]["name"], spec["encoder"]["entry"]
    encoder = load_entry(name, entry, inputs.get("checkpoint"))
    policy = entry.get("size_policy", "resize")
    fitted = read_json(inputs["weights"])
    metrics = {
        fold["fold"]: MLCLIPSim(
            encoder, weights=dict(zip(fitted["layers"], fold["weights"], strict=True)), size_policy=policy
        )
        for fold in fitted["folds"]
    }
    originals = _stored(inputs["references"], "reference_id", chosen["reference_id"])
    distorted = _stored(inputs["images"], "image_id", pd.concat([chosen["image_a"], chosen["image_b"]]))
    rows = []
    for pair in chosen.itertuples():
        stored = {
            "reference": originals[pair.reference_id],
            "a": distorted[pair.image_a],
            "b": distorted[pair.image_b],
        }
        similarity = metrics[pair.fold].map(
            reference=decode_batch([stored["reference"]]),
            distorted=decode_batch([stored["a"], stored["b"]]),
        )
        maps = {f"map_{side}": _png(similarity[row].numpy()) for row, side in enumerate("ab")}
        rows.append({f"pixels_{key}": value for key, value in stored.items()} | maps)
    return pd.DataFrame(rows)


def _stored(path: Path, key: str, ids: pd.Series) -> dict[str, bytes]:
    """Images by id, as stored; the bytes of all others never enter memory."""
    table = pq.read_table(path, columns=[key, "image"], filters=[(key, "in", sorted(set(ids)))])
    return {row[key]: row["image"] for row in table.to_pylist()}


def _png(similarity: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(heatmap.colours(similarity)).save(buffer, "PNG")
    return buffer.getvalue()


def _sides(
    chosen: pd.DataFrame, folds: list[dict[str, list[str]]], votes: Path, scores: pd.DataFrame
) -> pd.DataFrame:
    """Who sides with which image of a chosen pair: every voter of its fold, and every metric."""
    cast = read_table(votes, "votes").set_index(["voter", "pair_id"])["vote"]
    rows = []
    for pair in chosen[["pair_id", "fold"]].itertuples():
        for group in GROUPS:
            rows += [
                (pair.pair_id, pair.fold, group, voter, "", cast.get((voter, pair.pair_id), np.nan))
                for voter in folds[pair.fold][group]
            ]
    for (metric, variant), part in scores.groupby(["metric", "variant"]):
        sign = 1 if part["higher_is_better"].iloc[0] else -1
        by_image = part.set_index("image_id")["score"]
        difference = sign * (chosen["image_a"].map(by_image) - chosen["image_b"].map(by_image))
        rows += [
            (pair_id, fold, "metric", metric, variant, side)
            for pair_id, fold, side in zip(
                chosen["pair_id"], chosen["fold"], preference(difference.to_numpy(float)), strict=True
            )
        ]
    return pd.DataFrame(rows, columns=["pair_id", "fold", "kind", "name", "variant", "side"])
