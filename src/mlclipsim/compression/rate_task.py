"""Code the test images with every codec, and let machines judge what is decoded.

Each codec codes each image once, into real bitstreams, and decodes them in the same process to 8 bits. Rates
are of payloads; each machine's predictions on the decoded images are compared with its own on the originals,
and with the truth where it is known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from mlclipsim.artifacts import ArtifactError, read_json, sha256_of, stream_table, write_json
from mlclipsim.compression.bitstream import Bitstream
from mlclipsim.compression.classical import ClassicalCodec
from mlclipsim.compression.codecs import LearnedCodec, estimate_bits
from mlclipsim.compression.coding import open_codec, qualities
from mlclipsim.compression.container import FINGERPRINT_BYTES, Header, pack
from mlclipsim.compression.evaluation import five_scale_ssim
from mlclipsim.compression.ground_truth import MEASURES, measure
from mlclipsim.compression.image_sets import ImageSet, load_set
from mlclipsim.compression.judges import Judge, load_judges
from mlclipsim.compression.manifest import stale
from mlclipsim.images import to_tensor
from mlclipsim.pcmp.match import psnr_db
from mlclipsim.shards import WHOLE, Shard
from mlclipsim.spec import canonical
from mlclipsim.workers import worker_processes

__all__ = ["BASE", "ORIGINAL", "UNTRAINED", "Coder", "check_payload", "code", "coders"]

BASE, ORIGINAL = "base", "original"  # arms: the codecs before any fine-tuning, and no codec at all
UNTRAINED = -1  # the seed of what was not trained here
# What an entropy coder may cost beyond the entropy: a share of it, and bytes in which a stream ends.
_SHARE, _BYTES_PER_STREAM = 0.02, 16


@dataclass(frozen=True)
class Coder:
    """One codec at one quality, as the tables name it."""

    codec: str  # its catalog entry
    arm: str  # the loss that it was fine-tuned with; a reference line has its codec's name
    quality: int  # number of the point, or the classical codec's own
    seed: int = UNTRAINED  # of its training
    weights: str = ""  # a file; "": the entry's own


def coders(
    base: str, manifest: Path, references: Sequence[str], entries: dict[str, dict[str, Any]]
) -> list[Coder]:
    """All codecs of a run: the base at its points, what was fine-tuned from it, and the reference lines.

    Args:
        base, references: names in ``entries``, the catalog's.
        manifest: of trained weights, which lie beside it.

    Raises:
        ArtifactError: weights that are missing or not the manifest's.
    """
    found = [Coder(base, BASE, quality) for quality in qualities(entries[base])]
    for name, record in read_json(manifest)["codecs"].items():
        path = manifest.with_name(f"{name}.safetensors")
        if not path.is_file() or sha256_of(path) != record["sha256"]:
            raise ArtifactError(
                f"{path}: expected the weights that {manifest} lists; make or fetch them again"
            )
        quality = int(record["point"].removeprefix("q"))
        found.append(Coder(base, record["arm"], quality, record["seed"], str(path)))
    return found + [Coder(name, name, quality) for name in references for quality in qualities(entries[name])]


def code(
    spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path], shard: Shard = WHOLE
) -> None:
    """Step ``rate_task``: references, voters, manifest of the trained codecs, weights [, checkpoint]
    -> codes, scores, truth, and ``not_run``: arms that are missing, or were trained for another metric.

    ``spec["threads"]`` processes take a codec and a set of images at a time, and what they measured is
    written in order, a row group each: any number of processes or shards gives the same bytes.

    Raises:
        ArtifactError: trained weights are damaged; or a payload that its entropy does not explain, see
            :func:`check_payload`.
    """
    settings, base = spec["rate_task"], spec["codec"]["name"]
    entries = spec["codecs"] | {base: spec["codec"]["entry"]}
    known = coders(base, inputs["manifest"], settings["codecs"], entries)
    trained = {coder.arm for coder in known if coder.seed != UNTRAINED}
    not_run = {arm: "no trained weights" for arm in spec["arms"] if arm not in trained}
    not_run |= stale(read_json(inputs["manifest"]), spec, inputs)
    wanted = [
        coder
        for coder in known
        if coder.seed == UNTRAINED or (coder.arm in spec["arms"] and coder.arm not in not_run)
    ]
    write_json(outputs["not_run"], not_run)
    bench = canonical(
        {
            **{key: spec[key] for key in ("judges", "seed", "batch_size")},
            "images": settings["images"],
            "references": str(inputs["references"]),
            "voters": str(inputs["voters"]),
        }
    )
    jobs = [
        joblib.delayed(_measure)(bench, number, coder, entries.get(coder.codec))
        for number in range(len(settings["images"]))
        for coder in [Coder("", ORIGINAL, 0), *wanted]
    ]
    mine = [jobs[number] for number in shard.of(len(jobs))]
    with ExitStack() as stack:
        append = {
            name: stack.enter_context(stream_table(outputs[name], f"rate_task_{name}"))
            for name in ("codes", "scores", "truth")
        }
        results = worker_processes(spec["threads"])(mine)
        for tables in tqdm(results, total=len(mine), desc="rate-task", unit="codec"):
            for name, table in tables.items():
                append[name](table)


@dataclass(frozen=True)
class _Bench:
    """A set of images and its judges, who have seen the originals."""

    images: ImageSet
    judges: list[Judge]


@lru_cache(maxsize=1)  # jobs come set by set, so that a process needs one at a time
def _bench(text: str, number: int) -> _Bench:
    given = json.loads(text)
    settings = given["images"][number]
    images = load_set(settings, given["seed"], Path(given["references"]))
    judges = load_judges(
        given["judges"], Path(given["voters"]), images.images, given["batch_size"], settings["tasks"]
    )
    return _Bench(images, judges)


def _measure(text: str, number: int, coder: Coder, entry: dict[str, Any] | None) -> dict[str, pd.DataFrame]:
    """What one codec makes of one set: rows of each table."""
    torch.set_num_threads(1)
    bench = _bench(text, number)
    units = bench.images.units()
    key = {"images": bench.images.name, **{k: v for k, v in asdict(coder).items() if k != "weights"}}
    if entry is None:  # no codec: what machines make of the originals, and how right they are
        predictions = {judge.name: judge.originals for judge in bench.judges}
        return {"truth": _truth(bench, predictions).assign(**key)} if bench.judges else {}
    codes, decoded = _coded(open_codec(entry, coder.quality, _path(coder)), entry, coder, units)
    tables = {"codes": codes.assign(**key)}
    if not bench.judges:
        return tables
    images = bench.images.apart(decoded)
    predictions = {judge.name: judge.predict(images) for judge in bench.judges}
    scores = pd.concat(
        judge.consistency(predictions[judge.name]).assign(
            judge=judge.name,
            task=judge.task,
            image_id=bench.images.ids,
            unit_id=bench.images.unit_ids(),
        )
        for judge in bench.judges
    )
    return tables | {
        "scores": scores.assign(**key),
        "truth": _truth(bench, predictions).assign(**key),
    }


def _path(coder: Coder) -> Path | None:
    return Path(coder.weights) if coder.weights else None


def _coded(
    codec: LearnedCodec | ClassicalCodec,
    entry: dict[str, Any],
    coder: Coder,
    units: list[tuple[str, np.ndarray]],
) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """A row per coded image, and the decoded images."""
    rows, decoded, streams = [], [], []
    for name, image in units:
        stream = codec.encode(image)
        decoded.append(codec.decode(stream))
        streams.append(stream)
        entropy = estimate_bits(codec.model, image) if isinstance(codec, LearnedCodec) else np.nan
        constant = codec.constant_bytes(stream.size) if isinstance(codec, ClassicalCodec) else 0
        header = Header(entry["id"], coder.quality, bytes(FINGERPRINT_BYTES), stream.size)
        rows.append(
            {
                "unit_id": name,
                "pixels": image.shape[0] * image.shape[1],
                "payload_bytes": stream.payload_bytes,
                "estimated_bits": entropy,
                "constant_bytes": constant,
                "container_bytes": len(pack(header, stream.strings)) - stream.payload_bytes,
                "psnr_db": psnr_db(image, decoded[-1]),
                "ms_ssim": five_scale_ssim(to_tensor(image), to_tensor(decoded[-1])),
            }
        )
    frame = pd.DataFrame(rows)
    if isinstance(codec, LearnedCodec):
        check_payload(f"{coder.arm} q{coder.quality}", streams, float(frame["estimated_bits"].sum()))
    return frame, decoded


def check_payload(name: str, streams: Sequence[Bitstream], estimated_bits: float) -> None:
    """Refuse payloads that, summed over a set, are not within 2 % and 16 bytes per string of the entropy.

    Raises:
        ArtifactError: rates that are reported would not be those that the codec was trained for.
    """
    payload = sum(stream.payload_bytes for stream in streams)
    strings = sum(len(stream.strings) for stream in streams)
    estimate = estimated_bits / 8
    margin = _SHARE * estimate + _BYTES_PER_STREAM * strings
    if abs(payload - estimate) > margin:
        raise ArtifactError(
            f"{name}: expected {estimate:,.0f} +- {margin:,.0f} bytes by the entropy of its latents, got "
            f"{payload:,}; its probability tables are not those of its weights, call update_tables"
        )


def _truth(bench: _Bench, predictions: dict[str, list[Any]]) -> pd.DataFrame:
    """A row per judge of a task whose truth is known."""
    rows = []
    for judge in bench.judges:
        known = bench.images.truth.get(judge.task, [None] * len(bench.images.ids))
        value, n = measure(judge.task, predictions[judge.name], known)
        rows.append(
            {"judge": judge.name, "task": judge.task, "measure": MEASURES[judge.task], "value": value, "n": n}
        )
    return pd.DataFrame(rows)
