import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Patchwork(nn.Module):
    """Logits by the correlation of a thumbnail with one random pattern per class."""

    def __init__(self, classes: int, side: int):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.side = side
        self.patterns = nn.Parameter(torch.randn(classes, 3 * side**2, generator=generator))

    def forward(self, images: Tensor) -> Tensor:  # (N, 3, H, W), normalised -> (N, classes)
        return F.adaptive_avg_pool2d(images, self.side).flatten(1) @ self.patterns.T


def patchwork(weights: str | None, classes: int, side: int) -> nn.Module:
    return Patchwork(classes, side)
