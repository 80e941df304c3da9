"""What a codec's loss may ask beside rate and squared error: how far reconstructions are from originals.

A term looks at each original once and remembers what it needs of it; where images come again, epoch after
epoch, only their reconstructions are looked at. Every term sees images of the size that its network was made
for: mosaics are cut into their tiles, nothing is resized.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlclipsim.comparison import Encoded
from mlclipsim.deep_features import DeepFeatures, distance
from mlclipsim.folding import fold_batch_norms
from mlclipsim.machines import Machine
from mlclipsim.metric import MLCLIPSim

__all__ = [
    "ClipDissimilarity",
    "FeatureDistance",
    "MSSSIMLoss",
    "Originals",
    "PredictionShift",
    "Term",
    "tiles",
]

# Z. Wang et al., "Multi-scale structural similarity for image quality assessment" (2003), equation 7 ff.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_LEAST_SIDE = 161  # px, that five scales of an 11-pixel window need; below it there are three


class Term(nn.Module, ABC):
    """A distance from originals to their reconstructions: 0 where they are equal, differentiable."""

    @abstractmethod
    def look(self, originals: Tensor) -> tuple[Tensor, ...]:
        """What there is to remember of ``(T, 3, h, w)``: tensors whose first axis is a multiple of T."""

    @abstractmethod
    def distance(self, seen: tuple[Tensor, ...], decoded: Tensor) -> Tensor:
        """The mean over images ``(T, 3, h, w)`` in [0, 1]; ``seen`` is what :meth:`look` gave of theirs."""


def tiles(images: Tensor, columns: int) -> Tensor:
    """``(N, 3, c h, c w)`` mosaics of ``c`` columns as ``(N c^2, 3, h, w)``, each mosaic's row by row."""
    height, width = (side // columns for side in images.shape[-2:])
    cut = images.unfold(2, height, height).unfold(3, width, width)  # (N, 3, c, c, h, w)
    return cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, height, width)


class Originals:
    """Fixed images and what a term remembers of each, looked at when it is first asked for.

    One image at a time, so that what is remembered is the same to the last bit whatever came before.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1].
        columns: of the mosaics that they are.
    """

    def __init__(self, images: Tensor, columns: int, term: Term) -> None:
        self.images, self.columns, self.term = images, columns, term
        self._seen: dict[int, tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def distance(self, index: Sequence[int], decoded: Tensor) -> Tensor:
        """Of the reconstructions ``(B, 3, H, W)`` of these images, clamped to [0, 1] for the term."""
        seen = [self._look(number, decoded.device) for number in index]
        together = tuple(torch.cat(parts).to(decoded.device) for parts in zip(*seen, strict=True))
        return self.term.distance(together, tiles(decoded.clamp(0, 1), self.columns))

    def _look(self, number: int, device: torch.device) -> tuple[Tensor, ...]:
        if number not in self._seen:
            with torch.no_grad():
                parts = self.term.look(tiles(self.images[number : number + 1].to(device), self.columns))
            self._seen[number] = tuple(part.cpu() for part in parts)
        return self._seen[number]


class ClipDissimilarity(Term):
    """``1 - S`` of ML-CLIPSim, whatever its weights.

    Batch norms of its tower are folded: a training goes through them thousands of times, there and back.
    """

    def __init__(self, metric: MLCLIPSim) -> None:
        super().__init__()
        fold_batch_norms(metric.encoder.visual)
        self.metric = metric
        self._kind: Encoded | None = None

    def look(self, originals: Tensor) -> tuple[Tensor, ...]:
        encoded = self.metric.encode(originals)
        self._kind = replace(encoded, tokens=[], embedding=None)
        return (*encoded.tokens, *([] if encoded.embedding is None else [encoded.embedding]))

    def distance(self, seen: tuple[Tensor, ...], decoded: Tensor) -> Tensor:
        assert self._kind is not None  # `seen` came from `look`
        layers = len(self.metric.layers)
        reference = replace(
            self._kind,
            tokens=list(seen[:layers]),
            embedding=seen[layers] if len(seen) > layers else None,
            n_images=len(decoded),
        )
        return self.metric.loss(reference=reference, distorted=decoded)


class MSSSIMLoss(Term):
    """``1 - MS-SSIM`` as piq computes it; under 161 px three scales, their weights scaled to sum 1."""

    def look(self, originals: Tensor) -> tuple[Tensor, ...]:
        return (originals,)

    def distance(self, seen: tuple[Tensor, ...], decoded: Tensor) -> Tensor:
        import piq

        scales = 5 if min(decoded.shape[-2:]) >= _LEAST_SIDE else 3
        weights = decoded.new_tensor(_SCALE_WEIGHTS[:scales])
        with torch.autocast(decoded.device.type, enabled=False):
            similar = piq.multi_scale_ssim(
                decoded.float(), seen[0].float(), data_range=1.0, scale_weights=weights / weights.sum()
            )
        return 1 - similar


class FeatureDistance(Term):
    """The distance of :mod:`mlclipsim.deep_features`."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.network = DeepFeatures(machine)

    def look(self, originals: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(originals.device.type, enabled=False):
            return tuple(self.network.features(originals.float()))

    def distance(self, seen: tuple[Tensor, ...], decoded: Tensor) -> Tensor:
        return distance(seen, self.look(decoded)).mean()


class PredictionShift(Term):
    """``KL(p(original) || p(decoded))`` of a classifier, in nats."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def look(self, originals: Tensor) -> tuple[Tensor, ...]:
        return (self._log_probabilities(originals),)

    def distance(self, seen: tuple[Tensor, ...], decoded: Tensor) -> Tensor:
        found = self._log_probabilities(decoded)
        return F.kl_div(found, seen[0], reduction="batchmean", log_target=True)

    def _log_probabilities(self, images: Tensor) -> Tensor:
        return self.machine(images).float().log_softmax(1)
