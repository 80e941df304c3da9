"""Train the zoo: the small networks of the embedded world, from nothing, on rendered scenes.

``snakemake zoo --config retrain_zoo=true`` runs this. Every network is trained by one process on one thread
with batches that depend on (seed, network, step) alone, so a killed training resumes and ends with
the same weights. Weights are stored as float16, and what is measured is what is stored.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from mlclipsim import lifeline
from mlclipsim.artifacts import atomic, sha256_of, write_json
from mlclipsim.provenance import git_state
from mlclipsim.randomness import derive_seed, generator
from mlclipsim.usage import Parser
from mlclipsim.world.architectures import ARCHITECTURES, MEAN, STD
from mlclipsim.world.captions import tokenize
from mlclipsim.world.guidance import GuidedClip, arrange_positions
from mlclipsim.world.pool import ScenePool, augment, render_pool
from mlclipsim.world.scenes import COLOURS, SHAPES, TEXTURES

__all__ = ["PLANS", "Plan", "build", "load", "main", "measure", "train"]

ZOO_SEED = 20260509
POOL_SIZE, QUICK_POOL_SIZE, HELD_OUT_SIZE = 60_000, 4_000, 2_000
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """How one network is trained: AdamW under a one-cycle schedule."""

    steps: int
    batch: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    channels_last: bool = True


# In the order in which they are started: the longest first, so that two workers end together.
PLANS: dict[str, Plan] = {
    "scene-clip": Plan(steps=3000, learning_rate=1.5e-3, channels_last=False),
    "scene-clip-resnet": Plan(steps=1500, learning_rate=2e-3, channels_last=False),
    "scene-vgg": Plan(steps=900, learning_rate=2e-3),
    # torch 2.15 corrupts memory in RepVGG's channels-last backward
    "scene-repvgg": Plan(steps=900, channels_last=False),
    "scene-densenet": Plan(steps=700),
    "scene-vovnet": Plan(steps=700),
    "scene-regnet": Plan(steps=700),
    "scene-mobilenet": Plan(steps=700),
    "scene-shufflenet": Plan(steps=900),
    "scene-darknet": Plan(steps=600),
    "scene-segmenter": Plan(steps=2200, batch=64, learning_rate=2e-3),
    "scene-segmenter-darknet": Plan(steps=2200, batch=64, learning_rate=2e-3),
    "scene-detector": Plan(steps=800, batch=64, learning_rate=2e-3),
    "scene-dla": Plan(steps=500),
}
_ENCODERS = ("scene-clip", "scene-clip-resnet")


def build(name: str, trunk: nn.Module | None = None) -> nn.Module:
    """A network of the zoo with fresh weights, drawn from its own seed; the global random state stays.

    ``trunk`` is the trained classifier that a detector or a segmenter starts from.

    Raises:
        ValueError: no network has this name.
    """
    if name not in PLANS:
        raise ValueError(f"network {name!r} is unknown; expected one of {', '.join(PLANS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(ZOO_SEED, "initial", name))
        if name in _ENCODERS:
            import open_clip

            config = json.loads((files("mlclipsim.world") / "models" / f"{name}.json").read_text())
            clip = open_clip.CLIP(**config)
            if "patch_size" in config["vision_cfg"]:
                arrange_positions(clip)
            return clip
        build_it = ARCHITECTURES[name.removeprefix("scene-")].build
        return build_it(trunk) if trunk else build_it()


def load(name: str, weights: Path) -> nn.Module:
    """A network of the zoo with stored weights, in float32 and evaluation mode."""
    model = build(name)
    stored = load_file(weights)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    return model.eval()


def _trunk(name: str) -> str | None:
    """The network of the zoo that ``name`` starts from."""
    if name in _ENCODERS:
        return None
    trunk = ARCHITECTURES[name.removeprefix("scene-")].trunk
    return f"scene-{trunk}" if trunk else None


def _task(name: str) -> str:
    return "contrastive" if name in _ENCODERS else ARCHITECTURES[name.removeprefix("scene-")].task


def _normalise(x: Tensor) -> Tensor:
    return (x - x.new_tensor(MEAN).view(3, 1, 1)) / x.new_tensor(STD).view(3, 1, 1)


def _targets(pool: ScenePool, index: np.ndarray) -> list[dict[str, Tensor]]:
    """Boxes (k, 4) and labels (k,) of each scene, as torchvision's detectors take them."""
    out = []
    for i in index:
        kept = pool.objects[i, :, 0] >= 0
        boxes = torch.from_numpy(pool.boxes[i][kept].astype(np.float32))
        out.append({"boxes": boxes, "labels": torch.from_numpy(pool.objects[i][kept, 0].astype(np.int64))})
    return out


