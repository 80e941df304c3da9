"""Frozen CLIP image towers behind one interface: patch tokens of every block, and the image embedding.

    encoder = load_encoder("ViT-B-32-quickgelu", "openai")
    tokens, embedding = encoder(images)  # [(B, P, D_1), ..., (B, P, D_L)], (B, E)

All towers are open_clip's, read through its ``forward_intermediates``. The quirks of open_clip 3.3 that this
file keeps to itself:

- Convolutional towers (ModifiedResNet, timm) give maps (NCHW) only and refuse ``output_extra_tokens``; timm's
  transformers are read so, too. open_clip's own transformer gives tokens (NLC), which spares two copies of
  each. Prefix tokens (class, registers) are left out of both.
- ``CLIP.forward_intermediates`` normalises the embedding, the image tower's does not. We call the tower.
- ``ModifiedResNet`` reads ``stop_early`` the wrong way round, and so pools a truncated map where it is False.
- Position embeddings fit one image size; for another we interpolate them as open_clip does when it loads, in
  its own towers and in timm's plain ViT. Other timm transformers (EVA, Swin, ...) keep to their size.
- Weights of another activation (QuickGELU) load without an error and only warn. Here that is an error.
- The timm adapter drops arguments such as ``pad_type``, which no state dict records. We build such trunks.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import torch
import torch.nn.functional as F
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mlclipsim.checkpoints import WeightsError, digest, load_strict

__all__ = ["Encoder", "WeightsError", "build_clip", "cached", "load_encoder", "model_config"]

PACKAGED = (
    Path(__file__).parent / "world"
)  # models/<name>.json, weights/<name>.safetensors, weights/manifest.json
SCENE_MEAN, SCENE_STD = (
    (0.5, 0.5, 0.5),
    (0.25, 0.25, 0.25),
)  # of world/architectures.py, which is heavy to import
UNTRAINED = "-untrained"  # suffix of a name: the same network with random weights, a control
DEFAULT_MODEL, DEFAULT_PRETRAINED = "ViT-B-32-quickgelu", "openai"


class Encoder(nn.Module):
    """A frozen CLIP image tower.

    Attributes:
        name: which network with which weights, for tables and error messages.
        family: architecture family (``vit``, ``resnet``, ``mobilenetv2``, ...); no machine of it may vote.
        n_layers: number of blocks (of stages, for a convolutional tower).
        layers: the blocks that :meth:`forward` returns, numbered from 1 in the order of computation.
        image_size: side in pixels that the network was trained at.
        stride: pixels per token of the coarsest layer; other image sizes must be multiples of it.
        pretrained: which weights: open_clip's tag, ``sha256:`` and the first 12 digits of the file's, or
            ``untrained:`` and the seed.
        mean, std: three floats each, applied inside.
        n_parameters: of the image tower.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        visual: nn.Module,
        *,
        name: str,
        pretrained: str = "unnamed",
        mean: Sequence[float] = open_clip.OPENAI_DATASET_MEAN,
        std: Sequence[float] = open_clip.OPENAI_DATASET_STD,
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.visual = visual.eval().requires_grad_(False)
        self.name, self.pretrained = name, pretrained
        self.family, self.n_layers, self.stride = _describe(visual)
        height, width = _pair(visual.image_size)  # type: ignore[arg-type]
        if height != width:
            raise ValueError(
                f"{name}: expected a square input, got {height}x{width}; such towers are not supported"
            )
        self.image_size = height
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.layers = self.check_layers(layers)
        self.n_parameters = sum(p.numel() for p in visual.parameters())

    def check_layers(self, layers: Sequence[int] | None) -> tuple[int, ...]:
        """``layers`` as a tuple in ascending order; None is all of them.

        Raises:
            ValueError: a block that the tower does not have, or one named twice.
        """
        if layers is None:
            return tuple(range(1, self.n_layers + 1))
        chosen = tuple(sorted(layers))
        if len(set(chosen)) < len(chosen) or any(not 1 <= layer <= self.n_layers for layer in chosen):
            raise ValueError(
                f"{self.name}: expected distinct layers within 1..{self.n_layers}, got {list(layers)}"
            )
        return chosen

    def train(self, mode: bool = True) -> Encoder:
        """Stay in evaluation mode: a frozen network has no other."""
        return super().train(False)

    def forward(
        self, images: Tensor, layers: Sequence[int] | None = None, embed: bool = True
    ) -> tuple[list[Tensor], Tensor | None]:
        """Patch tokens after each asked block, without class token, and the projected image embedding.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1], RGB; mean and std are applied here.
            layers: blocks counted from 1; None for :attr:`layers`.
            embed: False leaves the embedding out, and nothing above the last asked block is computed.

        Returns:
            ``[(B, P_l, D_l) for l in layers]`` and ``(B, E)``, not normalised, or None without ``embed``.

        Raises:
            ValueError: H and W that this tower cannot take.
        """
        wanted = self.layers if layers is None else self.check_layers(layers)
        if not wanted and not embed:
            raise ValueError(f"{self.name}: neither layers nor embedding asked for; ask for at least one")
        own = isinstance(self.visual, VisionTransformer)
        arguments = {
            "indices": [layer - 1 for layer in wanted or (self.n_layers,)],
            "intermediates_only": not embed,
            # Of a ModifiedResNet it means the opposite.
            "stop_early": embed == isinstance(self.visual, ModifiedResNet),
            "output_fmt": "NLC" if own else "NCHW",
        }
        images = images.to(self.mean.dtype)
        normalised = (images - self.mean) / self.std
        positions = self._positions(images)
        if positions:
            module = _Intermediates(self.visual)
            output = torch.func.functional_call(module, positions, (normalised,), arguments)
        else:
            output = self.visual.forward_intermediates(normalised, **arguments)  # type: ignore[operator]
        maps = output["image_intermediates"] if wanted else []  # [(B, P_l, D_l)] or [(B, D_l, h_l, w_l)]
        tokens = maps if own else [m.flatten(2).transpose(1, 2) for m in maps]  # [(B, P_l, D_l)]
        return tokens, output.get("image_features")

    def _positions(self, images: Tensor) -> dict[str, Tensor]:
        """Replacement of the tower's position embedding where the image size is not the trained one."""
        height, width = images.shape[-2:]
        if height == width == self.image_size:
            return {}
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"{self.name}: expected sides that are multiples of {self.stride}, got {height}x{width}; "
                f"resize to {self.image_size} or crop"
            )
        prefixes = 1  # rows of the table before those of the patches
        if isinstance(self.visual, VisionTransformer):
            key, table = "visual.positional_embedding", self.visual.positional_embedding
        elif isinstance(self.visual, ModifiedResNet):
            key, table = "visual.attnpool.positional_embedding", self.visual.attnpool.positional_embedding
        elif _takes_any_size(self.visual):
            return {}
        elif _is_plain_timm(self.visual):
            trunk = self.visual.trunk
            # Else it refuses other sizes, not knowing that its positions are replaced.
            trunk.patch_embed.strict_img_size = False  # type: ignore[union-attr, assignment]
            key, table = "visual.trunk.pos_embed", trunk.pos_embed[0]  # type: ignore[union-attr, index]
            prefixes = 0 if trunk.no_embed_class else trunk.num_prefix_tokens  # type: ignore[union-attr, assignment]
        else:
            raise ValueError(
                f"{self.name}: expected {self.image_size}x{self.image_size}, got {height}x{width}; "
                "this timm transformer takes one size only, use size_policy 'resize' or 'tile'"
            )
        side = self.image_size // self.stride
        prefix, grid = table[:prefixes].float(), table[prefixes:].float()  # (1, D), (side * side, D)
        grid = grid.view(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, side, side)
        shape = (height // self.stride, width // self.stride)
        grid = F.interpolate(grid, size=shape, mode="bicubic", antialias=True)
        other = torch.cat([prefix, grid.flatten(2)[0].T]).to(table.dtype)
        return {key: other[None] if key.endswith("pos_embed") else other}  # timm's has a batch axis

    def __repr__(self) -> str:
        shape = f"n_layers={self.n_layers}, image_size={self.image_size}"
        return f"Encoder({self.name}, family={self.family}, {shape})"


class _Intermediates(nn.Module):
    """`forward_intermediates` as a forward, which is what functional_call calls."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor, **arguments: Any) -> dict[str, Any]:
        return self.visual.forward_intermediates(images, **arguments)  # type: ignore[operator]


def _describe(visual: nn.Module) -> tuple[str, int, int]:
    """Family, number of layers and stride of a tower."""
    if isinstance(visual, VisionTransformer):
        return "vit", len(visual.transformer.resblocks), _pair(visual.patch_size)[0]
    if isinstance(visual, ModifiedResNet):
        return "resnet", 5, 32  # the stem and four stages
    if isinstance(visual, TimmModel):
        info = visual.trunk.feature_info  # a list of dicts, or an object that holds one
        stages = getattr(info, "info", info)
        architecture = (getattr(visual.trunk, "default_cfg", None) or {}).get("architecture", "timm")
        return re.split(r"[_.]", architecture)[0], len(stages), max(stage["reduction"] for stage in stages)
    raise ValueError(
        f"expected an open_clip tower (VisionTransformer, ModifiedResNet, TimmModel), got {type(visual)}"
    )


def _takes_any_size(visual: nn.Module) -> bool:
    """A timm network without a grid of patches, or one that interpolates its positions itself."""
    if not isinstance(visual, TimmModel):
        return False
    return not hasattr(visual.trunk, "patch_embed") or bool(getattr(visual.trunk, "dynamic_img_size", False))


def _is_plain_timm(visual: nn.Module) -> bool:
    """timm's VisionTransformer with a table of positions, and patches that are cut, not convolved."""
    trunk = visual.trunk if isinstance(visual, TimmModel) else None
    plain = type(trunk).__name__ == "VisionTransformer" and getattr(trunk, "pos_embed", None) is not None
    return plain and type(getattr(trunk, "patch_embed", None)).__name__ == "PatchEmbed"


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def load_encoder(
    name: str = DEFAULT_MODEL,
    pretrained: str | None = None,
    checkpoint: str | Path | None = None,
    sha256: str | None = None,
    *,
    device: str | torch.device = "cpu",
    layers: Sequence[int] | None = None,
    seed: int | None = None,
    download: bool = False,
) -> Encoder:
    """A frozen CLIP image tower by name, its weights verified.

    ============================  ==========================================================================
    ``name``                      weights
    ============================  ==========================================================================
    ``scene-clip``, ...           ship in the package, checked against its manifest
    an open_clip model            ``pretrained``: one of open_clip's tags, from its cache, or from
                                  the network with ``download``
    any of these                  ``checkpoint``: a local file of a whole CLIP (safetensors, a state dict that
                                  torch reads with ``weights_only``, or OpenAI's TorchScript archive, which
                                  needs ``sha256``), checked against ``sha256``
    any of these + ``-untrained`` random, from ``seed`` (default 0): a control
    ============================  ==========================================================================

    Every load is strict. Without arguments: ViT-B/32 of OpenAI. The global random state is left alone.

    Args:
        name: a packaged network, or one of ``open_clip.list_models()``.
        layers: the blocks that the encoder returns by default, from 1; None: all.
        seed: random weights instead of trained ones.
        download: let open_clip fetch the weights of a tag that are not in its cache.

    Raises:
        ValueError: unknown network or tag, contradicting arguments, or weights of the other activation.
        WeightsError: weights missing, of another sha256, unreadable, or of another network.
    """
    base = name.removesuffix(UNTRAINED).replace("/", "-")  # ViT-B/32 is ViT-B-32
    if name.endswith(UNTRAINED) and seed is None:
        seed = 0
    if sum(given is not None for given in (pretrained, checkpoint, seed)) > 1:
        raise ValueError(f"{name}: give one of pretrained, checkpoint and seed, not several")
    if base == DEFAULT_MODEL and pretrained is None and checkpoint is None and seed is None:
        pretrained = DEFAULT_PRETRAINED
    # Initialisation draws random numbers, even if a checkpoint replaces them.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed or 0)
        if pretrained is not None:
            model, label, weights = (
                _from_open_clip(base, pretrained, download),
                f"{base}/{pretrained}",
                pretrained,
            )
        elif seed is not None:
            model, label, weights = build_clip(model_config(base)), f"{base}{UNTRAINED}", f"untrained:{seed}"
        else:
            if checkpoint is None:
                checkpoint, sha256 = _packaged_weights(base)
            path = Path(checkpoint)
            weights = f"sha256:{digest(path, sha256)[:12]}"
            model, label = build_clip(model_config(base, path)), base
            load_strict(model, path, base, trusted=sha256 is not None)
    visual = model.get_submodule("visual")
    processing: dict[str, Any] = getattr(visual, "preprocess_cfg", None) or {}
    encoder = Encoder(
        visual,
        name=label,
        pretrained=weights,
        mean=processing.get("mean") or open_clip.OPENAI_DATASET_MEAN,
        std=processing.get("std") or open_clip.OPENAI_DATASET_STD,
        layers=layers,
    )
    return encoder.float().to(device)


def model_config(name: str, checkpoint: str | Path | None = None) -> dict[str, Any]:
    """What :func:`build_clip` builds: from the checkpoint's own metadata, the package, or open_clip.

    Raises:
        ValueError: nobody knows ``name``; the message offers the nearest.
    """
    if checkpoint is not None and Path(checkpoint).suffix == ".safetensors":
        try:
            with safe_open(checkpoint, "pt") as file:
                own = (file.metadata() or {}).get("open_clip_config")
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{checkpoint}: unreadable as safetensors ({error}); fetch or make it again"
            ) from None
        if own is not None:
            return json.loads(own)
    packaged = PACKAGED / "models" / f"{name}.json"
    if packaged.is_file():
        config = json.loads(packaged.read_text(encoding="utf-8"))
        if "model_cfg" not in config:  # a network of the scenes, trained with the statistics of their zoo
            config = {"model_cfg": config, "preprocess_cfg": {"mean": SCENE_MEAN, "std": SCENE_STD}}
        return config
    config = open_clip.get_model_config(name) if ":" not in name else None
    if config is None:
        raise ValueError(_unknown(name))
    return {"model_cfg": config, "preprocess_cfg": _statistics(name)}


