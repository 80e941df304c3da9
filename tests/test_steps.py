"""The register of steps, and the files that each is said to run."""

from __future__ import annotations

import inspect

import pytest

from mlclipsim import steps
from mlclipsim.artifacts import SCHEMAS


@pytest.mark.parametrize("step", steps.STEPS)
def test_every_step_is_a_function_of_spec_inputs_outputs(step):
    """And of the share of the work that is meant, where it can be shared."""
    share = ["shard"] if steps.STEPS[step].shards else []
    assert list(inspect.signature(steps.function(step)).parameters) == ["spec", "inputs", "outputs", *share]


def test_parts_are_of_declared_tables():
    kinds = {kind for step in steps.STEPS.values() for kind in step.shards.values()}
    assert kinds <= {*SCHEMAS, "json"}


@pytest.mark.parametrize("step", steps.STEPS)
def test_code_of_a_step_has_its_own_module_and_the_artifacts_it_uses(step):
    code = steps.code(step)
    module = steps.STEPS[step].call.split(":")[0].replace(".", "/")
    assert any(path.endswith(f"mlclipsim/{module}.py") for path in code)
    assert any(path.endswith("mlclipsim/artifacts.py") for path in code)


def test_imports_are_followed(tmp_path, monkeypatch):
    package = tmp_path / "mlclipsim"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from mlclipsim import unrelated")
    (package / "start.py").write_text("def f():\n    from mlclipsim.inner import thing\n")
    (package / "inner" / "__init__.py").write_text("from .thing import name\nimport numpy")
    (package / "inner" / "thing.py").write_text("from ..leaf import x")
    (package / "leaf.py").write_text("import json")
    (package / "unrelated.py").write_text("")
    monkeypatch.setattr(steps, "PACKAGE", package)
    monkeypatch.chdir(tmp_path)
    expected = ["inner/__init__.py", "inner/thing.py", "leaf.py", "start.py"]
    assert steps.module_code("start") == [f"mlclipsim/{name}" for name in expected]


def test_code_of_a_page_has_its_templates():
    assert any(path.endswith("report/templates/report.html") for path in steps.code("report"))
    assert not any("templates" in path for path in steps.code("table_2"))


def test_figures_do_not_share_their_modules():
    assert not any("figure_3" in path for path in steps.code("figure_1"))
    assert not any("report/" in path for path in steps.code("preference"))


def test_options_leave_out_names_without_files():
    files = {"ratings": ["a", "b"], "weights": "w", "images": [], "code": ["x.py"], "parts": ["y", "z"]}
    assert steps.options(files) == ["--input", "ratings=a", "b", "--input", "weights=w"]
