"""Is the GPU kept busy, and does it say what the processor says? `make bench-gpu`, where there is a GPU.

Throughput: images per second of the steps `similarities` and `predictions`, from the tables that they read to
those that they write, over bare forward passes of the same networks on images that lie on the device already.
A step is timed on two numbers of images: their difference leaves out what it takes to start. Networks have
random weights: ViT-B/32 as encoder, a ResNet-50 as voter.

Agreement: preset `ci` up to table_2, in one copy of the working tree on the GPU, in another without. No
similarity may differ by more than 1e-4, and table_2 must rank metrics alike.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from conftest import Project, copy_project
from mlclipsim.artifacts import read_table, sha256_of, stream_table, write_table
from mlclipsim.devices import forward_passes, own_device
from mlclipsim.images import encode_image
from mlclipsim.machines import load
from mlclipsim.pcmp import vote
from mlclipsim.similarities import build, load_entry

LEAST_SHARE, LARGEST_DIFFERENCE = 0.9, 1e-4
SIDE, BATCH = 224, 64
PER_REFERENCE, PER_ROW_GROUP = 64, 8  # images, references
ENCODER = {"source": "untrained", "model": "ViT-B-32-quickgelu", "family": "vit", "seed": 0}
SHARED = {"batch_size": BATCH, "threads": 1, "seed": 0}

Step = Callable[[dict[str, Path], str], None]  # of tables, in a precision


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--references", type=int, default=64, help=f"of {PER_REFERENCE} images each, then twice as many"
    )
    parser.add_argument(
        "--anyway", action="store_true", help="throughput of the processor, where there is no GPU"
    )
    arguments = parser.parse_args()
    device = own_device()
    on_gpu = device.type == "cuda"
    if not (on_gpu or arguments.anyway):
        print("bench-gpu: expected a GPU, found none; --anyway measures the processor", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entry = random_voter(folder)
        encoder, voter = load_entry("random", ENCODER).to(device), load("random", entry).to(device)
        steps: dict[str, tuple[Step, Callable[[Tensor], object]]] = {
            "similarities": (score, encoder),
            "predictions": (lambda inputs, precision: predict(entry, inputs, precision), voter),
        }
        tables = [
            invent(folder / str(count), count) for count in (arguments.references, 2 * arguments.references)
        ]
        good = True
        for precision in ("float32", "bfloat16") if on_gpu else ("float32",):
            for step, (call, bare) in steps.items():
                took = [seconds(call, inputs, precision) for inputs in tables]
                ours = PER_REFERENCE * arguments.references / (took[1] - took[0])
                alone = bare_rate(bare, device, precision)
                enough = ours >= LEAST_SHARE * alone
                good &= enough
                print(
                    f"{step:13s} {precision:9s} {ours:9.1f} images/s, bare passes {alone:9.1f}: "
                    f"{ours / alone:.2f} {'ok' if enough else f'UNDER {LEAST_SHARE}'}",
                    flush=True,
                )
        if on_gpu:
            for problem in disagreements(copy_project(folder / "gpu"), copy_project(folder / "processor")):
                good = False
                print(f"agreement: {problem}")
    return 0 if good else 1


def invent(folder: Path, count: int) -> dict[str, Path]:
    """``references`` and ``images`` of as many references; the same pixels come again for each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 3, SIDE // 8, SIDE // 8)))
    smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")[0].permute(1, 2, 0).numpy()
    noisy = (smooth + rng.normal(0, 0.03, (PER_REFERENCE, *smooth.shape))).clip(0, 1)
    stored = [encode_image((255 * image).astype(np.uint8)) for image in noisy]
    names = [f"r{number:05d}" for number in range(count)]
    labels = rng.integers(0, 1000, count)
    paths = {"references": folder / "references.parquet", "images": folder / "images.parquet"}
    references = {
        "reference_id": names,
        "photograph": names,
        "role": "pcmp_train",
        "label": labels,
        "caption": "",
    }
    write_table(paths["references"], pd.DataFrame(references).assign(image=stored[0]), "references")
    with stream_table(paths["images"], "images") as append:
        for start in range(0, count, PER_ROW_GROUP):
            append(images_of(names[start : start + PER_ROW_GROUP], stored))
    return paths