def _statistics(name: str) -> dict[str, Any]:
    """Mean and std of an open_clip model, where all of its pretrained tags agree; else none, so OpenAI's."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    known = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    agreed = {(tuple(tag["mean"]), tuple(tag["std"])) for tag in known if "mean" in tag and "std" in tag}
    return dict(zip(("mean", "std"), agreed.pop(), strict=True)) if len(agreed) == 1 else {}


def build_clip(config: dict[str, Any]) -> nn.Module:
    """An open_clip CLIP with random weights.

    Args:
        config: open_clip's ``{embed_dim, vision_cfg, text_cfg, ...}``; or, as on the hub,
            ``{model_cfg: those, preprocess_cfg: {mean, std}}``, where ``trunk_kwargs`` may add arguments of
            the timm trunk that open_clip's adapter drops (``pad_type``).
    """
    config = copy.deepcopy(config)
    arguments = config.get("model_cfg", config)
    vision, text = arguments["vision_cfg"], arguments["text_cfg"]
    custom = arguments.pop("custom_text", False) or "hf_model_name" in text
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False  # else timm goes to the network
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    kind = CoCa if "multimodal_cfg" in arguments else CustomTextCLIP if custom else CLIP
    model = kind(**arguments)
    if trunk_kwargs := config.get("trunk_kwargs"):
        import timm  # comes with open_clip; slow to import and needed for few towers

        model.visual.trunk = timm.create_model(
            vision["timm_model_name"],
            num_classes=0,
            global_pool=vision.get("timm_pool", "avg"),
            **trunk_kwargs,
        )
    # Where open_clip keeps what its own loading knows about the input, so that we find it in one place.
    model.visual.preprocess_cfg = config.get("preprocess_cfg", {})
    return model


def _from_open_clip(name: str, tag: str, download: bool) -> nn.Module:
    """A network of open_clip with weights out of open_clip's cache, which ``download`` fills first."""
    config = open_clip.get_model_config(name) if ":" not in name else None
    if config is None:
        raise ValueError(_unknown(name))
    known = open_clip.get_pretrained_cfg(name, tag)
    if not known:
        holders = open_clip.list_pretrained_models_by_tag(tag)
        offer = f"; '{tag}' exists for {', '.join(holders)}" if holders else ""
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise ValueError(f"{name} has no pretrained tag '{tag}'; expected one of: {tags}{offer}")
    if bool(known.get("quick_gelu")) != bool(config.get("quick_gelu")):
        other = f"{name}-quickgelu" if known.get("quick_gelu") else name.removesuffix("-quickgelu")
        raise ValueError(
            f"'{tag}' was trained with another activation than {name} has (QuickGELU); use {other}"
        )
    path = cached(known)
    if path is None and download:
        path = _fetch(known, f"{name}/{tag}")
    if path is None:
        raise WeightsError(
            f"the weights {name}/{tag} are not in open_clip's cache, and nothing is fetched while computing; "
            "with network access, run once: "
            f"python -c \"import mlclipsim; mlclipsim.load_encoder('{name}', '{tag}', download=True)\"; "
            "without, name a local file (checkpoint=, on the command line --pretrained) or use "
            "encoder='scene-clip', which ships in the package"
        )
    # OpenAI's addresses hold the sha256 of the file; what the hub cached was checked when it came.
    expected = re.search(r"/([0-9a-f]{64})/", known.get("url") or "") if path.suffix == ".pt" else None
    if expected is not None:
        digest(path, expected[1])
    processing = {key: known[key] for key in ("mean", "std") if known.get(key)}
    model = build_clip({"model_cfg": config, "preprocess_cfg": processing})
    load_strict(model, path, name, trusted=expected is not None)
    return model


