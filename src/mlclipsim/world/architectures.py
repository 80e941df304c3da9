"""The small networks of the embedded world: timm's and torchvision's classes, narrowed by their arguments.

Every network reads 64-px scenes. No classifier is of the encoders' families (`vit`, `resnet`), since a voter
that shares the encoder's family would favour it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from mlclipsim.world.scenes import SHAPES

__all__ = ["ARCHITECTURES", "INPUT_SIZE", "MEAN", "STD", "Architecture"]

INPUT_SIZE = 64
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CLASSES = len(SHAPES)


def _regnet() -> nn.Module:
    from timm.models.regnet import RegNet, RegNetCfg

    config = RegNetCfg(depth=7, w0=24, wa=20.0, wm=2.0, group_size=8, stem_width=16, se_ratio=0.25)
    return RegNet(config, num_classes=CLASSES)


def _densenet() -> nn.Module:
    from timm.models.densenet import DenseNet

    return DenseNet(growth_rate=12, block_config=(3, 5, 6), bn_size=2, num_classes=CLASSES)


def _vovnet() -> nn.Module:
    from timm.models.vovnet import VovNet

    config = {
        "stem_chs": [16, 16, 24],
        "stage_conv_chs": [24, 28, 32, 36],
        "stage_out_chs": [48, 64, 96, 128],
        "layer_per_block": 2,
        "block_per_stage": [1, 1, 1, 1],
        "residual": False,
        "depthwise": False,
        "attn": "",
    }
    return VovNet(config, num_classes=CLASSES)


def _repvgg() -> nn.Module:
    from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

    blocks = tuple(ByoBlockCfg(type="rep", d=d, c=c, s=2) for d, c in ((1, 32), (2, 48), (3, 80), (1, 128)))
    return ByobNet(ByoModelCfg(blocks=blocks, stem_type="3x3", stem_chs=16), num_classes=CLASSES)


def _darknet() -> nn.Module:
    from timm.models.cspnet import CspModelCfg, CspNet, CspStagesCfg, CspStemCfg

    stages = CspStagesCfg(
        depth=(1, 1, 2, 1),
        out_chs=(24, 48, 80, 128),
        stride=2,
        groups=1,
        block_ratio=1.0,
        bottle_ratio=0.5,
        avg_down=False,
        attn_layer=None,
        block_type="dark",
        stage_type="dark",
    )
    return CspNet(
        CspModelCfg(stem=CspStemCfg(out_chs=16, kernel_size=3, stride=1, pool=""), stages=stages),
        num_classes=CLASSES,
    )


def _mobilenet() -> nn.Module:
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.mobilenetv3 import MobileNetV3

    blocks = [
        ["ds_r1_k3_s1_e1_c16"],
        ["ir_r1_k3_s2_e3_c24", "ir_r1_k3_s1_e3_c24"],
        ["ir_r2_k3_s2_e3_c40_se0.25"],
        ["ir_r2_k3_s2_e3_c64_se0.25"],
        ["cn_r1_k1_s1_c192"],
    ]
    act = partial(nn.Hardswish, inplace=True)
    return MobileNetV3(
        block_args=decode_arch_def(blocks), stem_size=16, num_features=192, act_layer=act, num_classes=CLASSES
    )


def _dla() -> nn.Module:
    from timm.models.dla import DLA

    return DLA(levels=(1, 1, 1, 1, 1, 1), channels=(8, 16, 24, 40, 64, 96), num_classes=CLASSES)


def _shufflenet() -> nn.Module:
    from torchvision.models.shufflenetv2 import ShuffleNetV2

    return ShuffleNetV2([2, 4, 2], [24, 48, 96, 192, 256], num_classes=CLASSES)


def _vgg() -> nn.Module:
    """The first four stages of VGG-11; ``mlp_ratio`` makes the first of the two wide layers 16 wide."""
    from timm.models.vgg import VGG

    channels = [16, "M", 32, "M", 64, 64, "M", 96, 96]
    return VGG(channels, num_classes=CLASSES, mlp_ratio=1 / 256, norm_layer=nn.BatchNorm2d)


class _Pyramid(nn.Module):
    """A timm trunk's stages, joined by torchvision's feature pyramid; gives the finest map as ``key``."""

    def __init__(self, trunk: nn.Module, channels: list[int], out_channels: int, key: str):
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        self.trunk, self.out_channels, self.key = trunk, out_channels, key
        self.pyramid = FeaturePyramidNetwork(channels, out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        joined = self.pyramid({str(i): m for i, m in enumerate(self.trunk(x))})
        return {self.key: joined["0"]}


def _detector(classifier: nn.Module | None = None) -> nn.Module:
    from timm.models._features import FeatureListNet
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOSHead

    trunk = FeatureListNet(classifier or _vovnet(), out_indices=(1, 2, 3), flatten_sequential=True)
    backbone = _Pyramid(trunk, trunk.feature_info.channels(), out_channels=64, key="0")  # strides 4, 8, 16
    anchors = AnchorGenerator(sizes=((8,),), aspect_ratios=((1.0,),))
    return FCOS(
        backbone,
        num_classes=CLASSES,
        min_size=INPUT_SIZE,
        max_size=INPUT_SIZE,
        image_mean=[0.0] * 3,  # the caller normalises, as for every other network here
        image_std=[1.0] * 3,
        anchor_generator=anchors,
        head=FCOSHead(64, 1, CLASSES, num_convs=2),
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=20,
        topk_candidates=100,
    )


def _segmenter(classifier: nn.Module, stages: tuple[int, ...]) -> nn.Module:
    """On a pyramid over the classifier's ``stages``, the first of which has stride 4."""
    from timm.models._features import FeatureListNet
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    trunk = FeatureListNet(classifier, out_indices=stages, flatten_sequential=True)
    backbone = _Pyramid(trunk, trunk.feature_info.channels(), out_channels=64, key="out")
    return FCN(backbone, FCNHead(64, 1 + CLASSES))


