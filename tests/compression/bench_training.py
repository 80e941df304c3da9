"""What a training step with the ML-CLIPSim term costs: ``python tests/compression/bench_training.py``.

Against the sum of its parts: a step of the bare codec, a bare forward of the encoder on the originals, and
its forward and backward on the reconstructions. The arm looks at each original once and remembers it, so that
later epochs go without the second part. CPU seconds of one thread, interleaved; ratios are medians over
rounds. Two mosaics of four 64-px scenes, `scene-clip`, as in the preset `embedded`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from mlclipsim.metric import MLCLIPSim

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    from mlclipsim.compression.arms import ARMS, ArmObjective, Balance
    from mlclipsim.compression.codecs import build
    from mlclipsim.compression.terms import ClipDissimilarity, Originals, tiles

BAR = 1.15
CHANNELS, SIDE, BATCH, COLUMNS = (24, 96), 128, 2, 2
Call = Callable[[], object]


def calls() -> dict[str, Call]:
    """What is timed, by name; the two arms differ in whether the originals were met before."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 3, SIDE, SIDE, generator=generator)
    torch.manual_seed(0)
    codec = build("bmshj2018-factorized", CHANNELS)
    weights = [p for name, p in codec.named_parameters() if not name.endswith(".quantiles")]
    optimiser = torch.optim.Adam(weights, lr=0.0)
    metric = MLCLIPSim("scene-clip", weights="uniform")

    def step(objective: ArmObjective) -> None:
        optimiser.zero_grad(set_to_none=True)
        objective.losses(codec, objective.batch(0))["loss"].backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()

    def arm(name: str) -> ArmObjective:
        originals = Originals(images, COLUMNS, ClipDissimilarity(metric))
        return ArmObjective(
            ARMS[name],
            Balance(0.0035, 0.0035, 500.0, 1.0, 1.0, 1.0),
            originals,
            originals,
            originals,
            seed=0,
            batch=BATCH,
        )

    singles = tiles(images, COLUMNS)

    def backward() -> None:
        decoded = singles.clone().requires_grad_()
        tokens, embedding = metric.encoder(decoded, layers=metric.layers, embed=True)
        sum((part.square().mean() for part in (*tokens, embedding)), torch.zeros(())).backward()

    def forward() -> None:
        with torch.no_grad():
            metric.encoder(singles, layers=metric.layers, embed=True)

    bare, again = arm("mse"), arm("ml_clipsim")
    return {
        "bare codec step": lambda: step(bare),
        "encoder forward": forward,
        "encoder forward and backward": backward,
        "arm, originals new": lambda: step(arm("ml_clipsim")),
        "arm, originals known": lambda: step(again),
    }


def main() -> int:
    """Print CPU milliseconds and the two ratios; 1 if the first epoch's is above the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    timed = calls()
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, call in timed.items():
            start = time.process_time()
            call()
            if number:  # the first warms up
                seconds[name].append(time.process_time() - start)
    for name, values in seconds.items():
        print(f"{name:32s} {1e3 * median(values):7.1f} ms")
    parts = [sum(row) for row in zip(*list(seconds.values())[:3], strict=True)]
    ratios = {
        name: median(a / b for a, b in zip(seconds[name], parts, strict=True))
        for name in ("arm, originals new", "arm, originals known")
    }
    for name, ratio in ratios.items():
        print(f"{name} / parts: {ratio:.3f} (bar {BAR})")
    return int(max(ratios.values()) > BAR)


if __name__ == "__main__":
    raise SystemExit(main())
