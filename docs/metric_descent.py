"""The picture metric_descent.webp: `python docs/metric_descent.py`, offline, about half a minute.

An image of noise descends on 1 - S towards a rendered scene: 50 steps of Adam on its pixels, with the
packaged encoder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from mlclipsim import MLCLIPSim
from mlclipsim.images import to_tensor, to_uint8
from mlclipsim.world.scenes import load_photograph, render

SHOWN = (0, 5, 10, 20, 35, 50)  # steps
SCALE, MARGIN = 2, 14  # pixels per pixel, and above each image for its caption


def descend(reference: torch.Tensor, steps: int) -> list[tuple[float, np.ndarray]]:
    """Score and image before each step and after the last; ``reference``: ``(1, 3, H, W)``."""
    metric = MLCLIPSim("scene-clip")
    encoded = metric.encode(reference)
    pixels = torch.rand(reference.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimiser = torch.optim.Adam([pixels], lr=0.05)
    seen = []
    for _ in range(steps + 1):
        images = pixels.clamp(0, 1)
        loss = metric.loss(reference=encoded, distorted=images)
        seen.append((1 - loss.item(), to_uint8(images[0])))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return seen


def main() -> None:
    rng = np.random.default_rng(3)
    scene = render(rng, load_photograph("coffee")).image
    trace = descend(to_tensor(scene)[None], max(SHOWN))
    tiles = [(f"step {step}: S = {trace[step][0]:.2f}", trace[step][1]) for step in SHOWN] + [
        ("reference", scene)
    ]
    side = SCALE * scene.shape[0]
    sheet = Image.new("RGB", (len(tiles) * (side + 4) - 4, side + MARGIN), "white")
    for index, (caption, image) in enumerate(tiles):
        left = index * (side + 4)
        sheet.paste(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST), (left, MARGIN))
        ImageDraw.Draw(sheet).text((left + 2, 1), caption, fill="black")
    sheet.save(Path(__file__).with_suffix(".webp"), lossless=True)


if __name__ == "__main__":
    main()
