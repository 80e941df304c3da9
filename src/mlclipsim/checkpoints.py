"""Files of CLIP weights: checked by sha256, read without running pickles, loaded strictly.

Three formats: safetensors; state dicts that torch reads with ``weights_only``; and OpenAI's own TorchScript
archives, which hold code besides weights and are therefore read only if their sha256 is known.
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from pathlib import Path

import open_clip
import torch
from open_clip.transformer import QuickGELU
from torch import nn

__all__ = ["WeightsError", "digest", "load_strict"]

_SCALARS = ("input_resolution", "context_length", "vocab_size")  # OpenAI keeps these among its weights


class WeightsError(RuntimeError):
    """Weights that are missing, damaged, or not those of the named network."""


def digest(path: Path, expected: str | None = None) -> str:
    """The sha256 of a file.

    Raises:
        WeightsError: no such file, or another sha256 than ``expected``.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: expected a checkpoint, found none; check the path or fetch it")
    with path.open("rb") as stream:
        seen = hashlib.file_digest(stream, "sha256").hexdigest()
    if expected is not None and seen != expected.lower():
        raise WeightsError(f"{path}: expected sha256 {expected}, got {seen}; fetch or make the file again")
    return seen


def load_strict(model: nn.Module, path: Path, name: str, *, trusted: bool) -> None:
    """Load a whole CLIP into ``model``: every weight of it, and no other.

    Args:
        name: of the network, for messages.
        trusted: whether the file's sha256 was expected, as archives with code require.

    Raises:
        ValueError: OpenAI's weights, all trained with QuickGELU, for a network without.
        WeightsError: unreadable, or of another network.
    """
    archive = _is_torchscript(path)
    if archive and not trusted:
        raise WeightsError(
            f"{path}: a TorchScript archive, which holds code; pass the sha256 that it should have"
        )
    if archive and not any(isinstance(module, QuickGELU) for module in model.modules()):
        raise ValueError(f"{path}: OpenAI's weights were trained with QuickGELU; use {name}-quickgelu")
    try:
        if archive:
            with warnings.catch_warnings():  # torch.jit is deprecated, but OpenAI's files are what they are
                warnings.simplefilter("ignore", FutureWarning)
                state = torch.jit.load(path, map_location="cpu").state_dict()
            model.load_state_dict({key: value for key, value in state.items() if key not in _SCALARS})
        else:
            open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except Exception as error:  # pickles, truncated files and foreign state dicts fail in as many ways
        first = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path}: not a complete checkpoint of {name} ({first})") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