def _classification_loss(model: nn.Module, pool: ScenePool, index: np.ndarray, seed: int) -> Tensor:
    x = _normalise(augment(pool.images[index], seed)[0])
    return F.cross_entropy(model(x), torch.from_numpy(pool.labels[index]), label_smoothing=0.05)


def _segmentation_loss(model: nn.Module, pool: ScenePool, index: np.ndarray, seed: int) -> Tensor:
    images, truth = augment(pool.images[index], seed, semantic=pool.semantic[index])
    assert truth is not None
    return F.cross_entropy(model(_normalise(images))["out"], truth)


def _detection_loss(model: nn.Module, pool: ScenePool, index: np.ndarray, seed: int) -> Tensor:
    x = _normalise(augment(pool.images[index], seed, geometric=False)[0])
    targets = _targets(pool, index)
    if seed % 2:
        x = x.flip(-1)
        for t in targets:
            t["boxes"] = torch.stack(
                [
                    x.shape[-1] - t["boxes"][:, 2],
                    t["boxes"][:, 1],
                    x.shape[-1] - t["boxes"][:, 0],
                    t["boxes"][:, 3],
                ],
                dim=1,
            )
    return sum(model(list(x), targets).values(), torch.zeros(()))


def _contrastive_loss(model: nn.Module, pool: ScenePool, index: np.ndarray, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    images, semantic = augment(pool.images[index], seed, semantic=pool.semantic[index])
    text = tokenize([pool.caption(int(i), rng) for i in index])
    objects = torch.from_numpy(pool.objects[index, 0].astype(np.int64))
    return model(_normalise(images), text, objects, semantic)


_LOSSES: dict[str, Callable[[nn.Module, ScenePool, np.ndarray, int], Tensor]] = {
    "classification": _classification_loss,
    "segmentation": _segmentation_loss,
    "detection": _detection_loss,
    "contrastive": _contrastive_loss,
}


def _batch(
    pool: ScenePool, task: str, plan: Plan, name: str, step: int, surfaces: dict[int, np.ndarray]
) -> np.ndarray:
    """Indices of a step's scenes. Every second contrastive batch shares the largest object's surface.

    Colour and texture alone tell most captions of a random batch apart, and a tower then never learns shapes;
    among scenes of one surface they do not help.
    """
    rng = generator(ZOO_SEED, "batch", name, step)
    among = np.arange(len(pool))
    if task == "contrastive" and step % 2:
        among = surfaces[int(rng.integers(len(surfaces)))]
    return np.sort(rng.choice(among, plan.batch, replace=len(among) < plan.batch))


def _learning_rate(plan: Plan, step: int) -> float:
    """One cycle: linear warm-up over 8 % of the steps, then cosine to 1 %."""
    warm = max(1, int(0.08 * plan.steps))
    if step < warm:
        return plan.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, plan.steps - warm)
    return plan.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def _load_checkpoint(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def train(
    name: str, pool: ScenePool, plan: Plan, checkpoint: Path, trunk: Path | None = None, position: int = 0
) -> nn.Module:
    """Train one network, resuming from ``checkpoint`` (written every minute) if it is there.

    ``trunk`` holds the weights of the classifier that it starts from, if it starts from one.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
    """
    task = _task(name)
    start = _trunk(name)
    model: Any = build(name, load(start, trunk) if start and trunk else None)
    if task == "contrastive":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(ZOO_SEED, "guidance", name))
            model = GuidedClip(model)
    model.train()
    if plan.channels_last:
        model = model.to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    first = _load_checkpoint(checkpoint, model, optimiser)
    surface = pool.objects[:, 0, 1].astype(int) * len(TEXTURES) + pool.objects[:, 0, 2]
    surfaces = {i: np.flatnonzero(surface == s) for i, s in enumerate(np.unique(surface))}
    bar = tqdm(
        range(first, plan.steps),
        initial=first,
        total=plan.steps,
        desc=f"{name:18s}",
        position=position,
        mininterval=5,
        smoothing=0.05,
    )
    saved = time.monotonic()
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(plan, step)
        index = _batch(pool, task, plan, name, step, surfaces)
        with torch.random.fork_rng(devices=[]):  # dropout and stochastic depth draw from here
            seed = derive_seed(ZOO_SEED, "augment", name, step)
            torch.manual_seed(seed)
            loss = _LOSSES[task](model, pool, index, seed)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"{name}: the loss is {loss.item()} at step {step}; lower its learning rate"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if task == "contrastive":
            with torch.no_grad():
                model.clip.logit_scale.clamp_(0, math.log(100))
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            with atomic(checkpoint) as temporary:
                torch.save(state, temporary)
            saved = time.monotonic()
    return (model.clip if isinstance(model, GuidedClip) else model).eval()


