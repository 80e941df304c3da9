"""ML-CLIPSim: multi-layer CLIP similarity, a full-reference image quality metric for machines.

Let z_l,p(x) be patch token p of image x after block l of a frozen CLIP image tower (class token left out) and
e(x) the projected image embedding. With the reference x and the distorted image y,

    s_l(x, y) = mean_p cos(z_l,p(x), z_l,p(y))                one similarity per layer
    s_g(x, y) = cos(e(x), e(y))                               one for the whole image
    S(x, y)   = sum_l w_l s_l(x, y) + w_g s_g(x, y)           with w = softmax(theta)

so S(x, x) = 1, S <= 1, S(x, y) = S(y, x), and larger is closer. As a loss: 1 - S. In a convolutional tower
the map after a stage is read as H * W tokens. theta is fitted on machine preferences (mlclipsim.fit); nothing
else is learned.

After F. Ding et al., "ML-CLIPSim: Multi-Layer CLIP Similarity for Machine-Oriented Image Quality",
arXiv 2605.09479 (2026).

    metric = MLCLIPSim(encoder="scene-clip")
    metric.score(reference=x, distorted=y)           # (N,), no graph
    metric.loss(reference=x, distorted=y).backward()  # mean of 1 - S; gradients reach y alone
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlclipsim.encoders import Encoder, load_encoder
from mlclipsim.images import check_images, resize

__all__ = [
    "GLOBAL",
    "SIZE_POLICIES",
    "Encoded",
    "MLCLIPSim",
    "cosine",
    "layer_name",
    "ml_clip_sim",
    "similarities",
]

GLOBAL = "global"  # name of s_g beside layer_01, layer_02, ...
SizePolicy = Literal["resize", "native", "tile"]
SIZE_POLICIES = ("resize", "native", "tile")
FITTED = Path(__file__).parent / "world" / "fitted"  # <name>.json: layer weights that ship in the package

# Each token gets one more coordinate, sqrt(EPS) in both images, before the cosine is taken. So two zero
# tokens (a ReLU tower on black) have similarity 1, not 0/0, and every gradient is finite. Tokens of trained
# towers have squared norms above 0.01, where this moves the cosine by less than 1e-6.
EPS = 1e-8


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine along the last axis, ``(..., D), (..., D) -> (...)``, in float32 even of halves or in autocast.

    Exactly 1 where ``a`` and ``b`` are equal, and with a finite gradient everywhere (see EPS).
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float(), b.float()
        inner = (a * b).sum(-1) + EPS
        squares = ((a * a).sum(-1) + EPS) * ((b * b).sum(-1) + EPS)
        # Of equal tokens n / sqrt(n * n), exactly 1; of nearly equal ones rounding may pass 1 by 1e-7.
        return (inner / squares.sqrt()).clamp(max=1)


def layer_name(layer: int) -> str:
    """Name of a layer's similarity in tables: ``layer_01`` is the first block."""
    return f"layer_{layer:02d}"


@dataclass(frozen=True)
class Encoded:
    """What the metric needs of a batch of images; made once per reference, used with many distorted images.

    Attributes:
        tokens: per layer ``(N * T, P_l, D_l)``, with T tiles per image (1 but for the policy ``tile``).
        embedding: ``(N * T, E)``, or None where no global term is asked for.
        size: ``(H, W)`` of the images as they came.
        shape: ``(h, w)`` of what the encoder saw.
        n_images: N.
    """

    tokens: list[Tensor]
    embedding: Tensor | None
    size: tuple[int, int]
    shape: tuple[int, int]
    n_images: int


def encode(
    encoder: Encoder, images: Tensor, layers: Sequence[int], use_global: bool, size_policy: str, name: str
) -> Encoded:
    """Check, fit to the encoder's size, and encode ``(N, 3, H, W)`` in [0, 1]."""
    images = check_images(images, name)
    seen = _fit_size(images, encoder, size_policy)  # (N * T, 3, h, w)
    tokens, embedding = encoder(seen, layers=layers, embed=use_global)
    return Encoded(tokens, embedding, _size(images), _size(seen), len(images))


