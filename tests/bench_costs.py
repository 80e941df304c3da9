"""What networks, metrics and codecs cost on this machine: config/costs.yaml, for `mlclipsim plan`.

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
from mlclipsim.compression import codecs
from mlclipsim.compression.classical import ClassicalCodec
from mlclipsim.compression.coding import qualities
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
    measures = {"machines": machine, "encoders": encoder, "metrics": metric, "codecs": codec}
    for catalog, measure in measures.items():
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


def codec(name: str, entry: dict) -> dict[str, float]:
    """Of a megapixel: coding and decoding, at the middle of its qualities, and a training step."""
    quality = qualities(entry)[len(qualities(entry)) // 2]
    side = 192  # of whole strides
    image = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8).numpy()
    if entry["library"] == "pillow":
        coder = ClassicalCodec(entry["model"], quality)
        return {"code_ms_per_megapixel": timed(lambda: coder.decode(coder.encode(image))) / side**2 * 1e6}
    channels = entry.get("channels") or codecs.cfgs[entry["model"]][quality]
    model = codecs.build(entry["model"], channels)
    codecs.update_tables(model)
    learned = codecs.LearnedCodec(model)
    found = {"code_ms_per_megapixel": timed(lambda: learned.decode(learned.encode(image))) / side**2 * 1e6}
    criterion = codecs.RateDistortionLoss(lmbda=0.01, metric="mse")
    optimiser = torch.optim.Adam(p for n, p in model.named_parameters() if not n.endswith(".quantiles"))
    batch = torch.rand(2, 3, side, side)

    def step() -> None:
        with torch.inference_mode(False):
            optimiser.zero_grad()
            criterion(model.train()(batch), batch)["loss"].backward()
            optimiser.step()

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch)
    found["gmacs_per_megapixel"] = counter.get_total_flops() / 2e9 / (2 * side**2) * 1e6
    return found | {"train_ms_per_megapixel": timed(step) / (2 * side**2) * 1e6}


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
