"""A classifier from the catalog: weights verified, preprocessing inside, logits out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.images import resize
from mlclipsim.machines.builders import BUILDERS, OnnxNetwork
from mlclipsim.places import locate

__all__ = ["Classifier", "load"]


class Classifier(nn.Module):
    """A frozen classifier: RGB ``(N, 3, H, W)`` in [0, 1] -> logits ``(N, C)`` in float32.

    Images of another size than the network's are resized inside (shorter side to ``input_size``,
    antialiased, then the central square), so that what is stored, matched and measured stays the image
    itself.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, *, input_size: int, resize: str, mean: list[float], std: list[float]
    ):
        super().__init__()
        if resize not in ("bicubic", "bilinear"):
            raise ValueError(f"resize of a machine: expected bicubic or bilinear, got {resize!r}")
        self.network = network
        self.input_size = input_size
        self.resize = resize
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        # channels_last: the small networks here take a quarter to a half less time on a CPU
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        images = self.preprocess(images).contiguous(memory_format=torch.channels_last)
        return self.network((images - self.mean) / self.std).float()

    def preprocess(self, images: Tensor) -> Tensor:
        """What the network sees, before normalisation: ``(N, 3, input_size, input_size)`` in [0, 1]."""
        if self.resize == "bicubic":
            return resize(images, self.input_size)
        return _bilinear(images, self.input_size)


def _bilinear(images: Tensor, size: int) -> Tensor:
    height, width = images.shape[-2:]
    short = min(height, width)
    if short != size:
        shape = [int(size * side / short) for side in (height, width)]
        images = F.interpolate(images, shape, mode="bilinear", antialias=True, align_corners=False)
    top, left = (round((side - size) / 2) for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def load(name: str, entry: dict[str, Any]) -> Classifier:
    """The classifier that a catalog entry describes (config/catalog/machines.yaml).

    Weights in a file (``assets:``, ``package:`` or a path to ``.safetensors`` or ``.onnx``) must have the
    entry's sha256; other ``weights`` are a pretrained tag that the builder's library fetches. All parameters
    must be there (strict). float16 weights are evaluated in float32.

    Raises:
        ValueError: the entry is no classifier, or names an unknown builder.
        ArtifactError: the file is missing, has another checksum, or does not fit the architecture.
    """
    if entry["task"] != "classification":
        raise ValueError(
            f"machine {name!r}: expected a classifier, got task {entry['task']!r}; only those vote yet"
        )
    weights = entry.get("weights")
    path = locate(weights) if weights and _is_file(weights) else None
    if path is not None:
        _verify(name, path, entry.get("sha256"))
    if entry["builder"] == "onnx":
        if path is None:
            raise ValueError(f"machine {name!r}: builder onnx expects weights in a file, got {weights!r}")
        network: nn.Module = OnnxNetwork(path)
    else:
        network = _build(name, entry, tag=None if path else weights)
        if path is not None:
            _fill(name, network, path)
    return Classifier(
        network,
        input_size=entry["input_size"],
        resize=entry.get("resize") or "bicubic",
        mean=entry["mean"],
        std=entry["std"],
    )


def _is_file(weights: str) -> bool:
    return weights.startswith(("assets:", "package:")) or weights.endswith((".safetensors", ".onnx"))


def _verify(name: str, path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise ArtifactError(
            f"machine {name!r}: its weights {path} are not there; fetch them or set MLCLIPSIM_ASSETS"
        )
    if not expected:
        raise ArtifactError(
            f"machine {name!r}: the catalog has no sha256 for {path}; add it, so that it can be trusted"
        )
    actual = sha256_of(path)
    if actual != expected:
        raise ArtifactError(
            f"machine {name!r}: {path} has sha256 {actual}, expected {expected}; "
            "the file is damaged or another one, fetch it again"
        )


def _build(name: str, entry: dict[str, Any], tag: str | None) -> nn.Module:
    builder = entry["builder"]
    if builder not in BUILDERS:
        known = ", ".join([*BUILDERS, "onnx"])
        raise ValueError(f"machine {name!r}: builder {builder!r} is unknown, expected one of {known}")
    return BUILDERS[builder](entry["architecture"], tag, **(entry.get("arguments") or {}))


def _fill(name: str, network: nn.Module, path: Path) -> None:
    try:
        state = {
            key: value.float() if value.is_floating_point() else value
            for key, value in load_file(path).items()
        }
        network.load_state_dict(state, strict=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"machine {name!r}: {path} does not fit the architecture ({reason}); "
            "correct builder, architecture or arguments in the catalog"
        ) from error
