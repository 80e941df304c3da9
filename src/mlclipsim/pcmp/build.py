"""Build PCMP: distort each reference with its families to each PSNR target, then pair up what matches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from tqdm import tqdm

from mlclipsim.artifacts import (
    SCHEMAS,
    iterate_row_groups,
    read_table,
    row_group_sizes,
    stream_table,
    write_table,
)
from mlclipsim.datasets.references import StoredReferences
from mlclipsim.distortions import families
from mlclipsim.images import decode_image, encode_image
from mlclipsim.pcmp.design import design
from mlclipsim.pcmp.drops import Drops, add_up, drops_table
from mlclipsim.pcmp.match import Curve, Unattainable, match_block
from mlclipsim.randomness import generator
from mlclipsim.shards import WHOLE, Shard
from mlclipsim.workers import worker_processes

__all__ = ["distort", "pair"]

_CHUNK = 16  # references per task and row group; fixed, so that neither workers nor shards change the file


def distort(
    spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path], shard: Shard = WHOLE
) -> None:
    """Step: ``references`` -> ``images``, matched within blocks, and ``drops``, what was unattainable.

    Only references whose role begins with ``pcmp_`` are distorted. Everything random derives from the seed
    and ids, and ``spec["threads"]`` worker processes return their chunks in order: any number of them gives
    the same bytes. A chunk is a row group of ``images``: steps that read them go by those.
    """
    seed, settings = spec["seed"], spec["pcmp"]
    families(settings["families"], settings.get("plugins", {}))  # an unknown name fails here, not in a worker
    index = read_table(inputs["references"], "references", columns=["reference_id", "role"])
    wanted = index[index["role"].str.startswith("pcmp_")]
    rows = list(wanted.itertuples(index=False, name=None))
    blocks = design(rows, settings["families"], settings["families_per_block"], seed)
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    mine = [chunks[number] for number in shard.of(len(chunks))]
    drops: Drops = Counter()
    workers = worker_processes(spec["threads"])
    results = workers(
        joblib.delayed(_distort_chunk)(seed, settings, chunk)
        for chunk in _with_images(mine, inputs["references"], blocks)
    )
    with (
        stream_table(outputs["images"], "images") as append,
        tqdm(total=sum(map(len, mine)), desc="distort", unit="reference") as progress,
    ):
        for n_references, images, dropped in results:
            if len(images):
                append(images)
            drops.update(dropped)
            progress.update(n_references)
    write_table(outputs["drops"], drops_table(drops), "drops")


def _with_images(
    chunks: list[list[tuple[str, str]]], references: Path, blocks: dict[str, list[str]]
) -> Iterator[list[tuple[str, str, bytes, list[str]]]]:
    """(reference_id, role, image bytes, families) of the references of each chunk."""
    stored = StoredReferences(references)
    for chunk in chunks:
        yield [(name, role, stored.get(name), blocks[name]) for name, role in chunk]


def _distort_chunk(
    seed: int, settings: dict[str, Any], chunk: list[tuple[str, str, bytes, list[str]]]
) -> tuple[int, pd.DataFrame, Drops]:
    rows: list[dict[str, Any]] = []
    drops: Drops = Counter()
    known = families(settings["families"], settings.get("plugins", {}))
    for reference_id, role, stored, names in chunk:
        reference = decode_image(stored)
        curves = {}
        for name in names:
            field = known[name].draw(reference, generator(seed, "field", reference_id, name))
            curves[name] = Curve(reference, known[name], field)
        for target_db in settings["targets_db"]:
            signs = {
                name: 1
                if generator(seed, "side", reference_id, f"{target_db:g}", name).random() < 0.5
                else -1
                for name in names
            }
            block = match_block(curves, target_db, signs, tolerance_db=settings["tolerance_db"])
            for name, result in block.items():
                if isinstance(result, Unattainable):
                    drops[role, target_db, name, result.cause] += 1
                    continue
                rows.append(
                    {
                        "image_id": f"{reference_id}.{target_db:g}.{name}",
                        "reference_id": reference_id,
                        "role": role,
                        "target_db": target_db,
                        "family": name,
                        "photometric": known[name].photometric,
                        "strength": result.strength,
                        "psnr_db": result.psnr_db,
                        "evaluations": result.evaluations,
                        "image": encode_image(result.image),
                    }
                )
            for curve in curves.values():
                curve.forget()
    return len(chunk), pd.DataFrame(rows), drops


def pair(
    spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path], shard: Shard = WHOLE
) -> None:
    """Step: ``images`` -> ``pairs``; ``drops_in`` and the pairs that do not match -> ``drops``.

    All pairs within a block whose PSNR differs by at most ``pair_tolerance_db``; who is A is drawn. A row
    group of ``pairs`` is of the images in that of ``images``, also where none of them match.
    """
    seed, tolerance_db = spec["seed"], spec["pcmp"]["pair_tolerance_db"]
    columns = ["image_id", "reference_id", "role", "target_db", "family", "photometric", "psnr_db"]
    mine = shard.of(len(row_group_sizes(inputs["images"], "images")))
    drops: Drops = Counter()
    n_images = n_pairs = 0
    with stream_table(outputs["pairs"], "pairs") as append:
        for images in iterate_row_groups(inputs["images"], "images", columns, numbers=mine):
            rows = _pairs(seed, tolerance_db, images, drops)
            n_images, n_pairs = n_images + len(images), n_pairs + len(rows)
            append(pd.DataFrame(rows) if rows else SCHEMAS["pairs"].empty_table())
        if not n_pairs and shard == WHOLE:
            raise ValueError(
                f"expected pairs of images within {tolerance_db} dB, found none among {n_images} images; "
                "add families or references, or choose targets that more families attain"
            )
    earlier = [read_table(inputs["drops_in"], "drops")] if shard.first else []
    write_table(outputs["drops"], add_up([*earlier, drops_table(drops)]), "drops")


def _pairs(seed: int, tolerance_db: float, images: pd.DataFrame, drops: Drops) -> list[dict[str, Any]]:
    """The pairs of some references' images; those that do not match are counted in ``drops``."""
    rows = []
    for (reference_id, target_db), block in images.groupby(["reference_id", "target_db"], sort=False):
        for one, other in combinations(block.sort_values("family").itertuples(index=False), 2):
            if abs(one.psnr_db - other.psnr_db) > tolerance_db:
                drops[one.role, target_db, f"{one.family}+{other.family}", "unmatched_pair"] += 1
                continue
            rng = generator(seed, "sides", reference_id, f"{target_db:g}", one.family, other.family)
            a, b = (one, other) if rng.random() < 0.5 else (other, one)
            rows.append(
                {
                    "pair_id": f"{reference_id}.{target_db:g}.{a.family}.{b.family}",
                    "reference_id": reference_id,
                    "role": a.role,
                    "target_db": target_db,
                    "image_a": a.image_id,
                    "image_b": b.image_id,
                    "family_a": a.family,
                    "family_b": b.family,
                    "photometric": a.photometric or b.photometric,
                    "psnr_a_db": a.psnr_db,
                    "psnr_b_db": b.psnr_db,
                }
            )
    return rows
