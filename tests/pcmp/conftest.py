"""A small PCMP as the workflow would write it, with two folds of voters, and published in four shards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from skimage import data

from mlclipsim.artifacts import stream_table, write_table
from mlclipsim.images import encode_image
from mlclipsim.pcmp import build
from mlclipsim.pcmp.export import export

SEED = 5
PCMP = {
    "families": ["gaussian_noise", "gaussian_blur", "jpeg", "contrast"],
    "targets_db": [25.0, 30.0],
    "families_per_block": 4,
    "tolerance_db": 0.05,
    "pair_tolerance_db": 0.1,
}
SOURCE = {"source": "photographs of scikit-image", "licence": "public domain", "citation": None}
CONFIG = {
    "references": {"references": {"size": 32, "dataset": SOURCE}},
    "pcmp_pairs": {"pcmp": PCMP},
    "votes": {"votes": {"divergence": "kl", "min_families": 2, "min_votes": 3}},
}
FOLDS = [{"seen": ["ada", "bob"], "held_out": ["cyd"]}, {"seen": ["cyd"], "held_out": ["ada", "bob"]}]


@pytest.fixture(scope="session")
def tables(tmp_path_factory) -> Path:
    """One folder of the workflow's tables: eight references of 32 px, images, pairs, votes and labels."""
    folder = tmp_path_factory.mktemp("tables")
    _references(folder)
    spec = {"seed": SEED, "threads": 1, "pcmp": PCMP}
    build.distort(
        spec,
        {"references": folder / "references.parquet"},
        {"images": folder / "images.parquet", "drops": folder / "drops_in.parquet"},
    )
    build.pair(
        spec,
        {"images": folder / "images.parquet", "drops_in": folder / "drops_in.parquet"},
        {"pairs": folder / "pairs.parquet", "drops": folder / "drops.parquet"},
    )
    _votes(folder, pd.read_parquet(folder / "pairs.parquet")["pair_id"])
    return folder


def _references(folder: Path) -> None:
    source = data.astronaut()
    # In no order, one of a role that is not part of PCMP.
    roles = [
        "pcmp_test",
        "pcmp_train",
        "pcmp_test",
        "zoo_val",
        "pcmp_train",
        "pcmp_val",
        "pcmp_test",
        "pcmp_train",
    ]
    rows = []
    for number in (4, 0, 1, 7, 2, 3, 5, 6):
        y, x = 50 + 43 * number, 60 + 31 * number
        pixels = encode_image(np.ascontiguousarray(source[y : y + 32, x : x + 32]))
        rows.append(
            (f"r{number}", f"photo-{roles[number]}", roles[number], number, f"number {number}", pixels)
        )
    columns = ["reference_id", "photograph", "role", "label", "caption", "image"]
    with stream_table(folder / "references.parquet", "references") as append:
        for start in (0, 3, 6):
            append(pd.DataFrame(rows[start : start + 3], columns=columns))
    names = sorted(set(roles))
    partition = pd.DataFrame({"photograph": [f"photo-{r}" for r in names], "sha256": [r * 2 for r in names]})
    write_table(folder / "partition.parquet", partition.assign(role=names), "partition")


def _votes(folder: Path, pairs: pd.Series) -> None:
    """Written voter by voter, not pair by pair; bob abstains now and then, some labels were dropped."""
    rng = np.random.default_rng(0)
    votes, voters, labels = [], [], []
    for voter in ("bob", "ada", "cyd"):
        vote = rng.choice([0.0, 0.5, 1.0], len(pairs))
        if voter == "bob":
            vote[::5] = np.nan
        votes.append(pd.DataFrame({"pair_id": pairs, "voter": voter, "vote": vote}))
        voters.append((voter, "classification", f"family-{voter}", 0.9, 100, 1.5, "0" * 64))
    for fold in range(2):
        for group in ("seen", "held_out"):
            keep = pairs if group == "seen" else pairs[1:]
            label = pd.DataFrame(
                {"pair_id": keep, "label": rng.random(len(keep)), "n_votes": 2, "n_families": 2}
            )
            labels.append(label.assign(fold=fold, group=group))
    columns = ["voter", "task", "family", "clean_accuracy", "n_clean", "temperature", "sha256"]
    write_table(folder / "votes.parquet", pd.concat(votes), "votes")
    write_table(folder / "voters.parquet", pd.DataFrame(voters, columns=columns), "voters")
    write_table(folder / "labels.parquet", pd.concat(labels), "labels")


@pytest.fixture(scope="session")
def publish(tables):
    """``publish(output, **changes)``: export the tables."""

    def call(output: Path, **changes):
        settings = {
            "name": "pcmp-tiny",
            "preset": "tiny",
            "seed": SEED,
            "config": CONFIG,
            "folds": FOLDS,
            "shards": 4,
        }
        folders = changes.pop("folders", [tables])
        return export(folders, output, **{**settings, **changes})

    return call


@pytest.fixture(scope="session")
def published(publish, tmp_path_factory) -> Path:
    """The data set. Tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("published") / "pcmp"
    publish(folder)
    return folder


@pytest.fixture(scope="session")
def later_votes(tables, tmp_path_factory) -> SimpleNamespace:
    """Votes of one more network, dee, on some pairs: ``votes`` and ``voters``, paths."""
    folder = tmp_path_factory.mktemp("later")
    pairs = pd.read_parquet(tables / "pairs.parquet")["pair_id"][::2]
    voter = pd.read_parquet(tables / "voters.parquet").iloc[:1].assign(voter="dee", family="family-dee")
    write_table(
        folder / "votes.parquet", pd.DataFrame({"pair_id": pairs, "voter": "dee", "vote": 0.5}), "votes"
    )
    write_table(folder / "voters.parquet", voter, "voters")
    return SimpleNamespace(votes=folder / "votes.parquet", voters=folder / "voters.parquet")
