"""A few test images as each arm decodes them at one rate, with the maps of what the metric sees in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mlclipsim.artifacts import read_json, read_table, write_table
from mlclipsim.compression.coding import open_codec
from mlclipsim.compression.curves import ANCHOR
from mlclipsim.compression.image_sets import ImageSet, load_set
from mlclipsim.compression.rate_task import BASE, ORIGINAL, UNTRAINED, Coder, coders
from mlclipsim.images import encode_image, to_tensor
from mlclipsim.metric import MLCLIPSim
from mlclipsim.pcmp.match import psnr_db
from mlclipsim.randomness import generator
from mlclipsim.similarities import load_entry

__all__ = ["at_equal_rate", "show"]

_SEED = 0  # of the trainings that are shown


def show(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``reconstructions``: references, codes, not_run, weights, manifest [, checkpoint] -> images.

    Images of the first set are drawn from the run's seed. All arms, and the first of the reference lines,
    stand at the rate that the anchor has at its second point, as near as theirs come to it on the whole set;
    the rate of the image itself is stored.
    """
    torch.set_num_threads(int(spec["threads"]))
    settings = spec["rate_task"]
    images = load_set(settings["images"][0], spec["seed"], inputs["references"])
    rng = generator(spec["seed"], "reconstructions")
    shown = np.sort(rng.choice(len(images.ids), min(settings["shown"], len(images.ids)), replace=False))
    tower = spec["encoder"]
    metric = MLCLIPSim(
        load_entry(tower["name"], tower["entry"], inputs.get("checkpoint")),
        weights=inputs["weights"],
        fold=spec["compression"]["fold"],
        size_policy=tower["entry"].get("size_policy", "resize"),
    )
    entries = spec["codecs"] | {spec["codec"]["name"]: spec["codec"]["entry"]}
    known = coders(spec["codec"]["name"], inputs["manifest"], settings["codecs"][:1], entries)
    codes = read_table(inputs["codes"], "rate_task_codes")
    codes = codes[codes["images"] == images.name]
    not_run = read_json(inputs["not_run"])
    known = [coder for coder in known if coder.arm not in not_run]
    if any(coder.arm == ANCHOR for coder in known):
        known = [coder for coder in known if coder.arm != BASE]
    rows = [
        {"arm": ORIGINAL, "image_id": images.ids[place], "image": encode_image(images.images[place])}
        for place in shown
    ]
    for coder in at_equal_rate(known, codes):
        rows += _decoded(coder, entries[coder.codec], images, shown, metric)
    write_table(outputs["images"], pd.DataFrame(rows), "reconstructions")


def at_equal_rate(known: Sequence[Coder], codes: pd.DataFrame) -> list[Coder]:
    """Of each arm the codec whose mean rate is nearest to that of the anchor's second point, in log-rate."""
    spent = codes.assign(bpp=8 * codes["payload_bytes"] / codes["pixels"])
    bpp = spent.groupby(["arm", "quality", "seed"])["bpp"].mean()
    candidates = [coder for coder in known if coder.seed in (UNTRAINED, _SEED)]
    rate = {coder: np.log(bpp[coder.arm, coder.quality, coder.seed]) for coder in candidates}
    arms = list(dict.fromkeys(coder.arm for coder in candidates))
    anchor = ANCHOR if ANCHOR in arms else BASE
    points = sorted(rate[coder] for coder in candidates if coder.arm == anchor)
    aim = points[min(1, len(points) - 1)]
    return [
        min((coder for coder in candidates if coder.arm == arm), key=lambda coder: abs(rate[coder] - aim))
        for arm in arms
    ]


def _decoded(
    coder: Coder, entry: dict[str, Any], images: ImageSet, shown: np.ndarray, metric: MLCLIPSim
) -> list[dict[str, Any]]:
    codec = open_codec(entry, coder.quality, Path(coder.weights) if coder.weights else None)
    units, unit_of = dict(images.units()), images.unit_ids()
    rows = []
    for place in shown:
        stream = codec.encode(units[unit_of[place]])
        first = unit_of.index(unit_of[place])
        decoded = images.apart([codec.decode(stream)])[place - first]
        reference, distorted = (to_tensor(image)[None] for image in (images.images[place], decoded))
        rows.append(
            {
                "arm": coder.arm,
                "quality": coder.quality,
                "image_id": images.ids[place],
                "bpp": stream.bpp,
                "psnr_db": psnr_db(images.images[place], decoded),
                "score": float(metric.score(reference=reference, distorted=distorted)),
                "image": encode_image(decoded),
                "similarity": metric.map(reference=reference, distorted=distorted)[0].flatten().tolist(),
            }
        )
    return rows
