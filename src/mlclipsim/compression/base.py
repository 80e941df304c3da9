"""Train the zoo's codecs: one small codec per lambda for mean squared error, from nothing.

``snakemake zoo --config retrain_zoo=true`` runs this, too. They learn scenes and photographs alike: half of
each batch are 2x2 mosaics of scenes, half are crops of the photographs behind the scenes, of the roles
``zoo_train`` and ``codec_train``. They are validated on mosaics over the photographs of ``codec_val``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlclipsim import lifeline
from mlclipsim.artifacts import read_json, sha256_of, write_json
from mlclipsim.compression import codecs
from mlclipsim.compression.codecs import CompressionModel
from mlclipsim.compression.image_sets import join
from mlclipsim.compression.training import RateDistortionLoss, Schedule, train
from mlclipsim.images import to_tensor
from mlclipsim.provenance import git_state
from mlclipsim.randomness import derive_seed, generator
from mlclipsim.spec import canonical
from mlclipsim.world.pool import ScenePool, render_pool
from mlclipsim.world.scenes import PHOTOGRAPHS, load_photograph
from mlclipsim.world.zoo import ZOO_SEED

__all__ = ["POINTS", "SceneObjective", "main"]

MODEL, CHANNELS = "bmshj2018-factorized", (24, 96)
# CompressAI's weights of 255^2 MSE at its qualities 1, 2, 4 and 6.
POINTS = {"q1": 0.0018, "q2": 0.0035, "q4": 0.0130, "q6": 0.0483}
ROLES = ("zoo_train", "codec_train")
SCHEDULE = Schedule(steps=8_000, learning_rate=2e-3, quantile_rate=1e-2, validations=40)
BATCH, SIDE = 4, 128  # images per step, px: half the cost of 256 px, and few latents lie at a border
POOL_SIZE, VALIDATION_SIZE = 3_000, 64  # scenes per role


class SceneObjective:
    """``R + lambda 255^2 MSE`` on mosaics of scenes and crops of photographs."""

    def __init__(self, lmbda: float, pools: list[ScenePool], validation: ScenePool) -> None:
        self.criterion = RateDistortionLoss(lmbda, metric="mse")
        self.pools = pools
        photographs = [load_photograph(n) for n, role in PHOTOGRAPHS.items() if role in ROLES]
        self.photographs = [p for p in photographs if min(p.shape[:2]) >= SIDE]
        self.validation = to_tensor(np.stack(join(list(validation.images), SIDE // 64)))

    def batch(self, step: int) -> dict[str, Tensor]:
        rng = generator(ZOO_SEED, "batch", "codec", step)  # all codecs see the same images
        scenes = []
        for _ in range(BATCH // 2 * (SIDE // 64) ** 2):
            pool = self.pools[int(rng.integers(len(self.pools)))]
            scenes.append(pool.images[int(rng.integers(len(pool)))])
        crops = [self._crop(rng) for _ in range(BATCH - BATCH // 2)]
        return {"images": to_tensor(np.stack([*join(scenes, SIDE // 64), *crops]))}

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        photograph = self.photographs[int(rng.integers(len(self.photographs)))]
        top, left = (int(rng.integers(side - SIDE + 1)) for side in photograph.shape[:2])
        crop = photograph[top : top + SIDE, left : left + SIDE]
        return np.rot90(crop[:, ::-1] if rng.random() < 0.5 else crop, int(rng.integers(4)))

    def losses(self, model: CompressionModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = self.criterion(model(batch["images"]), batch["images"])
        return {"loss": found["loss"], "bpp": found["bpp_loss"], "mse": found["mse_loss"]}

    def validate(self, model: CompressionModel) -> dict[str, float]:
        found = self.losses(model, {"images": self.validation})
        return {key: value.item() for key, value in found.items()}


def _make(point: str, output: Path, work: Path, steps_scale: float) -> dict[str, Any]:
    """Train and store one codec; what the manifest says of it."""
    torch.set_num_threads(1)
    started = time.monotonic()
    schedule = Schedule(**{**vars(SCHEDULE), "steps": max(2, round(SCHEDULE.steps * steps_scale))})
    pools = [render_pool(role, _pool_size(steps_scale), ZOO_SEED, work / "pool") for role in ROLES]
    validation = render_pool("codec_val", VALIDATION_SIZE, ZOO_SEED, work / "pool")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(ZOO_SEED, "initial", "codec"))
        model = codecs.build(MODEL, CHANNELS)
    settings = {"model": MODEL, "channels": CHANNELS, "lambda": POINTS[point], "schedule": vars(schedule)}
    curve = train(
        model,
        SceneObjective(POINTS[point], pools, validation),
        schedule,
        seed=derive_seed(ZOO_SEED, "codec"),
        checkpoint=work / f"base-{point}.checkpoint.pt",
        settings=canonical(settings),
        name=f"base-{point}",
    )
    model.update(force=True, update_quantiles=True)
    weights = output / f"base-{point}.safetensors"
    codecs.save(model, weights)
    return {
        "sha256": sha256_of(weights),
        **settings,
        "batch": [BATCH, SIDE, SIDE],
        "seed": ZOO_SEED,
        "curve": curve,
        "command": f"python -m mlclipsim.compression.base --output weights --work work --only {point}",
        "commit": git_state()[0],
        "seconds": round(time.monotonic() - started, 1),
    }


def _pool_size(steps_scale: float) -> int:
    return POOL_SIZE if steps_scale >= 0.5 else POOL_SIZE // 30


def main(argv: list[str] | None = None) -> int:
    """Train the codecs that are asked for, write weights and their manifest, base.json."""
    parser = argparse.ArgumentParser(prog="python -m mlclipsim.compression.base", description=main.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for weights and base.json")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for scenes and resumable checkpoints"
    )
    parser.add_argument("--only", nargs="*", choices=list(POINTS), default=list(POINTS), metavar="POINT")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="below 1: a quick, worse training")
    arguments = parser.parse_args(argv)
    lifeline.follow_run()
    for role, n in (
        *((role, _pool_size(arguments.steps_scale)) for role in ROLES),
        ("codec_val", VALIDATION_SIZE),
    ):
        render_pool(role, n, ZOO_SEED, arguments.work / "pool", arguments.workers)
    context = multiprocessing.get_context("spawn")
    path = arguments.output / "base.json"
    manifest: dict[str, Any] = read_json(path) if path.exists() else {}
    with ProcessPoolExecutor(
        arguments.workers, mp_context=context, initializer=lifeline.follow, initargs=(os.getpid(),)
    ) as executor:
        jobs = {
            executor.submit(_make, point, arguments.output, arguments.work, arguments.steps_scale): point
            for point in arguments.only
        }
        for job in as_completed(jobs):
            manifest[f"base-{jobs[job]}"] = job.result()
            write_json(path, manifest)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
