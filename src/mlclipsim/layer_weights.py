"""Layer weights of the metric: equal, the embedding alone, by hand, or fitted and read from a file.

The fit (:mod:`mlclipsim.fit`) writes a ``weights.json``. :func:`ship` makes of it a file of the package,
which the metric then takes by itself wherever encoder, its weights and size policy are those of the fit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlclipsim.encoders import Encoder

__all__ = ["GLOBAL", "Weights", "layer_name", "read_theta", "ship", "shipped"]

GLOBAL = "global"  # name of s_g beside layer_01, layer_02, ...
FITTED = Path(__file__).parent / "world" / "fitted"  # <name>.json: layer weights that ship in the package
Weights = str | Path | Mapping[str, float]


def layer_name(layer: int) -> str:
    """Name of a layer's similarity in tables: ``layer_01`` is the first block."""
    return f"layer_{layer:02d}"


def shipped(encoder: Encoder, size_policy: str) -> str:
    """Name of the weights that ship fitted for exactly this encoder and size policy, or ``uniform``."""
    for path in sorted(FITTED.glob("*.json")):
        fitted = _read(path)
        if (fitted["encoder"], fitted.get("pretrained")) == (encoder.name, encoder.pretrained) and fitted[
            "size_policy"
        ] == size_policy:
            return path.stem
    return "uniform"


def ship(source: str | Path, encoder: Encoder, name: str | None = None) -> Path:
    """Put the weights that the fit found for ``encoder`` into the package, where the metric finds them.

    Args:
        source: a ``weights.json`` of the fit.
        name: what to call them; None: the encoder's name.

    Returns:
        ``world/fitted/<name>.json``.

    Raises:
        ValueError: not such a file, or fitted for another encoder.
    """
    from mlclipsim.artifacts import write_json  # of the suite, not needed to use the metric

    path = Path(source)
    fitted = _read(path)
    _check(path, fitted, encoder, fitted["size_policy"])
    target = FITTED / f"{name or encoder.name.replace('/', '-')}.json"
    folds = [{"fold": entry["fold"], "weights": entry["weights"]} for entry in fitted["folds"]]
    write_json(
        target,
        {
            "encoder": encoder.name,
            "pretrained": encoder.pretrained,
            "size_policy": fitted["size_policy"],
            "layers": fitted["layers"],
            "folds": folds,
        },
    )
    return target


def read_theta(
    weights: Weights, names: Sequence[str], encoder: Encoder, size_policy: str, fold: int | None
) -> tuple[str, Tensor]:
    """What ``weights`` is called, and its logits, one per name, of zero mean.

    Raises:
        ValueError: an unknown name, a file of another kind, encoder or size policy, or weights that are not.
    """
    if isinstance(weights, str) and weights in ("uniform", "global"):
        return weights, torch.zeros(len(names))
    if isinstance(weights, Mapping):
        label, by_name = "given", weights
    else:
        label, by_name = _from_file(Path(weights), encoder, size_policy, fold)
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ValueError(f"weights: expected one for each of {list(names)}, {missing} missing")
    chosen = torch.tensor([float(by_name[name]) for name in names], dtype=torch.float64)
    if not (chosen >= 0).all() or not 0 < float(chosen.sum()) < float("inf"):
        raise ValueError(f"weights: expected numbers >= 0 that are not all 0, got {chosen.tolist()}")
    theta = (chosen / chosen.sum()).clamp(min=1e-12).log()
    return label, (theta - theta.mean()).float()


def _from_file(
    path: Path, encoder: Encoder, size_policy: str, fold: int | None
) -> tuple[str, dict[str, float]]:
    """Name and weights out of a file, checked to belong to this metric; the mean of the folds, or one."""
    packaged = FITTED / f"{path}.json"
    label = str(path)
    if path.suffix != ".json" and packaged.is_file():
        path = packaged
    else:
        label = f"{path.name} sha256:{_digest(path)}"
    fitted = _read(path)
    _check(path, fitted, encoder, size_policy)
    folds = fitted["folds"]
    if fold is not None:
        label = f"{label} fold {fold}"
        folds = [entry for entry in folds if isinstance(entry, dict) and entry.get("fold") == fold]
    if not folds:
        raise ValueError(f"{path}: has no fold {fold}; expected one of its own")
    try:
        rows = [[float(weight) for weight in entry["weights"]] for entry in folds]
        table = torch.tensor(rows, dtype=torch.float64)  # (folds, L + 1)
        return label, dict(zip(fitted["layers"], table.mean(0).tolist(), strict=True))
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a weight per layer in each fold ({error!r}); run the fit again"
        ) from None


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except FileNotFoundError:
        offer = ", ".join(sorted(file.stem for file in FITTED.glob("*.json"))) or "none"
        raise ValueError(
            f"weights: expected uniform, global, a weights.json or shipped ones ({offer}), got '{path}'"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        fitted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key in ("encoder", "size_policy"):
            fitted[key] = str(fitted[key])
        fitted["layers"], fitted["folds"] = list(fitted["layers"]), list(fitted["folds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a weights file of the fit ({error!r}); run the fit again") from None
    return fitted


def _check(path: Path, fitted: dict[str, Any], encoder: Encoder, size_policy: str) -> None:
    """Whether fitted weights belong to this encoder and size policy."""
    own, made = encoder.pretrained, fitted.get("pretrained")
    if not _same_encoder(fitted["encoder"], encoder.name):
        raise ValueError(
            f"{path}: fitted for encoder {fitted['encoder']}, but this metric has {encoder.name}"
        )
    if made is not None and made != own:
        raise ValueError(f"{path}: fitted for {encoder.name} with weights {made}, but these are {own}")
    if fitted["size_policy"] != size_policy:
        raise ValueError(
            f"{path}: fitted for size_policy {fitted['size_policy']!r}, got {size_policy!r}; pass that one"
        )
    full = [layer_name(i + 1) for i in range(encoder.n_layers)]
    if [name for name in fitted["layers"] if name != GLOBAL] != full:
        raise ValueError(f"{path}: fitted for {fitted['layers']}, but {encoder.name} has {[*full, GLOBAL]}")


def _same_encoder(fitted: str, own: str) -> bool:
    """Whether a catalog's name (vit-b-32-laion2b) can mean an encoder (ViT-B-32/laion2b_s34b_b79k)."""
    name, full = (re.sub(r"-quickgelu|[^a-z0-9]", "", text.lower()) for text in (fitted, own))
    return full.startswith(name) if "/" in own else full == name
