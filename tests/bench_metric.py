"""What ML-CLIPSim costs beside its bare encoder, and beside what one would use instead: `make bench-metric`.

All in one run, interleaved, on one thread, ViT-B/32 of random weights, 8 images of 224 px. Times are CPU
seconds of this process, which other load on the machine disturbs least; ratios are medians over rounds, in
each of which every candidate runs once. Peak memory is that of a fresh process each.
docs/metric.md has the figures.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest.mock import patch

import open_clip
import torch

from mlclipsim.encoders import Encoder, build_clip
from mlclipsim.metric import MLCLIPSim

BATCH, SIDE = 8, 224
BARS = {
    "score / two encode_image": 1.10,
    "score of an encoded reference / one encode_image": 1.10,
    "loss forward + backward / forward and forward-backward": 1.15,
    "peak memory of score / two encode_image": 1.20,
    "peak memory of loss / forward and forward-backward": 1.20,
    "three of twelve layers, no global term / score": 0.35,
    "import of mlclipsim.metric / import of open_clip": 1.10,
    "ML-CLIPSim / LPIPS, forward": 0.50,
    "ML-CLIPSim / DISTS, forward": 0.50,
    "ML-CLIPSim / LPIPS, forward + backward": 0.50,
    "ML-CLIPSim / DISTS, forward + backward": 0.50,
}
Call = Callable[[], object]


def tower() -> Encoder:
    """ViT-B/32 of random weights; its text tower is next to nothing, so that the image tower is measured."""
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    text = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    return Encoder(build_clip(config | {"text_cfg": text}).visual, name="ViT-B-32-quickgelu-random")


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.rand(2, BATCH, 3, SIDE, SIDE, generator=generator)
    return x, 0.8 * x + 0.2 * noise


def calls(encoder: Encoder, x: torch.Tensor, y: torch.Tensor) -> dict[str, Call]:
    """What is timed and weighed, by name."""
    metric = MLCLIPSim(encoder, weights="uniform")
    few = MLCLIPSim(encoder, layers=[1, 2, 3], use_global=False)
    encoded = metric.encode(x)

    def encode_image(images: torch.Tensor) -> torch.Tensor:
        return encoder.visual((images - encoder.mean) / encoder.std)

    def bare() -> None:
        with torch.no_grad():
            encode_image(x), encode_image(y)

    def bare_one() -> None:
        with torch.no_grad():
            encode_image(y)

    def bare_backward() -> None:
        with torch.no_grad():
            encode_image(x)
        encode_image(y.clone().requires_grad_()).sum().backward()

    return {
        "bare": bare,
        "bare one": bare_one,
        "bare backward": bare_backward,
        "score": lambda: metric.score(reference=x, distorted=y),
        "score encoded": lambda: metric.score(reference=encoded, distorted=y),
        "few layers": lambda: few.score(reference=x, distorted=y),
        "loss": lambda: metric.loss(reference=x, distorted=y.clone().requires_grad_()).backward(),
    }


def interleaved(candidates: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each candidate in each round, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, call in candidates.items():
            started = time.process_time()
            call()
            if number:
                seconds[name].append(time.process_time() - started)
    return seconds


def ratio(above: list[float], below: list[float]) -> float:
    return median(a / b for a, b in zip(above, below, strict=True))


def others() -> dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """piq's metrics; their networks with random weights, which are as fast and need no network."""
    import piq
    import torchvision

    channels = [64, 128, 256, 512, 512]
    heads = {
        "LPIPS": [torch.rand(1, c, 1, 1) for c in channels],
        "DISTS": {key: torch.rand(1, 3 + sum(channels), 1, 1) for key in ("alpha", "beta")},
    }
    made = {}
    for name, kind in (("LPIPS", piq.LPIPS), ("DISTS", piq.DISTS)):
        with (
            patch("piq.perceptual.vgg16", lambda **_: torchvision.models.vgg16(weights=None)),
            patch("torch.hub.load_state_dict_from_url", lambda *_, name=name, **__: heads[name]),
        ):
            made[name] = kind(reduction="none").eval()
    return {
        "LPIPS (VGG-16)": made["LPIPS"],
        "DISTS (VGG-16)": made["DISTS"],
        "MS-SSIM": lambda x, y: 1 - piq.multi_scale_ssim(x, y, reduction="none"),
        "VIF, pixel domain": lambda x, y: 1 - piq.vif_p(x, y, reduction="none"),
    }


