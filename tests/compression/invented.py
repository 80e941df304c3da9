"""Invented results of a rate-task study, by the declared schemas: the curves are known, so are the gains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mlclipsim.artifacts import write_table

QUALITIES, SEEDS, SCENES, PER_MOSAIC = (1, 2, 4, 6), (0, 1, 2), 48, 16
TASKS = {"classification": ("ann", "bea"), "detection": ("cat",), "segmentation": ("dot",)}
TRUTH = {"classification": "top1", "detection": "map50", "segmentation": "miou"}
# By arm: its gain in score at equal rate, and its rate relative to the anchor's.
ARMS = {
    "mse": (0.0, 1.0),
    "ml_clipsim": (0.05, 1.05),
    "clip_global": (0.02, 0.97),
    "decoder_only": (0.01, 1.0),
}
OURS = "scene-factorized"


def _score(bpp: float) -> float:
    """Of the anchor at a rate."""
    return 0.75 + 0.12 * np.log(bpp)


def write(
    folder: Path, arms: dict[str, tuple[float, float]] = ARMS, seeds: tuple[int, ...] = SEEDS
) -> dict[str, Path]:
    """``codes``, ``scores`` and ``truth`` by name; ``base`` is the anchor, untrained, and there is JPEG."""
    rng = np.random.default_rng(3)
    coders = [(OURS, arm, quality, seed) for arm in arms for quality in QUALITIES for seed in seeds]
    coders += [(OURS, "base", quality, -1) for quality in QUALITIES]
    coders += [("jpeg", "jpeg", quality, -1) for quality in (10, 30, 60)]
    scenes = [f"scene-{number:03d}" for number in range(SCENES)]
    units = [f"mosaic-{number // PER_MOSAIC:03d}" for number in range(SCENES)]
    content = {task: rng.normal(0, 0.04, SCENES) for task in TASKS}
    codes, scores, truth = [], [], []
    for codec, arm, quality, seed in coders:
        gain, cost = arms.get(arm, (-0.1 if arm == "jpeg" else 0.0, 1.0))
        bpp = (0.004 * quality if arm == "jpeg" else 0.1 * 2 ** QUALITIES.index(quality)) * cost
        key = {"images": "scenes", "codec": codec, "arm": arm, "quality": quality, "seed": seed}
        codes += [
            key
            | {
                "unit_id": unit,
                "pixels": 256 * 256,
                "payload_bytes": round(bpp * 256 * 256 / 8),
                "estimated_bits": np.nan if arm == "jpeg" else bpp * 256 * 256,
                "constant_bytes": 623 if arm == "jpeg" else 0,
                "container_bytes": 16,
                "psnr_db": 30 + 3 * np.log2(bpp),
                "ms_ssim": 0.97 + 0.01 * np.log2(bpp),
            }
            for unit in dict.fromkeys(units)
        ]
        for task, judges in TASKS.items():
            trained = rng.normal(0, 0.002)
            value = _score(bpp / cost) + gain + trained + content[task]
            for judge in judges:
                noise = rng.normal(0, 0.01, SCENES)
                scores.append(
                    pd.DataFrame(
                        {
                            **key,
                            "task": task,
                            "judge": judge,
                            "image_id": scenes,
                            "unit_id": units,
                            "score": np.where(np.arange(SCENES) == 0, np.nan, value + noise)
                            if task == "detection"
                            else value + noise,
                            "top1": np.nan,
                        }
                    )
                )
                about = {"task": task, "judge": judge, "measure": TRUTH[task], "n": SCENES}
                truth.append(key | about | {"value": 0.9 * (_score(bpp / cost) + gain)})
    for task, judges in TASKS.items():
        none = {"images": "scenes", "codec": "", "arm": "original", "quality": 0, "seed": -1}
        truth += [
            none | {"task": task, "judge": judge, "measure": TRUTH[task], "n": SCENES, "value": 0.9}
            for judge in judges
        ]
    tables = {"codes": pd.DataFrame(codes), "scores": pd.concat(scores), "truth": pd.DataFrame(truth)}
    paths = {name: folder / f"{name}.parquet" for name in tables}
    for name, table in tables.items():
        write_table(paths[name], table, f"rate_task_{name}")
    return paths
