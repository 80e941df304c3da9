"""What networks and metrics cost on this machine: the figures of config/costs.yaml, for `mlclipsim plan`.

Processor time on one thread, so that other programs do not count; multiply-accumulates by torch's counter.
Networks whose weights are not here are counted, not timed. Prints YAML of all, or of those named.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from mlclipsim import baselines, pretrained, spec
from mlclipsim.machines import load
from mlclipsim.machines.builders import BUILDERS
from mlclipsim.metric import MLCLIPSim
from mlclipsim.similarities import load_entry

BATCH = 8
SIDES = (64, 224)  # px, of images for metrics; of references in `embedded` and `local`
DETECTORS = {"weights_backbone": None}  # or torchvision downloads the backbone


def main() -> None:
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # whose products the counter does not see
    plan = spec.load({"preset": "local"}, planning=True)
    wanted = sys.argv[1:]
    for catalog, measure in (("machines", machine), ("encoders", encoder), ("metrics", metric)):
        print(f"{catalog}:")
        for name in plan.catalogs[catalog]:
            entry = plan.metric(name) if catalog == "metrics" else plan.entry(catalog, name)
            if entry.get("source") != "untrained" and (not wanted or name in wanted):
                figures = ", ".join(f"{key}: {value:.4g}" for key, value in measure(name, entry).items())
                print(f"  {name}: {{{figures}}}", flush=True)


def machine(name: str, entry: dict) -> dict[str, float]:
    side = entry["input_size"]
    here = None not in pretrained.files(entry).values()
    found = {}
    if entry["builder"] != "onnx":
        options = dict(entry.get("arguments") or {})
        if entry["builder"] == "torchvision" and entry["task"] != "classification":
            options |= DETECTORS
        network = BUILDERS[entry["builder"]](entry["architecture"], None, **options).eval()
        found = size(network, lambda: network(torch.rand(1, 3, side, side)))
    if here:
        machine = load(name, entry)
        images = torch.rand(BATCH, 3, *(min(side, 224),) * 2)
        found["cpu_ms"] = timed(lambda: machine.predict(images, machine.preprocess(images))) / BATCH
    return found


def encoder(name: str, entry: dict) -> dict[str, float]:
    tower = load_entry(name, {**entry, "source": "untrained"})
    scorer = MLCLIPSim(tower)
    images = torch.rand(BATCH, 3, *(tower.image_size,) * 2)
    found = size(tower, lambda: scorer.encode(images[:1]))
    if entry["source"] in ("package", "lit"):
        found["cpu_ms"] = timed(lambda: scorer.encode(images)) / BATCH
    return found


def metric(name: str, entry: dict) -> dict[str, float]:
    if baselines.lacks(entry):
        return {}
    milliseconds = []
    for side in SIDES:
        call, _ = baselines.build(name, entry, side)
        x, y = torch.rand(2, BATCH, 3, side, side)
        milliseconds.append(timed(lambda: call(x, y)) / BATCH)  # noqa: B023 - called at once
    slope = (milliseconds[1] - milliseconds[0]) / (SIDES[1] ** 2 - SIDES[0] ** 2) * 1e6
    return {"ms": max(0.0, milliseconds[0] - slope * SIDES[0] ** 2 / 1e6), "ms_per_megapixel": slope}


def size(network: torch.nn.Module, run: Callable[[], object]) -> dict[str, float]:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    parameters = sum(p.numel() for p in network.parameters())
    return {"gmacs": counter.get_total_flops() / 2e9, "megaparameters": parameters / 1e6}


def timed(run: Callable[[], object]) -> float:
    """Milliseconds of processor time, the least of three after one to warm up."""
    best = float("inf")
    with torch.inference_mode():
        run()
        for _ in range(3):
            started = time.process_time()
            run()
            best = min(best, time.process_time() - started)
    return best * 1e3


if __name__ == "__main__":
    main()
