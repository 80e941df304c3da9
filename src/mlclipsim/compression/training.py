"""One loop that trains codecs, from nothing or from another: resumable, and bit-equal after a kill.

What is descended is an :class:`Objective`: it gives the batch of a step, its losses, and a validation. The
loop does the rest: two optimisers (the quantiles of entropy models have a loss of their own), clipping,
a one-cycle schedule, mixed precision on a GPU, checkpoints, and a stop at the first loss that is no number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Adam
from tqdm import tqdm

from mlclipsim.artifacts import atomic
from mlclipsim.compression.codecs import CompressionModel, EntropyModel, RateDistortionLoss
from mlclipsim.randomness import derive_seed

__all__ = ["Objective", "RateDistortionLoss", "Schedule", "keep_float32", "train"]

CHECKPOINT_SECONDS = 60.0


class Objective(Protocol):
    """What a codec is trained for."""

    def batch(self, step: int) -> dict[str, Tensor]:
        """The tensors of one step, by its number alone; ``images`` is ``(B, 3, H, W)`` in [0, 1]."""

    def losses(self, model: CompressionModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars by name; ``loss`` is descended, the others are recorded."""

    def validate(self, model: CompressionModel) -> dict[str, float]:
        """The same on images kept apart, the codec in evaluation mode: latents are rounded."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: linear warm-up, then cosine to 1 % of the learning rate.

    Attributes:
        steps: of both optimisers.
        learning_rate: of Adam, at its height.
        quantile_rate: of the Adam that moves the entropy models' quantiles.
        warm_up: share of the steps.
        clip: largest norm of the gradient.
        validations: how often over the training, the first before any step.
    """

    steps: int
    learning_rate: float
    quantile_rate: float = 1e-3
    warm_up: float = 0.05
    clip: float = 1.0
    validations: int = 20

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        warm = max(1, round(self.warm_up * self.steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        progress = (step - warm) / max(1, self.steps - warm)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def validates(self, step: int) -> bool:
        """Whether a validation comes before ``step`` (``steps``: after the last)."""
        every = max(1, self.steps // self.validations)
        return step % every == 0 or step == self.steps


def train(
    model: CompressionModel,
    objective: Objective,
    schedule: Schedule,
    *,
    seed: int,
    checkpoint: Path,
    settings: str,
    name: str,
) -> list[dict[str, float]]:
    """Train the codec in place, on the device where it lies; frozen parameters stay as they are.

    Args:
        seed: of the noise that stands in for rounding; each step draws its own from it.
        checkpoint: written every minute, and resumed from if it is of the same ``settings``.
        settings: all that the result depends on, as text.
        name: for the progress bar.

    Returns:
        The curve: a row per validation with ``step``, ``learning_rate``, means of the training losses since
        the row before (``train_*``) and the validation's (``validation_*``).

    Raises:
        FloatingPointError: a loss or gradient is not finite; the batch lies beside the checkpoint.
    """
    quantiles = [p for n, p in model.named_parameters() if n.endswith(".quantiles") and p.requires_grad]
    weights = [p for n, p in model.named_parameters() if not n.endswith(".quantiles") and p.requires_grad]
    optimisers = {"weights": Adam(weights, lr=schedule.learning_rate)}
    if quantiles:
        optimisers["quantiles"] = Adam(quantiles, lr=schedule.quantile_rate)
    device = weights[0].device
    on_gpu = device.type == "cuda"
    if on_gpu:
        keep_float32(model, device.type)
    first, curve, sums = _resume(checkpoint, settings, model, optimisers)
    saved = time.monotonic()
    bar = tqdm(
        range(first, schedule.steps + 1), initial=first, total=schedule.steps, desc=name, mininterval=5
    )
    for step in bar:
        if schedule.validates(step) and (not curve or curve[-1]["step"] < step):
            curve.append(_row(step, schedule, sums, _validated(model, objective)))
            sums = {}
        if step == schedule.steps:
            break
        batch = {key: value.to(device) for key, value in objective.batch(step).items()}
        for group in optimisers["weights"].param_groups:
            group["lr"] = schedule.rate(step)
        for optimiser in optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        _train_mode(model)
        # bfloat16 has the range of float32, and so needs no scaling of the loss
        mixed = torch.autocast(device.type, torch.bfloat16, enabled=on_gpu)
        with torch.random.fork_rng(devices=[device] if on_gpu else []), mixed:
            torch.manual_seed(derive_seed(seed, "noise", step))
            losses = objective.losses(model, batch)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(weights, schedule.clip)
        if not torch.isfinite(losses["loss"] + norm):
            raise _not_finite(name, step, batch, losses, checkpoint)
        if quantiles:
            model.aux_loss().backward()
        for optimiser in optimisers.values():
            optimiser.step()
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + value.item()
        sums["steps"] = sums.get("steps", 0.0) + 1
        if step % 20 == 0:
            bar.set_postfix({key: f"{value.item():.4g}" for key, value in losses.items()})
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(checkpoint, settings, model, optimisers, step + 1, curve, sums)
            saved = time.monotonic()
    _save(checkpoint, settings, model, optimisers, schedule.steps, curve, {})
    return curve


def keep_float32(model: nn.Module, device: str) -> None:
    """Keep entropy models out of autocast: differences of near cumulatives do not bear 8 bits."""
    for module in model.modules():
        if isinstance(module, EntropyModel) and "forward" not in vars(module):
            module.forward = _in_float32(module.forward, device)


def _in_float32(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return forward(*(a.float() if isinstance(a, Tensor) else a for a in arguments), **options)

    return run


def _train_mode(model: nn.Module) -> None:
    """What is frozen acts as in evaluation: a frozen entropy model rounds, as its decoder will find it."""
    for part in model.children():
        part.train(any(p.requires_grad for p in part.parameters()))


def _validated(model: CompressionModel, objective: Objective) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        return objective.validate(model)


def _row(
    step: int, schedule: Schedule, sums: Mapping[str, float], validation: Mapping[str, float]
) -> dict[str, float]:
    row: dict[str, float] = {"step": step, "learning_rate": schedule.rate(min(step, schedule.steps - 1))}
    row |= {f"train_{key}": value / sums["steps"] for key, value in sums.items() if key != "steps"}
    return row | {f"validation_{key}": value for key, value in validation.items()}


def _not_finite(
    name: str, step: int, batch: dict[str, Tensor], losses: dict[str, Tensor], checkpoint: Path
) -> FloatingPointError:
    path = checkpoint.with_name(f"{checkpoint.name}.step-{step}.safetensors")
    with atomic(path) as temporary:
        save_file({key: value.cpu().contiguous() for key, value in batch.items()}, temporary)
    seen = ", ".join(f"{key} {value.item():g}" for key, value in losses.items())
    return FloatingPointError(
        f"{name}: expected finite losses and gradients, got {seen} at step {step}, whose batch is {path}; "
        "lower the learning rate"
    )


def _save(
    path: Path,
    settings: str,
    model: nn.Module,
    optimisers: Mapping[str, Adam],
    step: int,
    curve: list[dict[str, float]],
    sums: dict[str, float],
) -> None:
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "optimisers": {key: optimiser.state_dict() for key, optimiser in optimisers.items()},
        "step": step,
        "curve": curve,
        "sums": sums,
    }
    with atomic(path) as temporary:
        torch.save(state, temporary)


def _resume(
    path: Path, settings: str, model: nn.Module, optimisers: Mapping[str, Adam]
) -> tuple[int, list[dict[str, float]], dict[str, float]]:
    """Step, curve and sums to go on with; those of a start where there is no checkpoint of these settings."""
    if not path.exists():
        return 0, [], {}
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["settings"] != settings:
        return 0, [], {}
    model.load_state_dict(state["model"])
    for key, optimiser in optimisers.items():
        optimiser.load_state_dict(state["optimisers"][key])
    return int(state["step"]), state["curve"], state["sums"]
