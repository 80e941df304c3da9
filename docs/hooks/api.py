"""A page of the API for every folder of the package, from its docstrings; new modules join by themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

import mlclipsim

PACKAGE = Path(mlclipsim.__file__).parent
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([^`]+)`")
_DOCTEST = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.DOTALL | re.MULTILINE)


class Markdown(griffe.Extension):
    """What the docstrings' Sphinx roles and bare doctests are in Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = _DOCTEST.sub(r"```pycon\n\g<0>\n```", text)


def pages() -> dict[str, list[str]]:
    """Page, as ``api/pcmp.md`` -> its modules that say what is public, by name."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE.parent).with_suffix("")
        if "__all__" in path.read_text(encoding="utf-8"):
            folder = module.parts[1] if len(module.parts) > 2 else "mlclipsim"
            name = ".".join(module.parts).removesuffix(".__init__")
            found.setdefault(f"api/{folder}.md", []).append(name)
    return found


def on_files(files: Files, config: Any, **_: Any) -> Files:
    for place, modules in pages().items():
        title = Path(place).stem
        text = "\n\n".join([f"# `{title}`", *(f"::: {name}" for name in modules)])
        files.append(File.generated(config, place, content=text))
    return files
