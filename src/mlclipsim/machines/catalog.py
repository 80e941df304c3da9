"""From a catalog entry to a machine: weights verified, architecture built, preprocessing set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.machines.builders import BUILDERS, OnnxNetwork
from mlclipsim.machines.classifier import Classifier
from mlclipsim.machines.detector import Detector, yolox_rows
from mlclipsim.machines.machine import Machine
from mlclipsim.machines.segmenter import Segmenter
from mlclipsim.places import locate

__all__ = ["load"]

_TASKS: dict[str, type[Machine]] = {kind.task: kind for kind in (Classifier, Detector, Segmenter)}


def load(name: str, entry: dict[str, Any]) -> Machine:
    """The machine that a catalog entry describes (config/catalog/machines.yaml).

    Weights in a file (``assets:``, ``package:`` or a path to ``.safetensors`` or ``.onnx``) must have the
    entry's sha256; other ``weights`` are a pretrained tag that the builder's library fetches. All parameters
    must be there (strict). float16 weights are evaluated in float32.

    Raises:
        ValueError: an unknown task, builder or preprocessing.
        ArtifactError: the file is missing, has another checksum, does not fit the architecture or the task,
            or is an ONNX graph and onnxruntime is not installed.
    """
    task = entry["task"]
    if task not in _TASKS:
        raise ValueError(f"machine {name!r}: task {task!r} is unknown, expected one of {', '.join(_TASKS)}")
    weights = entry.get("weights")
    path = locate(weights) if weights and _is_file(weights) else None
    if path is not None:
        _verify(name, path, entry.get("sha256"))
    if entry["builder"] == "onnx":
        if path is None:
            raise ValueError(f"machine {name!r}: builder onnx expects weights in a file, got {weights!r}")
        network: nn.Module = _onnx(name, entry, path)
    else:
        network = _build(name, entry, tag=None if path else weights)
        if path is not None:
            _fill(name, network, path)
    optional = {key: entry[key] for key in ("fit", "channels", "output") if entry.get(key)}
    try:
        return _TASKS[task](
            network,
            input_size=entry["input_size"],
            resize=entry.get("resize") or "bicubic",
            mean=entry["mean"],
            std=entry["std"],
            **optional,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"machine {name!r}: {error}; correct its catalog entry") from error


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


def _onnx(name: str, entry: dict[str, Any], path: Path) -> OnnxNetwork:
    """The graph, if its input and first output have the shapes that the entry promises."""
    try:
        network = OnnxNetwork(path)
    except ModuleNotFoundError as error:
        raise ArtifactError(
            f"machine {name!r}: {path} is an ONNX graph and onnxruntime is not installed; "
            "pip install 'mlclipsim[suite]'"
        ) from error
    except Exception as error:  # onnxruntime has an exception class per kind of damage, all its own
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"machine {name!r}: {path} is no ONNX graph that runs here ({reason})") from error
    size = entry["input_size"]
    task, output = entry["task"], entry.get("output")
    if task == "detection" and output != "yolox":
        raise ValueError(
            f"machine {name!r}: expected output yolox for an ONNX detector, got {output!r}; "
            "correct its catalog entry"
        )
    # None: any number. The batch may be fixed at 1, for then images go through one by one.
    wanted: dict[str, tuple[str, list[int | None]]] = {
        "classification": ("(N, classes)", [None, None]),
        "segmentation": ("(N, classes, H, W)", [None, None, None, None]),
        "detection": (f"(N, {yolox_rows(size)}, 5 + classes)", [None, yolox_rows(size), None]),
    }
    square: tuple[str, list[int | None]] = (f"(N, 3, {size}, {size})", [None, 3, size, size])
    for what, shape, (text, expected) in (
        ("an input", network.input_shape, square),
        ("a first output", network.output_shape, wanted[task]),
    ):
        if len(shape) != len(expected) or any(
            isinstance(have, int) and want is not None and have != want
            for have, want in zip(shape, expected, strict=True)
        ):
            raise ArtifactError(
                f"machine {name!r}: expected an ONNX graph with {what} {text} for {task}, got "
                f"{tuple(shape)} in {path}; correct task or input_size in the catalog, or take another file"
            )
    return network
