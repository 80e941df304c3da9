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
    metric.score(reference=x, distorted=y)            # (N,), no graph
    metric.loss(reference=x, distorted=y).backward()  # mean of 1 - S; gradients reach y alone

Beside this file: sizes.py, what an encoder sees of an image of another size; comparison.py, pairs of images
encoded in bounded memory; layer_weights.py, where theta comes from.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlclipsim.comparison import BATCH, Comparison, Encoded
from mlclipsim.encoders import DEFAULT_MODEL, Encoder, load_encoder
from mlclipsim.images import check_images
from mlclipsim.layer_weights import GLOBAL, Weights, layer_name, read_theta, shipped
from mlclipsim.sizes import SIZE_POLICIES, SizePolicy, put_back, windows

__all__ = [
    "AgainstReference",
    "Encoded",
    "MLCLIPSim",
    "SizePolicy",
    "cosine",
    "layer_name",
    "ml_clip_sim",
    "similarities",
]

# Each token gets one more coordinate, sqrt(EPS) in both images, before the cosine is taken. So two zero
# tokens (a ReLU tower on black) have similarity 1, not 0/0, and every gradient is finite. Tokens of trained
# towers have squared norms above 0.01, where this moves the cosine by less than 1e-6.
EPS = 1e-8

P = ParamSpec("P")
R = TypeVar("R")


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine along the last axis, ``(..., D), (..., D) -> (...)``, in float32 even of halves or in autocast.

    Exactly 1 where ``a`` and ``b`` are equal, and with a finite gradient everywhere (see EPS).
    """
    with torch.autocast(a.device.type, enabled=False):
        wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        a, b = a.to(wide), b.to(wide)
        inner = (a * b).sum(-1) + EPS
        squares = ((a * a).sum(-1) + EPS) * ((b * b).sum(-1) + EPS)
        # Of equal tokens n / sqrt(n * n), exactly 1; of nearly equal ones rounding may pass 1 by 1e-7.
        return (inner / squares.sqrt()).clamp(max=1)


def similarities(reference: Encoded, distorted: Encoded) -> Tensor:
    """``[s_1, ..., s_L, s_g]`` of each pair: ``(N, L + 1)``, or ``(N, L)`` without embedding.

    One reference may stand against many distorted images.
    """
    n, m = len(reference), len(distorted)

    def average(a: Tensor, b: Tensor) -> Tensor:  # (n * T, ..., D), (m * T, ..., D) -> (m,)
        return cosine(a.unflatten(0, (n, -1)), b.unflatten(0, (m, -1))).flatten(1).mean(dim=1)

    columns = [average(a, b) for a, b in zip(reference.tokens, distorted.tokens, strict=True)]
    if reference.embedding is not None and distorted.embedding is not None:
        columns.append(average(reference.embedding, distorted.embedding))
    return torch.stack(columns, dim=1)  # (N, L + 1)


def patch_map(reference: Encoded, distorted: Encoded, weights: Tensor) -> Tensor:
    """``sum_l w_l cos(z_l,p(x), z_l,p(y))`` of each patch: ``(N, T, h, w)`` on the finest layer's grid, to
    which coarser layers are interpolated. ``weights``: ``(L,)``.
    """
    n, m, (height, width) = len(reference), len(distorted), distorted.shape
    maps = []
    for a, b in zip(reference.tokens, distorted.tokens, strict=True):
        s = cosine(a.unflatten(0, (n, -1)), b.unflatten(0, (m, -1)))  # (N, T, P_l)
        rows = round((s.shape[-1] * height / width) ** 0.5)
        maps.append(s.unflatten(-1, (rows, -1)))  # (N, T, h_l, w_l)
    finest = max((m.shape[-2:] for m in maps), key=lambda grid: grid[0])
    maps = [F.interpolate(m, size=finest, mode="bilinear") for m in maps]
    return (torch.stack(maps, dim=-1) * weights.to(maps[0])).sum(-1)


def _by_name(function: Callable[P, R]) -> Callable[P, R]:
    """Say how to call a function of images that got them by position, which could be swapped in silence."""
    parameters = inspect.signature(function).parameters.values()
    most = sum(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)  # self
    name = function.__name__

    @functools.wraps(function)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        if len(args) > most:
            raise TypeError(
                f"{name}: expected images by name, got {len(args) - most} by position; write "
                f"{name}(reference=x, distorted=y), so that they cannot be swapped unnoticed"
            )
        return function(*args, **kwargs)

    return named


@_by_name
def ml_clip_sim(
    *,
    reference: Tensor | Encoded,
    distorted: Tensor,
    encoder: Encoder,
    theta: Tensor | None = None,
    layers: Sequence[int] | None = None,
    use_global: bool = True,
    size_policy: SizePolicy = "resize",
    batch_size: int | None = BATCH,
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
        size_policy, batch_size: see :class:`MLCLIPSim`.

    Raises:
        TypeError, ValueError: images of another kind, size or range, with how to mend them.
    """
    chosen = encoder.layers if layers is None else encoder.check_layers(layers)
    comparison = Comparison(encoder, chosen, use_global, size_policy, batch_size)
    s = torch.cat([similarities(x, y) for x, y in comparison.pairs(reference, distorted)])  # (N, L + 1)
    if theta is None:
        theta = s.new_zeros(s.shape[1])
    if theta.shape != s.shape[1:]:
        raise ValueError(
            f"theta: expected shape ({s.shape[1]},), one per layer then global, got {tuple(theta.shape)}"
        )
    # sum_l w_l s_l, written so that S(x, x) is exactly 1; no matmul, which autocast would round to half.
    return 1 - ((1 - s) * theta.to(s).softmax(0)).sum(dim=1)