def _fetch(known: dict[str, Any], name: str) -> Path:
    """Weights of a tag, fetched by open_clip into its cache."""
    try:
        return Path(open_clip.download_pretrained(known))
    except Exception as error:  # of urllib, the hub and its transports: all mean that it did not come
        first = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{name}: the weights could not be fetched ({first}); check the network, pass checkpoint=<local "
            "file>, or use encoder='scene-clip', which ships in the package"
        ) from error


def cached(known: dict[str, Any]) -> Path | None:
    """Where open_clip has put the weights of a tag, without asking the network."""
    if hub := known.get("hf_hub"):
        repository, _, file = hub.rpartition("/")
        file = file or "open_clip_pytorch_model.bin"
        files = ["open_clip_model.safetensors", str(Path(file).with_suffix(".safetensors")), file]
        for file in files:
            if isinstance(path := huggingface_hub.try_to_load_from_cache(repository, file), str):
                return Path(path)
    path = Path("~/.cache/clip").expanduser() / Path(known.get("url") or "-").name
    return path if path.is_file() else None


def _packaged_weights(name: str) -> tuple[Path, str]:
    """File and sha256 of weights that ship in the package."""
    path = PACKAGED / "weights" / f"{name}.safetensors"
    if not (PACKAGED / "models" / f"{name}.json").is_file():
        if ":" in name or open_clip.get_model_config(name) is None:
            raise ValueError(_unknown(name))
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none: pass checkpoint"
        raise ValueError(f"{name}: which weights? pass pretrained (one of: {tags}), checkpoint or seed")
    manifest = PACKAGED / "weights" / "manifest.json"
    entry = json.loads(manifest.read_text(encoding="utf-8")).get(name) if manifest.is_file() else None
    if entry is None or not path.is_file():
        raise WeightsError(f"{name}: its weights do not ship in this package; pass checkpoint=<local file>")
    return path, entry["sha256"]


def _unknown(name: str) -> str:
    models = sorted(path.stem for path in (PACKAGED / "models").glob("*.json"))
    packaged = [name for name in models if (PACKAGED / "weights" / f"{name}.safetensors").is_file()]
    near = difflib.get_close_matches(name, [*models, *open_clip.list_models()], n=3, cutoff=0.5)
    offer = f"did you mean {', '.join(near)}?" if near else "see open_clip.list_models()"
    return f"unknown encoder '{name}'; {offer} Packaged: {', '.join(packaged) or 'none'}"