def _half(model: nn.Module) -> dict[str, Tensor]:
    """The state as it ships: float16 (integers kept), contiguous."""
    return {
        k: (v.half() if v.is_floating_point() else v).contiguous().clone()
        for k, v in model.state_dict().items()
    }


@torch.inference_mode()
def measure(name: str, model: nn.Module, pool: ScenePool) -> dict[str, float]:
    """Clean accuracies on held-out scenes: what the manifest records."""
    task, n = _task(name), len(pool)
    batches = [np.arange(s, min(n, s + 250)) for s in range(0, n, 250)]

    def images(index: np.ndarray) -> Tensor:
        return _normalise(torch.from_numpy(pool.images[index]).permute(0, 3, 1, 2).float() / 255)

    if task == "classification":
        correct = sum(int((model(images(b)).argmax(1).numpy() == pool.labels[b]).sum()) for b in batches)
        return {"accuracy": correct / n}
    if task == "segmentation":
        from torchmetrics.classification import MulticlassJaccardIndex

        index = MulticlassJaccardIndex(1 + len(SHAPES))
        for b in batches:
            index.update(
                model(images(b))["out"].argmax(1), torch.from_numpy(pool.semantic[b].astype(np.int64))
            )
        return {"mean_iou": float(index.compute())}
    if task == "detection":
        from torchmetrics.detection import MeanAveragePrecision

        precision = MeanAveragePrecision(iou_thresholds=[0.5])
        for b in batches:
            precision.update(model(list(images(b))), _targets(pool, b))
        return {"ap50": float(precision.compute()["map_50"])}
    features = F.normalize(torch.cat([model.encode_image(images(b)) for b in batches]), dim=1)  # type: ignore[operator]
    truth = pool.objects[:, 0]
    scores = {}
    for column, words in ((0, tuple(SHAPES)), (1, tuple(COLOURS))):
        classes = []
        for word in words:
            prompts = [
                f"a large {c} {t} {s}"
                for s in ([word] if column == 0 else SHAPES)
                for c in ([word] if column == 1 else COLOURS)
                for t in TEXTURES
            ]
            text = F.normalize(model.encode_text(tokenize(prompts)), dim=1)  # type: ignore[operator]
            classes.append(F.normalize(text.mean(0), dim=0))
        guess = (features @ torch.stack(classes).T).argmax(1).numpy()
        scores[f"zero_shot_{'shape' if column == 0 else 'colour'}"] = float(
            (guess == truth[:, column]).mean()
        )
    return scores