def similarities(reference: Encoded, distorted: Encoded) -> Tensor:
    """``[s_1, ..., s_L, s_g]`` of each pair: ``(N, L + 1)``, or ``(N, L)`` without embedding.

    One reference may stand against many distorted images.

    Raises:
        ValueError: the images differ in size, or their numbers do not match.
    """
    if reference.size != distorted.size:
        raise ValueError(
            f"reference {_text(reference.size)}, distorted {_text(distorted.size)}, expected equal sizes; "
            "crop or resize one to the other first"
        )
    n, m = reference.n_images, distorted.n_images
    if n not in (1, m):
        raise ValueError(f"expected one reference or as many as distorted images ({m}), got {n}")
    tiles = len(distorted.tokens[0] if distorted.tokens else distorted.embedding) // m  # type: ignore[arg-type]

    def average(values: Tensor) -> Tensor:  # (N * T, ...) -> (N,)
        return values.reshape(m, tiles, -1).mean(dim=(1, 2))

    def pair(a: Tensor, b: Tensor) -> Tensor:  # (n * T, ..., D), (m * T, ..., D) -> (m, T, ...)
        return cosine(a.unflatten(0, (n, tiles)), b.unflatten(0, (m, tiles)))

    columns = [average(pair(a, b)) for a, b in zip(reference.tokens, distorted.tokens, strict=True)]
    if reference.embedding is not None and distorted.embedding is not None:
        columns.append(average(pair(reference.embedding, distorted.embedding)))
    return torch.stack(columns, dim=1)  # (N, L + 1)


def ml_clip_sim(
    *,
    reference: Tensor | Encoded,
    distorted: Tensor,
    encoder: Encoder,
    theta: Tensor | None = None,
    layers: Sequence[int] | None = None,
    use_global: bool = True,
    size_policy: SizePolicy = "resize",
) -> Tensor:
    """ML-CLIPSim, functional: ``S(x, y)`` of each pair, ``(N,)``, at most 1, larger is closer.

    Differentiable with respect to ``distorted``; the reference is encoded without graph.

    Args:
        reference: ``(N, 3, H, W)`` or ``(1, 3, H, W)``, RGB in [0, 1], or what :meth:`MLCLIPSim.encode` gave.
        distorted: ``(N, 3, H, W)``, RGB in [0, 1].
        encoder: of :func:`mlclipsim.encoders.load_encoder`; build it once, not per call.
        theta: ``(L + 1,)`` logits of the weights, layers ascending, then global; None: equal weights.
        layers: blocks counted from 1; None: all of the encoder's.
        use_global: without it nothing above the last of ``layers`` is computed.
        size_policy: see :class:`MLCLIPSim`.

    Raises:
        TypeError, ValueError: images of another kind, size or range, with how to mend them.
    """
    chosen = encoder.layers if layers is None else encoder.check_layers(layers)
    if not isinstance(reference, Encoded):
        with torch.no_grad():
            reference = encode(encoder, reference, chosen, use_global, size_policy, "reference")
    s = similarities(reference, encode(encoder, distorted, chosen, use_global, size_policy, "distorted"))
    if theta is None:
        theta = s.new_zeros(s.shape[1])
    if theta.shape != s.shape[1:]:
        raise ValueError(
            f"theta: expected shape ({s.shape[1]},), one per layer then global, got {tuple(theta.shape)}"
        )
    # sum_l w_l s_l, written so that S(x, x) is exactly 1; no matmul, which autocast would round to half.
    return 1 - ((1 - s) * theta.softmax(0).to(s)).sum(dim=1)


