"""What each metric costs: parameters, multiply-adds, time and memory, all in one run.

Metrics take turns: in every round each runs once, forward and, where it can, forward and backward, so that
whatever else the machine does hits all alike; the median over rounds is reported, with its quartiles. One
thread is timed by the processor time of the process, which is what the clock shows on an idle machine; more
threads, and a GPU, by the clock. Memory is the peak of a process of its own, over what that held before the
metric was built; on a GPU, what the allocator gave out. Images are random, of the run's size: no metric's
cost depends on what they show.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from mlclipsim import baselines, lifeline
from mlclipsim.artifacts import write_table
from mlclipsim.baselines import Metric
from mlclipsim.devices import own_device
from mlclipsim.metric import MLCLIPSim
from mlclipsim.randomness import generator
from mlclipsim.similarities import load_entry

__all__ = ["count", "measure"]

log = logging.getLogger(__name__)

_OURS = {  # metric -> its variant, its weights (None: as fitted)
    "ml_clipsim": ("fitted", None),
    "ml_clipsim_uniform": ("uniform", "uniform"),
    "clip_global": ("global", "global"),
}


@dataclass(frozen=True)
class Candidate:
    """A metric to be measured."""

    metric: str
    kind: str  # ours | fidelity | perceptual
    make: Callable[[], tuple[Metric, str]]  # on the device, and the variant's name


def measure(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``cost``: weights [, ``checkpoint``] -> cost, table_7's rows.

    ``spec``: ``seed``; ``threads`` of torch; ``cost`` with ``images`` in a call and ``rounds``;
    ``image_size``; ``metrics`` {name: catalog entry}; ``encoder`` {``name``, ``entry``}. A metric that lacks
    its library or weights has a row that says what it needs.

    Columns beyond table_7's: quartiles over rounds (``ms_low``, ``ms_high``), the same figures of forward and
    backward together (``.._backward``; none where no gradient comes out), ``n_rounds``, ``n_images`` in a
    call. Everything is per pair of images but the peaks, which are of a call.
    """
    torch.set_num_threads(int(spec["threads"]))
    device = own_device().type
    candidates = [*_ours(spec, inputs, device), *_baselines(spec, device)]
    pair = _images(spec, device)
    if device == "cuda":
        peaks = [_weigh(candidate, pair) for candidate in candidates]
    else:  # before anything runs here: children begin as copies of this process, memory and all
        peaks = [_in_child(candidate, pair) for candidate in candidates]

    made = [candidate.make() for candidate in candidates]
    counts = [count(metric, *pair) for metric, _ in made]
    rounds = int(spec["cost"]["rounds"])
    clock = time.process_time if device == "cpu" and int(spec["threads"]) == 1 else time.perf_counter
    seconds = _seconds([metric for metric, _ in made], pair, rounds, clock)
    same = {
        "device": device,
        "threads": int(spec["threads"]),
        "image_size": int(spec["image_size"]),
        "n_rounds": rounds,
        "n_images": len(pair[0]),
        "processor": _processor(device),
    }
    rows = [
        {
            "metric": candidate.metric,
            "variant": variant,
            "n_parameters": n_parameters,
            "macs": macs,
            **_milliseconds(taken, len(pair[0])),
            "peak_mib": peak[0],
            "peak_mib_backward": peak[1],
            "class": candidate.kind,
            "note": "",
        }
        for candidate, (_, variant), (n_parameters, macs), taken, peak in zip(
            candidates, made, counts, seconds, peaks, strict=True
        )
    ]
    ran = {row["metric"] for row in rows}
    rows += [
        {
            "metric": name,
            "variant": entry.get("variant", ""),
            "class": entry.get("class", "fidelity"),
            "note": f"not run: needs {entry.get('needs')}",
        }
        for name, entry in spec["metrics"].items()
        if name not in ran
    ]
    frame = pd.DataFrame(rows).assign(**same)
    write_table(outputs["cost"], frame.astype({"n_parameters": "Int64", "macs": "Int64"}), "cost")


def _ours(spec: dict[str, Any], inputs: dict[str, Path], device: str) -> list[Candidate]:
    entry = spec["encoder"]["entry"]

    def make(variant: str, weights: str | None) -> tuple[Metric, str]:
        metric = MLCLIPSim(
            load_entry(spec["encoder"]["name"], entry, inputs.get("checkpoint")),
            weights=weights or str(inputs["weights"]),
            size_policy=entry.get("size_policy", "resize"),
            device=device,
        )
        return lambda distorted, reference: metric(reference=reference, distorted=distorted), variant

    return [Candidate(name, "ours", partial(make, *arguments)) for name, arguments in _OURS.items()]


def _baselines(spec: dict[str, Any], device: str) -> list[Candidate]:
    candidates = []
    for name, entry in spec["metrics"].items():
        if reason := baselines.lacks(entry):
            log.warning("%s is not run: %s; needs %s", name, reason, entry.get("needs"))
        else:
            make = partial(baselines.build, name, entry, int(spec["image_size"]), device)
            candidates.append(Candidate(name, entry.get("class", "fidelity"), make))
    return candidates