class MLCLIPSim(nn.Module):
    """ML-CLIPSim as a module: a frozen encoder, layer weights and a size policy, which make its identity.

    The default encoder is ViT-B/32 of OpenAI, whose weights open_clip fetches once. ``"scene-clip"`` ships in
    the package and works at once: a small ViT trained on rendered 64-px scenes, coloured shapes over crops of
    photographs. It is good for trying the interface, for tests, for the embedded study and as a loss on such
    scenes; it has never seen a real object, so do not judge photographs by it.

    The encoder is not part of :meth:`state_dict`, which holds the layer weights alone (``metric.encoder`` has
    one of its own); loading is strict either way.

    Args:
        encoder: an :class:`Encoder`, or a name for :func:`load_encoder`.
        pretrained: open_clip's tag where ``encoder`` is an open_clip name.
        weights: ``"uniform"``; ``"global"`` (the embedding alone, plain CLIP similarity); a ``weights.json``
            of the fit; the name of fitted weights that ship in the package; or a mapping from layer names
            (``layer_01`` ..., ``global``) to weights, scaled to sum 1. None: the weights that ship fitted for
            exactly this encoder, all its layers and this size policy if there are any, else uniform.
        layers: use these blocks only (from 1); their weights are scaled to sum 1.
        use_global: False drops the global term, and saves all blocks above the last layer.
        size_policy: what happens to images of another size than the encoder's:
            ``resize``: shorter side to the encoder's size, antialiased bicubic, central square.
            ``native``: taken as they are, cropped to whole patches; position embeddings are interpolated.
            ``tile``: cut into tiles of the encoder's size (the last row and column overlap their neighbours),
            whose similarities are averaged. Images must be at least that large.
        fold: which fold of a ``weights.json``; None: the mean weights of its folds.
        batch_size: images (tiles) that the encoder sees at a time wherever no graph is kept, so memory does
            not grow with the batch; it moves scores by rounding only (1e-6).

    Raises:
        ValueError: unknown names, weights fitted for another encoder or size policy, or nothing to compare.
        WeightsError: the encoder's weights are not there, with how to get them.

    >>> import torch
    >>> metric = MLCLIPSim("scene-clip")
    >>> x = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    >>> metric.score(reference=x, distorted=x)
    tensor([1.])
    >>> bool(metric.score(reference=x, distorted=x / 2) < 1)
    True
    >>> metric.map(reference=x, distorted=x).shape
    torch.Size([1, 64, 64])
    """

    higher_is_better = True
    is_differentiable = True
    theta: Tensor

    def __init__(
        self,
        encoder: Encoder | str = DEFAULT_MODEL,
        pretrained: str | None = None,
        weights: Weights | None = None,
        layers: Sequence[int] | None = None,
        *,
        use_global: bool = True,
        size_policy: SizePolicy = "resize",
        fold: int | None = None,
        batch_size: int | None = BATCH,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__()
        if size_policy not in SIZE_POLICIES:
            raise ValueError(f"size_policy: expected one of {', '.join(SIZE_POLICIES)}, got {size_policy!r}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, or None for no limit, got {batch_size}")
        self.encoder = encoder if isinstance(encoder, Encoder) else load_encoder(encoder, pretrained)
        self.layers = self.encoder.layers if layers is None else self.encoder.check_layers(layers)
        if weights is None:
            whole = use_global and len(self.layers) == self.encoder.n_layers
            weights = shipped(self.encoder, size_policy) if whole else "uniform"
        if weights == "global":
            self.layers, use_global = (), True
        self.use_global = use_global
        self.size_policy: SizePolicy = size_policy
        self.batch_size = batch_size
        #: names of the columns of :meth:`per_layer`
        self.names = [layer_name(layer) for layer in self.layers] + [GLOBAL] * use_global
        if not self.names:
            raise ValueError("neither layers nor the global term: expected at least one; set use_global=True")
        self._weights_label, theta = read_theta(weights, self.names, self.encoder, size_policy, fold)
        self.register_buffer("theta", theta)
        self.register_state_dict_post_hook(_leave_encoder_out)
        self.register_load_state_dict_pre_hook(_keep_encoder)
        if device is not None:
            self.to(device)

    @_by_name
    def score(self, *, reference: Tensor | Encoded, distorted: Tensor) -> Tensor:
        """``S``, ``(N,)`` float32, without graph. Arguments as in :func:`ml_clip_sim`.

        Any N: ``batch_size`` images at a time go through the encoder, so memory does not grow with N.
        """
        with torch.no_grad():
            return self(reference=reference, distorted=distorted)

    @_by_name
    def loss(
        self, *, reference: Tensor | Encoded, distorted: Tensor, reduction: Literal["mean", "none"] = "mean"
    ) -> Tensor:
        """``1 - S``, differentiable with respect to ``distorted``: its mean, or ``(N,)`` for "none".

        The graph holds the activations of all N images, so memory grows with N.
        """
        if reduction not in ("mean", "none"):
            raise ValueError(f"reduction: expected mean or none, got {reduction!r}")
        loss = 1 - self(reference=reference, distorted=distorted)
        return loss.mean() if reduction == "mean" else loss

    @_by_name
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
            batch_size=self.batch_size,
        )

    def encode(self, reference: Tensor) -> Encoded:
        """Encode references once, without graph, to be compared with many distorted images."""
        with torch.no_grad():
            return self._comparison(self.use_global).encode(check_images(reference, "reference"))

    def against(self, reference: Tensor) -> AgainstReference:
        """A module that takes distorted images alone, as ``nn.Sequential`` passes them."""
        return AgainstReference(self, self.encode(reference))

    @_by_name
    def per_layer(self, *, reference: Tensor | Encoded, distorted: Tensor) -> Tensor:
        """``[s_1, ..., s_L, s_g]`` of each pair, ``(N, L + 1)``, in the order of :attr:`names`; no graph."""
        with torch.no_grad():
            pairs = self._comparison(self.use_global).pairs(reference, distorted)
            return torch.cat([similarities(x, y) for x, y in pairs])

    @_by_name
    def map(self, *, reference: Tensor | Encoded, distorted: Tensor, resize: bool = True) -> Tensor:
        """Where the images differ: weighted patch similarities, laid over the image, ``(N, H, W)``; no graph.

        The global term has no place and is left out, its weight spread over the layers. Each pixel has the
        value of the patch that the encoder saw there, interpolated between patches; where ``resize`` or
        ``native`` crop, the encoder saw nothing, and the map is NaN. Where tiles overlap, it is their mean.

        Args:
            resize: False keeps the patch grid, ``(N, h, w)``: the finest layer's, to which coarser ones are
                interpolated. With a single grid (a transformer) its mean is S without global term.

        Raises:
            ValueError: no layers; or the patch grid is asked for, but there are several tiles.
        """
        if not self.layers:
            raise ValueError("a map needs layers, but this metric compares embeddings alone; pass layers")
        with torch.no_grad():
            weights = self.theta[: len(self.layers)].float().softmax(0)
            pairs = self._comparison(use_global=False).pairs(reference, distorted)
            maps = torch.cat([patch_map(x, y, weights) for x, y in pairs])  # (N, T, h, w)
        if not resize:
            if maps.shape[1] > 1:
                raise ValueError(f"{maps.shape[1]} tiles have no common patch grid; leave resize=True")
            return maps[:, 0]
        size = distorted.shape[-2], distorted.shape[-1]
        return put_back(maps, windows(size, self.encoder, self.size_policy), size)

    @property
    def weights(self) -> dict[str, float]:
        """The weights ``w`` by name; they sum to 1."""
        return dict(zip(self.names, self.theta.float().softmax(0).tolist(), strict=True))

    @property
    def identity(self) -> dict[str, str]:
        """What a score depends on besides the images, to be written beside it: encoder, weights, size policy.

        >>> MLCLIPSim("scene-clip", weights="uniform", layers=[1, 4]).identity["layers"]
        '1 4 global'
        """
        layers = " ".join([*map(str, self.layers), *[GLOBAL] * self.use_global])
        return {
            "metric": "ml_clip_sim",
            "encoder": self.encoder.name,
            "pretrained": self.encoder.pretrained,
            "weights": self._weights_label,
            "layers": layers,
            "size_policy": self.size_policy,
        }

    def extra_repr(self) -> str:
        values = ", ".join(f"{name}={w:.4f}" for name, w in self.weights.items())
        return ", ".join(f"{key}={value!r}" for key, value in self.identity.items()) + f"\n{values}"

    def _comparison(self, use_global: bool) -> Comparison:
        return Comparison(self.encoder, self.layers, use_global, self.size_policy, self.batch_size)