def _pool_size(steps_scale: float) -> int:
    return POOL_SIZE if steps_scale >= 0.5 else QUICK_POOL_SIZE


def _make(name: str, output: Path, work: Path, steps_scale: float, position: int) -> dict[str, Any]:
    """Train, store and measure one network; done already: read what was measured."""
    record = work / f"{name}.json"
    weights = output / f"{name}.safetensors"
    if record.exists() and weights.exists():
        stored = json.loads(record.read_text())
        if stored["sha256"] == sha256_of(weights):
            return stored
    trunk = output / f"{_trunk(name)}.safetensors" if _trunk(name) else None
    if trunk and not trunk.exists():
        raise FileNotFoundError(
            f"{name} starts from {_trunk(name)}, whose weights {trunk} are not there; train that one too"
        )
    torch.set_num_threads(1)
    started = time.monotonic()
    plan = PLANS[name]
    plan = Plan(**{**plan.__dict__, "steps": max(2, round(plan.steps * steps_scale))})
    pool = render_pool("zoo_train", _pool_size(steps_scale), ZOO_SEED, work / "pool")
    model = train(name, pool, plan, work / f"{name}.checkpoint.pt", trunk, position)
    with atomic(weights) as temporary:
        save_file(_half(model), temporary)
    stored_model = load(name, weights)
    held_out = render_pool("zoo_val", HELD_OUT_SIZE, ZOO_SEED, work / "pool")
    result = {
        "sha256": sha256_of(weights),
        "task": _task(name),
        "family": {"scene-clip": "vit", "scene-clip-resnet": "resnet"}.get(name)
        or ARCHITECTURES[name.removeprefix("scene-")].family,
        "parameters": sum(p.numel() for p in stored_model.parameters()),
        "clean": measure(name, stored_model, held_out),
        "n_held_out": len(held_out),
        "steps": plan.steps,
        "batch": plan.batch,
        "seed": ZOO_SEED,
        "starts_from": _trunk(name),
        "command": f"mlclipsim zoo --output weights --work work --only {name}",
        "commit": git_state()[0],
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(record, result)
    return result


def main(argv: list[str] | None = None) -> int:
    """``mlclipsim zoo``: train what is asked for, write weights and manifest."""
    parser = Parser(prog="mlclipsim zoo", description=main.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for weights and manifest.json")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for scenes and resumable checkpoints"
    )
    parser.add_argument("--only", nargs="*", choices=list(PLANS), default=list(PLANS), metavar="NAME")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="below 1: a quick, worse training")
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    # About 4 ms a sample, augmentation included, and 10 ms a CLIP sample on one core of 2026.
    samples = {name: PLANS[name].steps * PLANS[name].batch * arguments.steps_scale for name in arguments.only}
    minutes = sum(s * (10e-3 if _task(n) == "contrastive" else 4e-3) for n, s in samples.items()) / 60
    print(
        f"training {len(samples)} networks: about {minutes / arguments.workers:.0f} min on "
        f"{arguments.workers} core(s)"
    )
    for role, n in (("zoo_train", _pool_size(arguments.steps_scale)), ("zoo_val", HELD_OUT_SIZE)):
        render_pool(role, n, ZOO_SEED, arguments.work / "pool", arguments.workers)
    manifest: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    # what starts from a classifier of the zoo waits until that is trained
    waves = [[n for n in arguments.only if not _trunk(n)], [n for n in arguments.only if _trunk(n)]]
    with ProcessPoolExecutor(
        arguments.workers, mp_context=context, initializer=lifeline.follow, initargs=(os.getpid(),)
    ) as executor:
        for wave in waves:
            jobs = {
                executor.submit(_make, n, arguments.output, arguments.work, arguments.steps_scale, i): n
                for i, n in enumerate(wave)
            }
            for job in as_completed(jobs):
                manifest[jobs[job]] = job.result()
                print(f"{jobs[job]}: {manifest[jobs[job]]['clean']}", flush=True)
    path = arguments.output / "manifest.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, {**known, **manifest})
    return 0
