"""Batch norms of a frozen network, folded into the convolutions before them: the same function in fewer passes.

In evaluation a batch norm scales and shifts each channel by constants. Whoever only needs outputs spares a pass
over each map; whoever descends through the network spares two, of which the backward one costs more than it does
for most of the convolutions that surround it.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["fold_batch_norms"]


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """The network, changed in place: equal to rounding, its folded parameters asking for no gradient.

    Folded is a ``BatchNorm2d`` that directly follows a ``Conv2d`` in the order in which its parent registered the
    two, of as many channels; timm's, which carry an activation, leave it behind. Networks without any are left as
    they are. Only for networks that call their parts in the order in which they were registered, as timm's and
    torchvision's do.

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
