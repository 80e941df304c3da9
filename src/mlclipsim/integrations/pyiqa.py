"""ML-CLIPSim among the metrics of pyiqa (IQA-PyTorch), if it is installed.

    register()
    metric = pyiqa.create_metric("ml_clip_sim", encoder="scene-clip")
    metric(distorted, reference)

Its order: the distorted image comes first.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from mlclipsim.metric import MLCLIPSim

__all__ = ["PyiqaMLCLIPSim", "register"]


class PyiqaMLCLIPSim(nn.Module):
    """The metric as pyiqa calls its networks: ``forward(distorted, reference)`` is ``S``, ``(N, 1)``.

    Args:
        options: of :class:`mlclipsim.metric.MLCLIPSim`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.metric = MLCLIPSim(**options)

    def forward(self, distorted: Tensor, reference: Tensor) -> Tensor:
        """Both ``(N, 3, H, W)``, RGB in [0, 1]."""
        return self.metric(reference=reference, distorted=distorted)[:, None]


def register(name: str = "ml_clip_sim", **options: Any) -> None:
    """Make ``pyiqa.create_metric(name)`` work. Doing it again is harmless, and may change the options.

    Args:
        name: what to call the metric there.
        options: of :class:`mlclipsim.metric.MLCLIPSim`, unless ``create_metric`` is given others.

    Raises:
        ModuleNotFoundError: pyiqa is not installed.
    """
    try:
        configs = importlib.import_module("pyiqa.default_model_configs").DEFAULT_CONFIGS
        networks = importlib.import_module("pyiqa.utils.registry").ARCH_REGISTRY
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"expected pyiqa to register ML-CLIPSim with, found none ({error}); pip install pyiqa"
        ) from error
    kind = PyiqaMLCLIPSim.__name__
    if kind not in networks:
        networks.register(PyiqaMLCLIPSim)
    configs[name] = {
        "metric_opts": {"type": kind, **options},
        "metric_mode": "FR",
        "lower_better": False,
        "score_range": "-1, 1",
    }
