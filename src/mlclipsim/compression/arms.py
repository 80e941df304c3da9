"""The arms of the rate-task study: what each adds to the loss, how much of it, and what it trains.

    L = R + lambda_arm D,    D = 255^2 MSE + beta T        (ms_ssim: D = 1 - MS-SSIM alone)

R in bits per pixel. Two rules, applied at the base codec's output over a fixed set of images, make arms
comparable: beta gives the gradients of beta T and 255^2 MSE the ratio rho of their norms; and lambda_arm is
lambda D_MSE / D, so that the loss weighs rate against distortion at the start as the base codec's own did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlclipsim.artifacts import read_json, sha256_of
from mlclipsim.compression.codecs import CompressionModel, RateDistortionLoss, forward
from mlclipsim.compression.terms import (
    ClipDissimilarity,
    FeatureDistance,
    MSSSIMLoss,
    Originals,
    PredictionShift,
    Term,
)
from mlclipsim.machines import load as load_machine
from mlclipsim.metric import MLCLIPSim
from mlclipsim.randomness import generator
from mlclipsim.similarities import load_entry

__all__ = ["ARMS", "Arm", "ArmObjective", "Balance", "balance", "build_term", "freeze", "identity"]

PEAK = 255.0**2


@dataclass(frozen=True)
class Arm:
    """One way to fine-tune a codec.

    Attributes:
        term: what T is; None: the squared error alone.
        weights: of the layers, where T is ML-CLIPSim: ``fitted``, ``uniform`` or ``global``.
        squared_error: whether D has it, beside T.
        decoder_only: only the synthesis transform is trained, so that bitstreams stay those of the base.
    """

    term: type[Term] | None = None
    weights: str = ""
    squared_error: bool = True
    decoder_only: bool = False

    @property
    def weighted(self) -> bool:
        """Whether there is a weight rho to be tried."""
        return self.term is not None and self.squared_error


ARMS: dict[str, Arm] = {
    "mse": Arm(),
    "ms_ssim": Arm(MSSSIMLoss, squared_error=False),
    "ml_clipsim": Arm(ClipDissimilarity, weights="fitted"),
    "ml_clipsim_uniform": Arm(ClipDissimilarity, weights="uniform"),
    "clip_global": Arm(ClipDissimilarity, weights="global"),
    "deep_features": Arm(FeatureDistance),
    "task_kl": Arm(PredictionShift),
    "decoder_only": Arm(ClipDissimilarity, weights="fitted", decoder_only=True),
}

# The key of the spec that names a term's network.
_NETWORK: dict[type[FeatureDistance] | type[PredictionShift], str] = {
    FeatureDistance: "feature_network",
    PredictionShift: "teacher",
}


def build_term(name: str, spec: Mapping[str, Any], inputs: Mapping[str, Path]) -> Term | None:
    """The term of an arm.

    Args:
        spec: ``encoder``, ``feature_network`` and ``teacher``: each {``name``, ``entry``: of its catalog};
            ``compression``: {``fold``: whose fitted weights}.
        inputs: ``weights``: the weights.json of the fit; ``checkpoint`` where a step made the encoder.

    Raises:
        ValueError: an unknown arm, or a machine that is no classifier.
    """
    if name not in ARMS:
        raise ValueError(f"arm {name!r} is unknown; expected one of {', '.join(ARMS)}")
    arm = ARMS[name]
    if arm.term is ClipDissimilarity:
        tower = spec["encoder"]
        encoder = load_entry(tower["name"], tower["entry"], inputs.get("checkpoint"))
        fitted = arm.weights == "fitted"
        return ClipDissimilarity(
            MLCLIPSim(
                encoder,
                weights=inputs["weights"] if fitted else arm.weights,
                fold=spec["compression"]["fold"] if fitted else None,
            )
        )
    if arm.term is FeatureDistance or arm.term is PredictionShift:
        chosen = spec[_NETWORK[arm.term]]
        machine = load_machine(chosen["name"], chosen["entry"])
        if machine.task != "classification":
            raise ValueError(
                f"machine {chosen['name']!r}: expected a classifier, got one for {machine.task}; name another"
            )
        return arm.term(machine)
    return arm.term() if arm.term else None


def identity(name: str, spec: Mapping[str, Any], inputs: Mapping[str, Path]) -> dict[str, Any]:
    """What the term of an arm is made of: its networks' checksums, and the layer weights.

    Arguments as of :func:`build_term`; nothing is loaded.
    """
    arm = ARMS[name]
    if arm.term is FeatureDistance or arm.term is PredictionShift:
        chosen = spec[_NETWORK[arm.term]]
        return {"network": chosen["name"], "sha256": chosen["entry"].get("sha256")}
    if arm.term is not ClipDissimilarity:
        return {}
    tower = spec["encoder"]
    made = inputs.get("checkpoint")
    loss = {
        "encoder": tower["name"],
        "sha256": sha256_of(made) if made else tower["entry"].get("sha256"),
        "weights": arm.weights,
    }
    if arm.weights == "fitted":
        fitted = read_json(inputs["weights"])
        (fold,) = [one for one in fitted["folds"] if one["fold"] == spec["compression"]["fold"]]
        loss["weights"] = dict(zip(fitted["layers"], fold["weights"], strict=True))
    return loss


@dataclass(frozen=True)
class Balance:
    """The weights of an arm's loss, and what they were derived from; D_MSE is 255^2 MSE.

    Attributes:
        lmbda: of the base codec.
        lmbda_arm: lambda D_MSE / D.
        beta: of T; 0 without one.
        rho: the ratio of gradient norms that beta stands for; None where no weight is free.
        base_squared_error, base_term: D_MSE and T of the base codec; None without T.
    """

    lmbda: float
    lmbda_arm: float
    beta: float
    rho: float | None
    base_squared_error: float
    base_term: float | None

    def record(self) -> dict[str, Any]:
        return asdict(self)


def balance(
    arm: Arm,
    rho: float | None,
    lmbda: float,
    base: CompressionModel,
    originals: Originals | None,
    images: Tensor,
) -> Balance:
    """beta and lambda_arm at the base codec's output.

    Args:
        rho: ratio of the norms of the gradients of beta T and 255^2 MSE with respect to that output.
        originals: the images ``(N, 3, H, W)`` as the term of the arm remembers them; None for ``mse``.

    Raises:
        ValueError: a rho that is not positive, or a term without gradient.
    """
    if arm.weighted and not (rho and rho > 0):
        raise ValueError(f"rho: expected a positive ratio of gradient norms, got {rho}; 1 balances them")
    base.eval()
    distances, terms, squares = [], [], torch.zeros(2, dtype=torch.float64)
    for number, image in enumerate(images):
        with torch.no_grad():
            decoded = forward(base, image[None])["x_hat"]
        decoded.requires_grad_()
        error = PEAK * (decoded - image).square().mean()
        distances.append(error.item())
        parts = [error]
        if originals is not None:
            parts.append(originals.distance([number], decoded))
            terms.append(parts[1].item())
        for place, part in enumerate(parts):
            (gradient,) = torch.autograd.grad(part, decoded)
            squares[place] += gradient.double().square().sum().cpu()
    error, term = (sum(values) / len(images) for values in (distances, terms))
    if not arm.weighted:
        distortion = error if arm.squared_error else term
        beta = 0.0 if arm.squared_error else 1.0
        rho = None
    else:
        assert rho is not None
        if not squares[1] > 0:
            raise ValueError("expected a term with a gradient at the base codec's output, got none")
        beta = rho * float((squares[0] / squares[1]).sqrt())
        distortion = error + beta * term
    lmbda_arm = lmbda * error / distortion
    return Balance(lmbda, lmbda_arm, beta, rho, error, term if originals is not None else None)


def freeze(model: CompressionModel, arm: Arm) -> None:
    """Leave trainable what the arm trains."""
    if arm.decoder_only:
        model.requires_grad_(False)
        model.g_s.requires_grad_(True)


class ArmObjective:
    """The loss of an arm on a fixed list of images, in an order that no arm changes.

    Args:
        training, validation: their images, and what the arm's term remembers of them.
        proxy: of the validation's images, for a figure of the machines' side that all arms share.
        seed: of the order of images; epochs follow each other without a gap.
        batch: images per step.
    """

    def __init__(
        self,
        arm: Arm,
        weights: Balance,
        training: Originals,
        validation: Originals,
        proxy: Originals,
        *,
        seed: int,
        batch: int,
    ) -> None:
        self.arm, self.weights = arm, weights
        self.training, self.validation, self.proxy = training, validation, proxy
        self.seed, self.size = seed, batch
        self._rate = RateDistortionLoss(lmbda=1.0, metric="mse")

    def batch(self, step: int) -> dict[str, Tensor]:
        n = len(self.training)
        index = [
            self._order(place // n)[place % n] for place in range(step * self.size, (step + 1) * self.size)
        ]
        return {"images": self.training.images[index], "index": torch.tensor(index)}

    def _order(self, epoch: int) -> list[int]:
        return generator(self.seed, "codec_order", epoch).permutation(len(self.training)).tolist()

    def losses(self, model: CompressionModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._losses(forward(model, batch["images"]), batch, self.training)

    def _losses(
        self, output: dict[str, Any], batch: dict[str, Tensor], originals: Originals
    ) -> dict[str, Tensor]:
        found = self._rate(output, batch["images"])
        losses = {"bpp": found["bpp_loss"], "mse": found["mse_loss"]}
        distortion = PEAK * losses["mse"] if self.arm.squared_error else torch.zeros_like(losses["mse"])
        if self.arm.term is not None:
            losses["term"] = originals.distance(batch["index"].tolist(), output["x_hat"])
            distortion = distortion + self.weights.beta * losses["term"]
        return {"loss": losses["bpp"] + self.weights.lmbda_arm * distortion} | losses

    def validate(self, model: CompressionModel) -> dict[str, float]:
        """The losses' means, and ``task``, the distance that the proxy finds."""
        device = next(model.parameters()).device
        sums: dict[str, float] = {}
        n = len(self.validation)
        for start in range(0, n, self.size):
            index = list(range(start, min(n, start + self.size)))
            batch = {"images": self.validation.images[index].to(device), "index": torch.tensor(index)}
            output = forward(model, batch["images"])
            losses = self._losses(output, batch, self.validation)
            losses["task"] = self.proxy.distance(index, output["x_hat"])
            for key, value in losses.items():
                sums[key] = sums.get(key, 0.0) + value.item() * len(index)
        return {key: value / n for key, value in sums.items()}
