"""Registration with pyiqa, on a stand-in of the two objects that its create_metric looks into."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from mlclipsim.integrations import pyiqa as integration
from mlclipsim.metric import MLCLIPSim


class Registry(dict):
    """As ``pyiqa.utils.registry.Registry``: names a class by itself, refuses the same name twice."""

    def register(self, kind: type) -> type:
        assert kind.__name__ not in self
        self[kind.__name__] = kind
        return kind


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch) -> Any:
    configs, registry = ModuleType("pyiqa.default_model_configs"), ModuleType("pyiqa.utils.registry")
    configs.DEFAULT_CONFIGS = {}  # type: ignore[attr-defined]
    registry.ARCH_REGISTRY = Registry()  # type: ignore[attr-defined]
    package, tools = ModuleType("pyiqa"), ModuleType("pyiqa.utils")
    for module in (package, tools, configs, registry):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def create_metric(name: str, **options: Any) -> Any:
        """As pyiqa's InferenceModel builds its network."""
        chosen = configs.DEFAULT_CONFIGS[name]["metric_opts"] | options
        return registry.ARCH_REGISTRY[chosen.pop("type")](**chosen).eval()

    package.create_metric = create_metric  # type: ignore[attr-defined]
    package.configs = configs.DEFAULT_CONFIGS  # type: ignore[attr-defined]
    return package


def test_created_by_name(pyiqa: Any) -> None:
    integration.register(encoder="scene-clip")
    integration.register("ml_clip_sim_global", encoder="scene-clip", weights="global")
    integration.register(encoder="scene-clip")
    assert pyiqa.configs["ml_clip_sim"]["metric_mode"] == "FR"
    assert not pyiqa.configs["ml_clip_sim"]["lower_better"]
    x, y = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    metric = MLCLIPSim("scene-clip")
    expected = metric.score(reference=x, distorted=y)[:, None]
    torch.testing.assert_close(pyiqa.create_metric("ml_clip_sim")(y, x), expected)
    last = pyiqa.create_metric("ml_clip_sim", layers=[6])
    assert last.metric.identity["layers"] == "6 global"
    assert pyiqa.create_metric("ml_clip_sim_global").metric.identity["weights"] == "global"


def test_without_pyiqa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ModuleNotFoundError, match=r"expected pyiqa .* found none .*pip install pyiqa"):
        integration.register()