class MLCLIPSim(nn.Module):
    """ML-CLIPSim as a module: a frozen encoder, layer weights and a size policy, which make its identity.

    Args:
        encoder: an :class:`Encoder`, or a name for :func:`load_encoder`.
        pretrained: open_clip's tag where ``encoder`` is an open_clip name.
        weights: ``"uniform"``; ``"global"`` (the embedding alone, plain CLIP similarity); a ``weights.json``
            of the fit; the name of fitted weights that ship in the package; or a mapping from layer names
            (``layer_01`` ..., ``global``) to weights, scaled to sum 1.
        layers: use these blocks only (from 1); their weights are scaled to sum 1.
        use_global: False drops the global term, and saves all blocks above the last layer.
        size_policy: what happens to images of another size than the encoder's:
            ``resize``: shorter side to the encoder's size, antialiased bicubic, central square.
            ``native``: taken as they are, cropped to whole patches; position embeddings are interpolated.
            ``tile``: cut into tiles of the encoder's size (the last row and column overlap their neighbours),
            whose similarities are averaged. Images must be at least that large.
        fold: which fold of a ``weights.json``; None: the mean weights of its folds.

    Raises:
        ValueError: unknown names, weights fitted for another encoder or size policy, or nothing to compare.
    """

    higher_is_better = True
    is_differentiable = True
    theta: Tensor

    def __init__(
        self,
        encoder: Encoder | str = "ViT-B-32-quickgelu",
        pretrained: str | None = None,
        weights: str | Path | Mapping[str, float] = "uniform",
        layers: Sequence[int] | None = None,
        *,
        use_global: bool = True,
        size_policy: SizePolicy = "resize",
        fold: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__()
        if size_policy not in SIZE_POLICIES:
            raise ValueError(f"size_policy: expected one of {', '.join(SIZE_POLICIES)}, got {size_policy!r}")
        self.encoder = encoder if isinstance(encoder, Encoder) else load_encoder(encoder, pretrained)
        self.layers = self.encoder.layers if layers is None else self.encoder.check_layers(layers)
        if weights == "global":
            self.layers, use_global = (), True
        self.use_global = use_global
        self.size_policy: SizePolicy = size_policy
        #: names of the columns of :meth:`per_layer`
        self.names = [layer_name(layer) for layer in self.layers] + [GLOBAL] * use_global
        if not self.names:
            raise ValueError("neither layers nor the global term: expected at least one; set use_global=True")
        self.register_buffer("theta", self._read_theta(weights, fold))
        if device is not None:
            self.to(device)

    def score(self, *, reference: Tensor | Encoded, distorted: Tensor) -> Tensor:
        """``S``, ``(N,)`` float32, without graph. Arguments as in :func:`ml_clip_sim`."""
        with torch.no_grad():
            return self(reference=reference, distorted=distorted)

    def loss(
        self, *, reference: Tensor | Encoded, distorted: Tensor, reduction: Literal["mean", "none"] = "mean"
    ) -> Tensor:
        """``1 - S``, differentiable with respect to ``distorted``: its mean, or ``(N,)`` for "none"."""
        if reduction not in ("mean", "none"):
            raise ValueError(f"reduction: expected mean or none, got {reduction!r}")
        loss = 1 - self(reference=reference, distorted=distorted)
        return loss.mean() if reduction == "mean" else loss

    def forward(self, *, reference: Tensor | Encoded, distorted: Tensor) -> Tensor:
        """``S``, ``(N,)``, with a graph where ``distorted`` asks for one."""
        return ml_clip_sim(
            reference=reference,
            distorted=distorted,
            encoder=self.encoder,
            theta=self.theta,
            layers=self.layers,
            use_global=self.use_global,
            size_policy=self.size_policy,
        )

    def encode(self, reference: Tensor) -> Encoded:
        """Encode references once, without graph, to be compared with many distorted images."""
        with torch.no_grad():
            return encode(
                self.encoder, reference, self.layers, self.use_global, self.size_policy, "reference"
            )

    def per_layer(self, *, reference: Tensor | Encoded, distorted: Tensor) -> Tensor:
        """``[s_1, ..., s_L, s_g]`` of each pair, ``(N, L + 1)``, in the order of :attr:`names`; no graph."""
        with torch.no_grad():
            if not isinstance(reference, Encoded):
                reference = self.encode(reference)
            settings = (self.layers, self.use_global, self.size_policy)
            return similarities(reference, encode(self.encoder, distorted, *settings, "distorted"))

    def map(self, *, reference: Tensor | Encoded, distorted: Tensor) -> Tensor:
        """Where the images differ: weighted patch similarities, ``(N, h, w)`` on the finest layer's grid.

        Coarser layers are interpolated. The global term has no place and is left out, its weight spread over
        the layers; so with a single grid (a transformer) the map's mean is S without global term.

        Raises:
            ValueError: no layers, or the size policy ``tile``.
        """
        if not self.layers or self.size_policy == "tile":
            raise ValueError(
                "a map needs layers and the size policy resize or native; build the metric with those"
            )
        with torch.no_grad():
            if not isinstance(reference, Encoded):
                reference = self.encode(reference)
            other = encode(self.encoder, distorted, self.layers, False, self.size_policy, "distorted")
            weights = self.theta[: len(self.layers)].softmax(0)
            height, width = other.shape
            maps = []
            for a, b in zip(reference.tokens, other.tokens, strict=True):
                s = cosine(a, b)  # (N, P_l)
                rows = round((s.shape[1] * height / width) ** 0.5)
                maps.append(s.view(len(s), 1, rows, -1))  # (N, 1, h_l, w_l)
            finest = max((m.shape[-2:] for m in maps), key=lambda grid: grid[0])
            maps = [F.interpolate(m, size=finest, mode="bilinear") for m in maps]
            return (torch.cat(maps, dim=1) * weights.view(-1, 1, 1)).sum(1)  # (N, h, w)

    @property
    def weights(self) -> dict[str, float]:
        """The weights ``w`` by name; they sum to 1."""
        return dict(zip(self.names, self.theta.softmax(0).tolist(), strict=True))

    def extra_repr(self) -> str:
        return f"size_policy={self.size_policy}, weights=" + str(
            {k: round(w, 4) for k, w in self.weights.items()}
        )

    def _read_theta(self, weights: str | Path | Mapping[str, float], fold: int | None) -> Tensor:
        """Logits of the weights, one per name, zero mean."""
        if isinstance(weights, str) and weights in ("uniform", "global"):
            return torch.zeros(len(self.names))
        if not isinstance(weights, Mapping):
            weights = self._read_file(Path(weights), fold)
        missing = [name for name in self.names if name not in weights]
        if missing:
            raise ValueError(f"weights: expected one for each of {self.names}, {missing} missing")
        chosen = torch.tensor([float(weights[name]) for name in self.names], dtype=torch.float64)
        if not (chosen >= 0).all() or not 0 < float(chosen.sum()) < float("inf"):
            raise ValueError(f"weights: expected numbers >= 0 that are not all 0, got {chosen.tolist()}")
        theta = (chosen / chosen.sum()).clamp(min=1e-12).log()
        return (theta - theta.mean()).float()

    def _read_file(self, path: Path, fold: int | None) -> dict[str, float]:
        """Weights by name out of a ``weights.json`` of the fit, checked to belong to this metric."""
        packaged = FITTED / f"{path}.json"
        path = path if path.suffix == ".json" or not packaged.is_file() else packaged
        try:
            fitted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            names, folds = list(fitted["layers"]), list(fitted["folds"])
        except FileNotFoundError:
            shipped = ", ".join(sorted(file.stem for file in FITTED.glob("*.json"))) or "none"
            raise ValueError(
                f"weights: expected uniform, global, a weights.json or shipped ones ({shipped}), got '{path}'"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: not a weights file of the fit ({error!r}); run the fit again"
            ) from None
        if not _same_encoder(str(fitted.get("encoder")), self.encoder.name):
            raise ValueError(
                f"{path}: fitted for encoder {fitted.get('encoder')}, but this metric has {self.encoder.name}"
            )
        if fitted.get("size_policy") != self.size_policy:
            raise ValueError(
                f"{path}: fitted for size_policy {fitted.get('size_policy')!r}, got {self.size_policy!r}"
            )
        full = [*(layer_name(i + 1) for i in range(self.encoder.n_layers)), GLOBAL]
        if [name for name in names if name != GLOBAL] != full[:-1]:
            raise ValueError(f"{path}: fitted for {names}, but {self.encoder.name} has {full}")
        if fold is not None:
            folds = [entry for entry in folds if entry["fold"] == fold]
        if not folds:
            raise ValueError(f"{path}: has no fold {fold}; expected one of its own")
        table = torch.tensor([entry["weights"] for entry in folds], dtype=torch.float64)  # (folds, L + 1)
        return dict(zip(names, table.mean(0).tolist(), strict=True))


def _fit_size(images: Tensor, encoder: Encoder, size_policy: str) -> Tensor:
    """``(N, 3, H, W)`` to what the encoder takes under ``size_policy``: ``(N * T, 3, h, w)``."""
    height, width = _size(images)
    if size_policy == "resize":
        return resize(images, encoder.image_size)
    if size_policy == "native":
        h, w = (side // encoder.stride * encoder.stride for side in (height, width))
        if not h or not w:
            raise ValueError(
                f"native: expected at least {encoder.stride} pixels a side, got {height}x{width}; use resize"
            )
        top, left = (height - h) // 2, (width - w) // 2
        return images[..., top : top + h, left : left + w]
    side = encoder.image_size
    if min(height, width) < side:
        raise ValueError(f"tile: expected at least {side}x{side} pixels, got {height}x{width}; use resize")
    starts = [[min(k * side, length - side) for k in range(-(-length // side))] for length in (height, width)]
    tiles = [images[..., y : y + side, x : x + side] for y in starts[0] for x in starts[1]]
    return torch.stack(tiles, dim=1).flatten(0, 1)  # (N, T, 3, h, w) -> (N * T, 3, h, w)


def _same_encoder(fitted: str, own: str) -> bool:
    """Whether a catalog's name (vit-b-32-laion2b) can mean an encoder (ViT-B-32/laion2b_s34b_b79k)."""
    name, full = (re.sub(r"-quickgelu|[^a-z0-9]", "", text.lower()) for text in (fitted, own))
    return full.startswith(name) if "/" in own else full == name


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