def images_of(references: list[str], stored: list[bytes]) -> pd.DataFrame:
    rows = [(f"{name}.{number}", name, image) for name in references for number, image in enumerate(stored)]
    frame = pd.DataFrame(rows, columns=["image_id", "reference_id", "image"])
    made = {"family": "noise", "photometric": False, "strength": 0.03, "psnr_db": 30.0, "evaluations": 1}
    return frame.assign(role="pcmp_train", target_db=30.0, **made)


def random_voter(folder: Path) -> dict[str, Any]:
    """The catalog entry of a ResNet-50 whose weights, random ones, lie in ``folder``."""
    torch.manual_seed(0)
    path = folder / "voter.safetensors"
    save_file(timm.create_model("resnet50").state_dict(), path)
    entry = {"task": "classification", "family": "resnet", "builder": "timm", "architecture": "resnet50"}
    seen = {"input_size": SIDE, "resize": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    weights = {"arguments": {}, "weights": str(path), "sha256": sha256_of(path), "world": "imagenet"}
    return entry | seen | weights


def score(inputs: dict[str, Path], precision: str) -> None:
    spec = SHARED | {"encoder": {"name": "random", "entry": ENCODER}, "precision": precision}
    build(spec, inputs, {"similarities": inputs["images"].with_name("similarities.parquet")})


def predict(voter: dict[str, Any], inputs: dict[str, Path], precision: str) -> None:
    spec = SHARED | {"voters": {"random": voter}, "precision": precision}
    calibrated = inputs["images"].with_name("calibrated.parquet")
    if not calibrated.exists():
        vote.calibrate(spec, inputs, {"calibrated": calibrated})
    outputs = {"predictions": inputs["images"].with_name("predictions.parquet")}
    vote.predict(spec, inputs | {"calibrated": calibrated}, outputs)


def seconds(step: Step, inputs: dict[str, Path], precision: str) -> float:
    """The least of two runs: what disturbs only ever adds."""
    took = []
    for _ in range(2):
        start = time.perf_counter()
        step(inputs, precision)
        took.append(time.perf_counter() - start)
    return min(took)


def bare_rate(network: Callable[[Tensor], object], device: torch.device, precision: str) -> float:
    """Images per second of passes over one batch that lies on the device: the most of five spells."""
    images = torch.rand(BATCH, 3, SIDE, SIDE, device=device)
    passes, rates = (100 if device.type == "cuda" else 1), []
    with torch.no_grad(), forward_passes(device, precision):
        network(images)  # what is set up once
        for _ in range(5):
            finish(device)
            start = time.perf_counter()
            for _ in range(passes):
                network(images)
            finish(device)
            rates.append(passes * BATCH / (time.perf_counter() - start))
    return max(rates)


def finish(device: torch.device) -> None:
    """Wait for what the GPU was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def disagreements(gpu: Project, processor: Project) -> list[str]:
    """In what the tables of the GPU are not those of the processor."""
    gpu.snakemake("table_2", "--cores", "all", "--workflow-profile", "gpu", "--config", "preset=ci")
    processor.environment["CUDA_VISIBLE_DEVICES"] = ""
    processor.snakemake("table_2", "--cores", "all", "--config", "preset=ci")
    problems = []
    for path in sorted((processor.root / "results/ci/shared").glob("similarities-*/similarities.parquet")):
        paths = [path, gpu.root / path.relative_to(processor.root)]
        tables = [read_table(p, "similarities").set_index(["image_id", "reference_id"]) for p in paths]
        largest = float((tables[0] - tables[1]).abs().to_numpy().max())
        print(f"{path.parent.name} of {len(tables[0])} images differ by {largest:.1e} at most", flush=True)
        if largest > LARGEST_DIFFERENCE:
            problems.append(f"{path.parent.name} differ by {largest:.1e}")
    if ranking(gpu) != ranking(processor):
        problems.append("table_2 ranks metrics otherwise")
    return problems


def ranking(project: Project) -> list[str]:
    """Metrics from worst to best, by their macro average over held-out voters."""
    table = pd.read_csv(project.root / "results/ci/default/tables/table_2.csv")
    macro = table[(table["slice"] == "macro") & (table["voters"] == "held_out")]
    return list(macro.sort_values(["estimate", "metric"])["metric"])


if __name__ == "__main__":
    sys.exit(main())
