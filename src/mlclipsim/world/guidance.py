"""What makes the small CLIP towers learn shapes within an hour: guiding heads and arranged positions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlclipsim.world.scenes import COLOURS, SHAPES, SIZE, TEXTURES

__all__ = ["CLASS_WEIGHTS", "GuidedClip", "arrange_positions"]

CLASS_WEIGHTS = torch.tensor([0.4] + [1.0] * len(SHAPES))  # of a label map: most pixels are photograph


def arrange_positions(clip: Any) -> None:
    """Start the positions of the patches as 2-D sines and cosines: a small ViT learns shapes far sooner."""
    from timm.layers import build_sincos2d_pos_embed

    embedding = clip.visual.positional_embedding  # (1 + patches, width)
    side = math.isqrt(len(embedding) - 1)
    with torch.no_grad():
        embedding[1:] = 0.5 * build_sincos2d_pos_embed([side, side], embedding.shape[1])


class GuidedClip(nn.Module):
    """A CLIP with the heads that guide its image tower while it is trained; only ``clip`` ships.

    A caption names the shape with one word of ten, and towers of this size reach the colours by captions
    alone and then stay on a plateau for thousands of steps. What is in each patch, and what the largest
    object is, teach the patch tokens and the embedding what shapes are; the captions then name them.
    """

    clip: Any  # open_clip.CLIP, which is imported only where it is needed

    def __init__(self, clip: Any):
        super().__init__()
        self.clip = clip
        with torch.no_grad():
            deepest = self._look(torch.zeros(1, 3, SIZE, SIZE))["image_intermediates"][0]
        _, width, grid, _ = deepest.shape
        self.cells = SIZE // 2 // grid  # label maps are read at every second pixel
        self.dense = nn.Conv2d(width, (1 + len(SHAPES)) * self.cells**2, 1)
        embedding = clip.text_projection.shape[1]
        self.words = nn.ModuleList(nn.Linear(embedding, len(w)) for w in (SHAPES, COLOURS, TEXTURES))

    def _look(self, x: Tensor) -> dict[str, Any]:
        visual = self.clip.visual
        # A ResNet's last stage has 2 x 2 cells only, so the one before it is guided. open_clip wants the last
        # among the indices, or else it pools an earlier one.
        indices = [3, 4] if hasattr(visual, "layer4") else 1
        return visual.forward_intermediates(x, indices=indices)

    def forward(self, x: Tensor, text: Tensor, objects: Tensor, semantic: Tensor) -> Tensor:
        """Loss of scenes ``x`` (B, 3, H, W), captions (B, 24), largest objects (B, 3), maps (B, H, W)."""
        from open_clip.loss import ClipLoss

        seen = self._look(x)
        embedding = seen["image_features"]
        loss = ClipLoss()(
            F.normalize(embedding, dim=1),
            self.clip.encode_text(text, normalize=True),
            self.clip.logit_scale.exp(),
        )
        maps = F.pixel_shuffle(self.dense(seen["image_intermediates"][0]), self.cells)  # (B, 11, H/2, W/2)
        loss = loss + F.cross_entropy(maps, semantic[:, ::2, ::2], weight=CLASS_WEIGHTS)
        for column, head in enumerate(self.words):
            loss = loss + 0.5 * F.cross_entropy(head(embedding), objects[:, column])
        return loss
