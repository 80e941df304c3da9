"""ML-CLIPSim: multi-layer CLIP similarity for machine-oriented image quality.

>>> import torch
>>> from mlclipsim import MLCLIPSim
>>> metric = MLCLIPSim(encoder="scene-clip")
>>> x = torch.ones(2, 3, 64, 64)
>>> metric.score(reference=x, distorted=x)  # (N,), larger is closer
tensor([1., 1.])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlclipsim.encoders import load_encoder
    from mlclipsim.metric import MLCLIPSim, ml_clip_sim

__version__ = "0.1.0"
__all__ = ["MLCLIPSim", "__version__", "load_encoder", "ml_clip_sim"]

# Looked up on first use (PEP 562): the workflow's thin parts import this package without paying for torch.
_HOME = {"MLCLIPSim": "metric", "ml_clip_sim": "metric", "load_encoder": "encoders"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