def _images(spec: dict[str, Any], device: str) -> tuple[Tensor, Tensor]:
    """Distorted images and their references, (N, 3, H, W) each."""
    side = int(spec["image_size"])
    rng = generator(spec["seed"], "cost")
    reference, noise = rng.random((2, int(spec["cost"]["images"]), 3, side, side), dtype=np.float32)
    return torch.from_numpy(0.8 * reference + 0.2 * noise).to(device), torch.from_numpy(reference).to(device)


def _forward(metric: Metric, distorted: Tensor, reference: Tensor) -> bool:
    with torch.no_grad():
        metric(distorted, reference)
    return True


def _backward(metric: Metric, distorted: Tensor, reference: Tensor) -> bool:
    """The gradient in the distorted images, which a loss needs; False where none comes out."""
    images = distorted.clone().requires_grad_()
    values = metric(images, reference)
    if not values.requires_grad:
        return False
    torch.autograd.grad(values.sum(), images)
    return True


def count(metric: Metric, distorted: Tensor, reference: Tensor) -> tuple[int, int]:
    """Parameters of the networks that a call runs, trained or frozen; and multiply-adds per pair of images.

    Those of matrix products, convolutions and attention are counted, which is nearly all that networks do.
    Element-wise operations, normalisation, pooling, interpolation and Fourier transforms are not, so most
    metrics without a network do more than the figure says.
    """
    modules: list[nn.Module] = []
    hook = register_module_forward_pre_hook(lambda module, _: modules.append(module))
    try:
        with FlopCounterMode(display=False) as counter:
            _forward(metric, distorted, reference)
    finally:
        hook.remove()
    parameters = {id(part): part.numel() for module in modules for part in module.parameters()}
    return sum(parameters.values()), counter.get_total_flops() // 2 // len(distorted)


def _seconds(
    metrics: list[Metric], pair: tuple[Tensor, Tensor], rounds: int, clock: Callable[[], float]
) -> list[dict[str, list[float]]]:
    """Per metric, what each round took by the clock, after one that warms up: ``forward``, and ``backward``
    (with the forward pass that it needs) where a gradient comes out.
    """
    calls = [
        {name: call for name, call in (("forward", _forward), ("backward", _backward)) if call(metric, *pair)}
        for metric in metrics
    ]
    taken: list[dict[str, list[float]]] = [{name: [] for name in of_metric} for of_metric in calls]
    for _ in range(rounds):
        for metric, of_metric, seconds in zip(metrics, calls, taken, strict=True):
            for name, call in of_metric.items():
                _wait(pair[0])
                started = clock()
                call(metric, *pair)
                _wait(pair[0])
                seconds[name].append(clock() - started)
    return taken


def _wait(images: Tensor) -> None:
    """A GPU answers before it is done."""
    if images.is_cuda:
        torch.cuda.synchronize()


def _milliseconds(taken: dict[str, list[float]], n_images: int) -> dict[str, float]:
    """Median and quartiles per pair of images; NaN without gradient."""
    figures = {}
    for direction, ending in (("forward", ""), ("backward", "_backward")):
        rounds = 1000 * np.array(taken.get(direction, [np.nan])) / n_images
        for name, quantile in (("ms_per_image", 0.5), ("ms_low", 0.25), ("ms_high", 0.75)):
            figures[name + ending] = float(np.quantile(rounds, quantile))
    return figures


def _in_child(candidate: Candidate, pair: tuple[Tensor, Tensor]) -> np.ndarray:
    """:func:`_weigh` in a process of its own; forked, since importing torch anew takes seconds."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    parent = os.getpid()

    def weigh() -> None:
        lifeline.follow(parent)
        sender.send(_weigh(candidate, pair))

    child = context.Process(target=weigh)
    child.start()
    sender.close()  # here, so that the end of the child is the end of the pipe
    try:
        return receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(
            f"{candidate.metric}: expected a peak of memory from its process, which ended with code "
            f"{child.exitcode}; what went wrong is above"
        ) from None
    finally:
        child.join()


def _weigh(candidate: Candidate, pair: tuple[Tensor, Tensor]) -> np.ndarray:
    """Peak MiB of a call, forward and forward with backward, over what was held before the metric was built:
    its weights count, what it took to load them does not. NaN where no gradient comes out.
    """
    cuda = pair[0].is_cuda
    _backward(_nothing, *pair)
    before = torch.cuda.memory_allocated() if cuda else _resident("VmRSS")
    metric, _ = candidate.make()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):  # a kernel without it: loading counts too
            Path("/proc/self/clear_refs").write_text("5")  # from here on VmHWM is the peak (man 5 proc)
    peaks = []
    for call in (_forward, _backward):
        done = call(metric, *pair)
        peak = torch.cuda.max_memory_allocated() if cuda else _resident("VmHWM")
        peaks.append((peak - before) / 2**20 if done else np.nan)
    return np.array(peaks)


def _nothing(distorted: Tensor, reference: Tensor) -> Tensor:
    """A metric that is next to nothing: the libraries' own code comes into memory as it is first used."""
    corner = (distorted - reference)[..., :16, :16]
    return nn.functional.conv2d(corner, corner.detach()[:, :, :3, :3]).mean(dim=(1, 2, 3))


def _resident(which: str) -> int:
    """Bytes of this process in memory: ``VmRSS`` now, ``VmHWM`` at most so far."""
    found = re.search(rf"^{which}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()
