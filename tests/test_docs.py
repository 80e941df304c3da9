"""What the documentation shows is run: the Python blocks of its pages, and doctests."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest
import yaml

from mlclipsim import forecast, spec

ROOT = Path(__file__).parents[1]
# compressai imports pytorch_msssim, which compiles a function with torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@pytest.mark.parametrize("page", ["docs/metric.md", "docs/faq.md", "README.md"])
def test_python_blocks_run_one_after_another(page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.M)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def modules_with_doctests() -> list[str]:
    source = ROOT / "src"
    paths = [path for path in source.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    return sorted(".".join(path.relative_to(source).with_suffix("").parts) for path in paths)


@pytest.mark.parametrize("module", modules_with_doctests())
def test_doctests(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module.removesuffix(".__init__")))
    assert result.attempted
    assert not result.failed


def test_the_config_for_own_photographs_can_be_planned() -> None:
    page = (ROOT / "docs/photographs.md").read_text(encoding="utf-8")
    config = yaml.safe_load(page.split('```yaml title="mine.yaml"\n')[1].split("```")[0])
    plan = spec.load(config, planning=True)
    assert plan.run == "mine"
    assert str(plan.entry("datasets", "mine")["path"]) == "/data/photographs"
    assert forecast.forecast(plan, cores=2).seconds > 0
