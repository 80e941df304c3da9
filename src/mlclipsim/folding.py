"""Batch norms of a frozen network, folded into the convolutions before them: the same function, fewer passes.

In evaluation a batch norm scales and shifts each channel by constants, and so can the convolution before it.
What is spared is a pass over each map, and on the way back another.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["fold_batch_norms"]


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """The network, changed in place: equal to rounding, its folded parameters asking for no gradient.

    Folded is a ``BatchNorm2d`` that follows a ``Conv2d`` of as many channels in the order in which their
    parent registered them; timm's, which carry an activation, leave it behind. Networks without any stay as
    they are. Only for networks that call their parts in that order, as timm's and open_clip's do.

    Raises:
        ValueError: the network is in training mode, where batch norms are no constants.
    """
    if network.training:
        raise ValueError("expected a network in evaluation mode to fold its batch norms; call eval() first")
    for parent in list(network.modules()):
        for (before, convolution), (name, norm) in pairwise(list(parent.named_children())):
            if (
                isinstance(convolution, nn.Conv2d)
                and isinstance(norm, nn.BatchNorm2d)
                and norm.num_features == convolution.out_channels
            ):
                folded = fuse_conv_bn_eval(convolution, norm)
                setattr(parent, before, folded.requires_grad_(False))
                setattr(parent, name, getattr(norm, "act", nn.Identity()))
    return network
