"""The weights behind a catalog entry: the files that hold them, and where they come from.

Libraries keep a pretrained tag in caches of their own, and know its address. Nothing is downloaded here, only
looked for and looked up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlclipsim.places import locate

__all__ = ["Source", "files", "hub_folder", "is_fetched", "sources"]


@dataclass(frozen=True)
class Source:
    """Where a file of weights comes from.

    Attributes:
        path: where the steps look for it; None: in Hugging Face's cache alone.
        urls: its addresses, in the order in which they are asked.
        sha256: its sum, or the first digits of it that its name holds; None: unknown.
        n_bytes: its size; None: unknown.
        hub: repository of Hugging Face and name there, asked where no address gave it; empty: none.
    """

    path: Path | None = None
    urls: tuple[str, ...] = ()
    sha256: str | None = None
    n_bytes: int | None = None
    hub: tuple[str, ...] = ()


def files(entry: dict[str, Any]) -> dict[str, Path | None]:
    """What an encoder, a machine, a metric or a codec of the catalogs loads -> the file, None where it is not
    here.

    Keys are places as catalogs name them (``assets:x``, a tag, a name in torch's hub folder), the same on
    every machine. Empty where nothing is loaded: untrained encoders, metrics by a formula.
    """
    if entry.get("source") == "open_clip":
        import open_clip

        from mlclipsim.encoders import cached

        model, tag = entry["model"], entry["pretrained"]
        return {f"{model}/{tag}": cached(open_clip.get_pretrained_cfg(model, tag) or {})}
    if "points" in entry:
        return {
            f"{entry['model']}.{point}": _existing(_file_of_codec(entry, point)) for point in entry["points"]
        }
    if "library" in entry:
        return {name: _existing(hub_folder() / name) for name in entry.get("files") or {}}
    place = entry.get("weights") or entry.get("checkpoint")
    if not place or (entry.get("builder") == "plugin" and not _is_path(place)):
        return {}
    if is_fetched(entry):
        find = _TAGGED[entry["builder"]]
        return {f"{entry['architecture']}.{place}": find(entry["architecture"], place)}
    return {place: _existing(locate(place))}


def sources(entry: dict[str, Any]) -> list[Source]:
    """Where the files come from that an encoder, a machine, a metric or a codec loads.

    An address in the catalog goes before what its library knows. Empty where neither knows one, or where
    nothing is loaded: these files are to be put in place by hand.
    """
    if "points" in entry:
        found = [_of_codec(entry, point) for point in entry["points"]]
    elif "library" in entry:
        found = [_of_metric(entry, name) for name in entry.get("files") or {}]
    elif entry.get("url"):
        found = [_of_catalog(entry)]
    elif entry.get("source") == "open_clip":
        found = [_of_open_clip(entry["model"], entry["pretrained"])]
    elif is_fetched(entry):
        found = [_ADDRESSES[entry["builder"]](entry["architecture"], entry["weights"])]
    else:
        found = []
    known = [source for source in found if source is not None]
    return known if len(known) == len(found) else []


def _of_catalog(entry: dict[str, Any]) -> Source:
    place = entry.get("weights") or entry["checkpoint"]
    urls = (entry["url"], *entry.get("mirrors", ()))
    return Source(locate(place), urls, entry["sha256"], entry.get("bytes"))


def _file_of_codec(entry: dict[str, Any], point: str) -> Path:
    if place := entry["points"][point].get("weights"):
        return locate(place)
    from mlclipsim.compression.codecs import weights_file

    return weights_file(entry, point)[0]


def _of_codec(entry: dict[str, Any], point: str) -> Source | None:
    settings = entry["points"][point]
    if settings.get("url"):
        return _of_catalog(settings)
    if settings.get("weights"):
        return None
    from mlclipsim.compression import codecs

    url = codecs.address(entry, point)
    path, digits = codecs.weights_file(entry, point)
    return Source(path, (url,), digits) if url else None


def _of_metric(entry: dict[str, Any], name: str) -> Source | None:
    """Weights that torchmetrics takes from torchvision, and piq's own."""
    url = None
    if entry["library"] == "torchmetrics":
        url = _torchvision_addresses().get(Path(name).name)
    elif entry["library"] == "piq":
        import piq

        url = getattr(getattr(piq, entry["function"]), "_weights_url", None)
    return Source(hub_folder() / name, (url,), entry["files"][name]) if url else None


def _of_open_clip(model: str, tag: str) -> Source:
    """OpenAI's own address names the sum; other tags are on the hub."""
    import open_clip

    known = open_clip.get_pretrained_cfg(model, tag) or {}
    repository, _, name = known.get("hf_hub", "").rpartition("/")
    hub = (repository, name or "open_clip_model.safetensors") if repository else ()
    url = known.get("url") or ""
    if digest := re.search(r"/([0-9a-f]{64})/", url):
        path = Path("~/.cache/clip").expanduser() / Path(url).name
        return Source(path, (url,), digest[1], hub=hub)
    return Source(hub=hub)


def _address_of_timm(architecture: str, tag: str) -> Source | None:
    import timm

    known = timm.get_pretrained_cfg(f"{architecture}.{tag}")
    return Source(hub=(known.hf_hub_id, "model.safetensors")) if known and known.hf_hub_id else None


def _address_of_torchvision(architecture: str, tag: str) -> Source:
    from torchvision.models import get_model_weights

    url = get_model_weights(architecture)[tag].url
    name = Path(url).name
    digits = re.search(r"-([0-9a-f]{8,})\.", name)
    return Source(hub_folder() / "checkpoints" / name, (url,), digits and digits[1])


def _torchvision_addresses() -> dict[str, str]:
    """File name -> address of all weights of torchvision's classifiers."""
    from torchvision import models

    weights = [one for name in models.list_models(models) for one in models.get_model_weights(name)]
    return {Path(one.url).name: one.url for one in weights}


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
_ADDRESSES = {"timm": _address_of_timm, "torchvision": _address_of_torchvision}