class AgainstReference(nn.Module):
    """A metric whose references are encoded: ``forward(distorted)`` is ``S``, ``(N,)``, differentiable.

    Of :meth:`MLCLIPSim.against`. The encoded references are buffers, so that they follow ``.to()``; they are
    not saved.
    """

    embedding: Tensor | None

    def __init__(self, metric: MLCLIPSim, reference: Encoded) -> None:
        super().__init__()
        self.metric = metric
        for layer, tokens in zip(metric.layers, reference.tokens, strict=True):
            self.register_buffer(layer_name(layer), tokens, persistent=False)
        self.register_buffer("embedding", reference.embedding, persistent=False)
        self._reference = replace(reference, tokens=[], embedding=None)

    def forward(self, distorted: Tensor) -> Tensor:
        tokens = [self.get_buffer(layer_name(layer)) for layer in self.metric.layers]
        reference = replace(self._reference, tokens=tokens, embedding=self.embedding)
        return self.metric(reference=reference, distorted=distorted)


def _leave_encoder_out(
    metric: nn.Module, state: dict[str, Any], prefix: str, _metadata: dict[str, Any]
) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}encoder.")]:
        del state[key]


def _keep_encoder(metric: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key, value in metric.get_submodule("encoder").state_dict(prefix=f"{prefix}encoder.").items():
        state.setdefault(key, value)
