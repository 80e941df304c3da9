"""How each kind of catalog entry becomes a network that takes normalised images and gives logits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlclipsim import plugins

__all__ = ["BUILDERS", "OnnxNetwork"]


def _zoo(architecture: str, weights: str | None, **arguments: Any) -> nn.Module:
    from mlclipsim.world.architectures import ARCHITECTURES

    return ARCHITECTURES[architecture].build(**arguments)


def _timm(architecture: str, weights: str | None, **arguments: Any) -> nn.Module:
    import timm

    if weights:
        return timm.create_model(f"{architecture}.{weights}", pretrained=True, **arguments)
    return timm.create_model(architecture, **arguments)


def _torchvision(architecture: str, weights: str | None, **arguments: Any) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(architecture, weights=weights, **arguments)


def _timm_mobilenetv1(architecture: str, weights: str | None, *, width: float) -> nn.Module:
    # timm registers no MobileNetV1 below width 1, hence its private builder. `same` is TensorFlow's padding,
    # with which these weights were trained; it is not in the state dict, so that a strict load would not
    # notice its lack.
    from timm.models.efficientnet import _gen_mobilenet_v1

    return _gen_mobilenet_v1(architecture, width, pad_type="same")


# MCUNet 320 KB / 1 MB (Lin et al., NeurIPS 2020) in timm's notation of blocks.
_MCUNET = [
    ["ds_r1_k3_s1_c8"],
    ["ir_r1_k7_s2_e3_c16", "ir_r1_k3_s1_e5_c16", "ir_r1_k7_s1_e5_c16", "ir_r1_k5_s1_e4_c16"],
    ["ir_r3_k5_s2_e5_c24"],
    ["ir_r1_k3_s2_e5_c40", "ir_r1_k7_s1_e6_c40", "ir_r1_k5_s1_e4_c40"],
    ["ir_r1_k5_s1_e5_c48", "ir_r1_k7_s1_e5_c48", "ir_r1_k3_s1_e5_c48"],
    ["ir_r1_k3_s2_e6_c96", "ir_r1_k7_s1_e5_c96", "ir_r1_k3_s1_e4_c96"],
    ["ir_r1_k7_s1_e5_c160"],
]


def _timm_mcunet(architecture: str, weights: str | None) -> nn.Module:
    from timm.models.efficientnet import EfficientNet, decode_arch_def

    return EfficientNet(block_args=decode_arch_def(_MCUNET), num_features=0, stem_size=16, act_layer=nn.ReLU6)


def _plugin(architecture: str, weights: str | None, **arguments: Any) -> nn.Module:
    return plugins.load(architecture)(weights, **arguments)


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "zoo": _zoo,
    "timm": _timm,
    "torchvision": _torchvision,
    "timm_mobilenetv1": _timm_mobilenetv1,
    "timm_mcunet": _timm_mcunet,
    "plugin": _plugin,
}


class OnnxNetwork(nn.Module):
    """An ONNX graph with one image input, N x 3 x H x W; gives its first output. No gradients.

    A graph whose batch is fixed at 1 gets the images one by one.

    Attributes:
        input_shape, output_shape: as the graph declares them; a name or None where it leaves them open.
        layout: of the images in memory; another one would only be undone.
    """

    layout = torch.contiguous_format

    def __init__(self, path: Path):
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # A graph can name other files for its weights, of which no sha256 is known: they are never read.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        graph = path.read_bytes()
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        first, *others = self.session.get_inputs()
        if others:
            raise ValueError(f"expected one input, got {[first.name, *(more.name for more in others)]}")
        self.input_name = first.name
        self.input_shape: list[int | str | None] = first.shape
        if isinstance(first.shape[0], int) and first.shape[0] != 1:
            raise ValueError(f"expected a batch that is free or 1, got {first.shape[0]}")
        self.output_shape: list[int | str | None] = self.session.get_outputs()[0].shape

    def forward(self, images: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, ...)
        batch = np.ascontiguousarray(images.numpy(force=True), dtype=np.float32)
        parts = np.split(batch, len(batch)) if self.input_shape[0] == 1 else [batch]
        return torch.cat([torch.from_numpy(self.session.run(None, {self.input_name: p})[0]) for p in parts])