def compare(encoder: Encoder, rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds per image of each metric, forward and forward + backward."""
    x, y = images()
    metric = MLCLIPSim(encoder, weights="uniform")
    metrics = {
        "ML-CLIPSim (ViT-B/32)": lambda x, y: metric.loss(reference=x, distorted=y, reduction="none"),
        **others(),
    }

    def forward(distance: Callable[..., torch.Tensor]) -> None:
        with torch.no_grad():
            distance(x, y)

    def backward(distance: Callable[..., torch.Tensor]) -> None:
        distance(x, y.clone().requires_grad_()).sum().backward()

    candidates: dict[str, Call] = {}
    for name, distance in metrics.items():
        for step in (forward, backward):
            candidates[f"{name} {step.__name__}"] = lambda step=step, distance=distance: step(distance)
    seconds = interleaved(candidates, rounds)
    unit = 1000 / BATCH
    return {
        name: (unit * median(seconds[f"{name} forward"]), unit * median(seconds[f"{name} backward"]))
        for name in metrics
    }


def child(*arguments: str) -> tuple[float, str]:
    """CPU seconds and output of a fresh Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, output


def peak_mib(name: str) -> float:
    return float(child(str(Path(__file__)), "--weigh", name)[1])


def weigh(name: str) -> None:
    """Prints the largest resident memory of this process after running one of :func:`calls`."""
    encoder = tower()
    x, y = images()
    candidates = calls(encoder, x, y) if name != "loaded" else {}
    for _ in range(3 * bool(candidates)):
        candidates[name]()
    # Not ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def measure(rounds: int) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """The ratio behind each of :data:`BARS`, and milliseconds per image of the metrics."""
    seconds = interleaved(calls(tower(), *images()), rounds)
    memory = {name: peak_mib(name) for name in ("bare", "score", "bare backward", "loss")}
    imports: dict[str, list[float]] = {"open_clip": [], "mlclipsim.metric": []}
    for _ in range(max(3, rounds // 3)):
        for module, spent in imports.items():
            spent.append(child("-c", f"import {module}")[0])
    table = compare(tower(), max(2, rounds // 4))
    ours, lpips, dists = (table[name] for name in list(table)[:3])
    values = [
        ratio(seconds["score"], seconds["bare"]),
        ratio(seconds["score encoded"], seconds["bare one"]),
        ratio(seconds["loss"], seconds["bare backward"]),
        memory["score"] / memory["bare"],
        memory["loss"] / memory["bare backward"],
        ratio(seconds["few layers"], seconds["score"]),
        ratio(imports["mlclipsim.metric"], imports["open_clip"]),
        ours[0] / lpips[0],
        ours[0] / dists[0],
        ours[1] / lpips[1],
        ours[1] / dists[1],
    ]
    return dict(zip(BARS, values, strict=True)), table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--weigh", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.weigh:
        weigh(arguments.weigh)
        return 0
    os.environ["OMP_NUM_THREADS"] = "1"
    ratios, table = measure(arguments.rounds)
    print("| ratio | measured | at most | |\n|---|---|---|---|")
    for name, value in ratios.items():
        print(f"| {name} | {value:.2f} | {BARS[name]:.2f} | {'ok' if value <= BARS[name] else 'MISSED'} |")
    print("\n| metric | forward, ms per image | forward + backward |\n|---|---|---|")
    for name, (forward, backward) in table.items():
        print(f"| {name} | {forward:.1f} | {backward:.1f} |")
    return int(any(value > BARS[name] for name, value in ratios.items()))


if __name__ == "__main__":
    sys.exit(main())
