"""The weights behind a catalog entry: the files that hold them, and the command that gets what is not here.

Libraries fetch a pretrained tag into caches of their own. Nothing is downloaded here, only looked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlclipsim.places import locate

__all__ = ["command", "files", "hub_folder", "is_fetched"]


def files(entry: dict[str, Any]) -> dict[str, Path | None]:
    """What an encoder, a machine or a metric of the catalogs loads -> the file, None where it is not here.

    Keys are places as catalogs name them (``assets:x``, a tag, a name in torch's hub folder), the same on
    every machine. Empty where nothing is loaded: untrained encoders, metrics by a formula.
    """
    if entry.get("source") == "open_clip":
        import open_clip

        from mlclipsim.encoders import cached

        model, tag = entry["model"], entry["pretrained"]
        return {f"{model}/{tag}": cached(open_clip.get_pretrained_cfg(model, tag) or {})}
    if "library" in entry:
        return {name: _existing(hub_folder() / name) for name in entry.get("files") or {}}
    place = entry.get("weights") or entry.get("checkpoint")
    if not place or (entry.get("builder") == "plugin" and not _is_path(place)):
        return {}
    if is_fetched(entry):
        find = _TAGGED[entry["builder"]]
        return {f"{entry['architecture']}.{place}": find(entry["architecture"], place)}
    return {place: _existing(locate(place))}


def command(entry: dict[str, Any]) -> str:
    """What gets the weights of an entry: a command, or where to put the file."""
    if entry.get("source") == "open_clip":
        call = f"mlclipsim.load_encoder('{entry['model']}', '{entry['pretrained']}', download=True)"
        return f'python -c "import mlclipsim; {call}"'
    if "library" in entry:
        return str(entry["needs"])
    place, architecture = entry.get("weights") or entry["checkpoint"], entry.get("architecture")
    if entry.get("builder") == "timm" and is_fetched(entry):
        return f"python -c \"import timm; timm.create_model('{architecture}.{place}', pretrained=True)\""
    if entry.get("builder") == "torchvision" and is_fetched(entry):
        call = f"models.get_model('{architecture}', weights='{place}')"
        return f'python -c "import torchvision; torchvision.{call}"'
    return f"put the file at {locate(place)}"


def is_fetched(entry: dict[str, Any]) -> bool:
    """Whether a library fetches the weights of an encoder or a machine, rather than a user."""
    if entry.get("source") == "open_clip":
        return True
    return entry.get("builder") in _TAGGED and not _is_path(entry["weights"])


def hub_folder() -> Path:
    """torch's cache of weights: ``$TORCH_HOME/hub``, by default ``~/.cache/torch/hub``."""
    import torch

    return Path(torch.hub.get_dir())


def _is_path(place: str) -> bool:
    return place.startswith(("assets:", "package:")) or place.endswith((".safetensors", ".onnx"))


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None


def _of_timm(architecture: str, tag: str) -> Path | None:
    import huggingface_hub
    import timm

    known = timm.get_pretrained_cfg(f"{architecture}.{tag}")
    for name in ("model.safetensors", "pytorch_model.bin"):
        found = (
            huggingface_hub.try_to_load_from_cache(known.hf_hub_id, name)
            if known and known.hf_hub_id
            else None
        )
        if isinstance(found, str):
            return Path(found)
    return None


def _of_torchvision(architecture: str, tag: str) -> Path | None:
    from torchvision.models import get_model_weights

    return _existing(hub_folder() / "checkpoints" / Path(get_model_weights(architecture)[tag].url).name)


_TAGGED = {"timm": _of_timm, "torchvision": _of_torchvision}