def _segmenter_regnet(classifier: nn.Module | None = None) -> nn.Module:
    return _segmenter(classifier or _regnet(), stages=(1, 2, 3, 4))  # strides 4 to 32


def _segmenter_darknet(classifier: nn.Module | None = None) -> nn.Module:
    return _segmenter(classifier or _darknet(), stages=(2, 3, 4))  # strides 4 to 16


@dataclass(frozen=True)
class Architecture:
    """A network of the zoo. ``build()`` gives it with random weights; it takes normalised (N, 3, 64, 64).

    ``trunk`` names the classifier that ``build(classifier)`` can take to start from, as real detectors and
    segmenters start from one.
    """

    build: Callable[..., nn.Module]
    family: str
    task: str = "classification"
    trunk: str | None = None
    input_size: int = INPUT_SIZE
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


ARCHITECTURES: dict[str, Architecture] = {
    "regnet": Architecture(_regnet, "regnet"),
    "densenet": Architecture(_densenet, "densenet"),
    "vovnet": Architecture(_vovnet, "vovnet"),
    "repvgg": Architecture(_repvgg, "repvgg"),
    "darknet": Architecture(_darknet, "darknet"),
    "mobilenet": Architecture(_mobilenet, "mobilenet"),
    "dla": Architecture(_dla, "dla"),
    "shufflenet": Architecture(_shufflenet, "shufflenet"),
    "vgg": Architecture(_vgg, "vgg"),
    "detector": Architecture(_detector, "vovnet", task="detection", trunk="vovnet"),
    "segmenter": Architecture(_segmenter_regnet, "regnet", task="segmentation", trunk="regnet"),
    "segmenter-darknet": Architecture(_segmenter_darknet, "darknet", task="segmentation", trunk="darknet"),
}
