"""Peak memory of publishing and checking PCMP at 1, 4 and 16 times as many pairs.

Run as `python tests/pcmp/bench_release.py`. One process does all, the smallest first, on invented
tables: noise of 32 px, six images and 15 pairs a reference, 16 voters. docs/pcmp.md has the figures.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from mlclipsim.artifacts import stream_table, write_table
from mlclipsim.images import encode_image
from mlclipsim.pcmp.export import export
from mlclipsim.pcmp.recipe import Pen, field_seed
from mlclipsim.pcmp.verify import verify

REFERENCES = 40  # at 1x
FAMILIES = ("gaussian_noise", "shot_noise")
VOTERS = [f"voter-{number:02d}" for number in range(16)]


def invent(folder: Path, times: int) -> None:
    """The workflow's tables, in row groups as it writes them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (
        stream_table(folder / "references.parquet", "references") as references,
        stream_table(folder / "images.parquet", "images") as images,
        stream_table(folder / "pairs.parquet", "pairs") as pairs,
        stream_table(folder / "votes.parquet", "votes") as votes,
        stream_table(folder / "labels.parquet", "labels") as labels,
    ):
        for start in range(0, REFERENCES * times, 20):
            parts = [_reference(rng, f"r{number:07d}") for number in range(start, start + 20)]
            for append, part in zip((references, images, pairs), zip(*parts, strict=True), strict=True):
                append(pd.concat(part))
            ids = pd.concat([part[2] for part in parts])["pair_id"]
            vote = rng.choice([0.0, 0.5, 1.0], (len(ids), len(VOTERS)))
            long = pd.DataFrame({"pair_id": ids.repeat(len(VOTERS)), "voter": VOTERS * len(ids)})
            votes(long.assign(vote=vote.ravel()))
            label = pd.DataFrame({"pair_id": ids, "fold": 0, "label": 0.5, "n_votes": 8, "n_families": 8})
            for group in ("seen", "held_out"):
                labels(label.assign(group=group))
    partition = pd.DataFrame({"photograph": ["noise"], "sha256": ["0" * 64], "role": ["pcmp_train"]})
    write_table(folder / "partition.parquet", partition, "partition")
    voters = pd.DataFrame({"voter": VOTERS, "task": "classification", "family": VOTERS, "sha256": "0" * 64})
    write_table(
        folder / "voters.parquet", voters.assign(clean_accuracy=0.9, n_clean=1, temperature=1.0), "voters"
    )
    drops = pd.DataFrame({"role": [], "target_db": [], "family": [], "cause": [], "count": []})
    write_table(folder / "drops.parquet", drops.astype({"role": str, "family": str, "cause": str}), "drops")


def _reference(rng: np.random.Generator, name: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
    common = {"reference_id": name, "role": "pcmp_train"}
    own = {**common, "photograph": "noise", "label": 0, "caption": "", "image": encode_image(pixels)}
    pen = Pen(pixels)
    images = [
        {
            **common,
            "image_id": f"{name}.25.{family}.{number}",
            "target_db": 25.0,
            "family": family,
            "photometric": False,
            "strength": 0.3,
            "psnr_db": 25.0,
            "evaluations": 1,
            "image": encode_image(pen.draw(family, field_seed(0, name, family), 0.3)),
        }
        for family in FAMILIES
        for number in range(3)
    ]
    pairs = [
        {
            **common,
            "pair_id": f"{a['image_id']}+{b['image_id']}",
            "target_db": a["target_db"],
            "photometric": False,
            **{
                f"{key}_{side}": image[column]
                for side, image in (("a", a), ("b", b))
                for key, column in _SIDES
            },
            "psnr_a_db": a["psnr_db"],
            "psnr_b_db": b["psnr_db"],
        }
        for a, b in combinations(images, 2)
    ]
    return pd.DataFrame([own]), pd.DataFrame(images), pd.DataFrame(pairs)


_SIDES = (("image", "image_id"), ("family", "family"))


def peak_mib() -> int:
    """Largest resident memory of this process so far; it never falls."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    folds = [{"seen": VOTERS[:8], "held_out": VOTERS[8:]}]
    print(f"imports: {peak_mib()} MiB\n")
    print("| pairs | votes | after export (MiB) | after verify (MiB) |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as work:
        for times in (1, 4, 16):
            source, output = Path(work) / f"tables-{times}", Path(work) / f"pcmp-{times}"
            invent(source, times)
            export([source], output, name="bench", preset="bench", seed=0, config={}, folds=folds, shards=4)
            exported = peak_mib()
            problems = verify(output)
            if problems:
                sys.exit("; ".join(map(str, problems)))
            pairs = 15 * REFERENCES * times
            print(f"| {pairs:,} | {pairs * len(VOTERS):,} | {exported} | {peak_mib()} |", flush=True)


if __name__ == "__main__":
    main()
