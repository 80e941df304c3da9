"""Code from outside this tree that a configuration or a command names: where it lies, and how it is imported.

A plug-in is a Python module or package with a catalog beside it (``sharp.yaml`` beside ``sharp.py``, or
``plugin.yaml`` in a package), listed under ``plugins`` in the config. Its catalog has a section per kind,
with entries in the shape of ``config/catalog``, which name code as ``module:name`` (docs/extending.md).

Modules are found in the working directory, else where Python looks. Finding one imports nothing, for the
workflow does so at every start. What an entry's code was travels with it as the sha256 of its source, so that
editing the code makes anew what depends on it, and nothing else.

Standard library only: the workflow imports this.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from operator import attrgetter
from pathlib import Path
from typing import Any

from mlclipsim.usage import UsageError

__all__ = ["KINDS", "catalog", "load", "reference", "stamp", "verify"]

# Of each kind, the key of an entry that names its code, and the key that says `plugin` where it does.
KINDS = {
    "datasets": ("function", "reader"),
    "distortions": ("family", None),  # all of them: those of the package are in no catalog
    "encoders": ("model", "source"),
    "machines": ("architecture", "builder"),
    "metrics": ("function", "library"),
}
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_CATALOG = "plugin.yaml"  # of a package


def catalog(module: str) -> Path:
    """The catalog of a plug-in.

    Raises:
        UsageError: there is no such module, or no catalog beside it.
    """
    file = _sources(module)[-1]
    path = file.with_name(_CATALOG) if file.name == "__init__.py" else file.with_suffix(".yaml")
    if not path.is_file():
        raise UsageError(f"plug-in {module!r} has no catalog {path}; write there what it adds")
    return path


def reference(kind: str, entry: Mapping[str, Any]) -> str | None:
    """The ``module:name`` of a catalog entry; None where its code is this package's."""
    key, mark = KINDS.get(kind, (None, None))
    return entry[key] if key and (mark is None or entry.get(mark) == "plugin") else None


def stamp(kind: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry; where it names code, with ``plugin``: its ``module`` and the ``sha256`` of its source.

    Raises:
        UsageError: it names a module that is not there.
    """
    if (named := reference(kind, entry)) is None:
        return dict(entry)
    module = _split(named)[0]
    return {**entry, "plugin": {"module": module, "sha256": _sha256(module)}}


def verify(spec: Any) -> None:
    """Raise UsageError if code that a step's slice names is no longer what the slice was made for."""
    if isinstance(spec, list):
        for part in spec:
            verify(part)
    elif isinstance(spec, dict):
        stamped = spec.get("plugin")
        if isinstance(stamped, dict) and stamped["sha256"] != _sha256(stamped["module"]):
            raise UsageError(
                f"the source of plug-in {stamped['module']!r} has changed since this run was planned; "
                "start it anew"
            )
        for part in spec.values():
            verify(part)


def load(named: str) -> Any:
    """Import what ``module:name`` means.

    Raises:
        UsageError: it is of another form, or there is no such module or name, or importing it fails.
    """
    module, name = _split(named)
    _sources(module)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{module} cannot be imported ({type(error).__name__}: {reason}); mend it"
        ) from error
    try:
        return attrgetter(name)(imported)
    except AttributeError:
        raise UsageError(f"module {module} has no {name!r}; define it there, or name another") from None


def _split(named: str) -> tuple[str, str]:
    if not _REFERENCE.fullmatch(named):
        raise UsageError(f"expected code as module:name, got {named!r}; give both, with a colon between")
    module, _, name = named.partition(":")
    return module, name


def _sources(module: str) -> list[Path]:
    """The file of the module, after those of the packages that it lies in.

    Raises:
        UsageError: there is no such module.
    """
    top, *inner = module.split(".")
    parts = [_top(top)]
    for number, _ in enumerate(inner, start=2):
        above = parts[-1].submodule_search_locations if parts[-1] else None
        name = ".".join([top, *inner][:number])
        parts.append(PathFinder.find_spec(name, above) if above else None)
    if parts[-1] is None:
        raise UsageError(
            f"there is no module {module!r} in {os.getcwd()} or where Python looks; put it there, "
            "install it, or name its folder in PYTHONPATH"
        )
    files = [Path(part.origin) for part in parts if part and part.has_location and part.origin]
    if parts[-1].origin is None or not files or files[-1].suffix != ".py":
        raise UsageError(f"module {module!r} has no Python source; name one that has")
    return files


def _top(name: str) -> ModuleSpec | None:
    here = PathFinder.find_spec(name, [os.getcwd()])
    if here is not None and here.origin:  # else a mere folder of this name
        return here
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # of what was not imported in the ordinary way, such as __main__
        return None


def _sha256(module: str) -> str:
    """Digest of a module's source: of its file, or of all files of the package that it lies in."""
    first = _sources(module)[0]
    files = _package(first.parent) if first.name == "__init__.py" else [first]
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(first.parent).as_posix()
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _package(folder: Path) -> Iterator[Path]:
    """The files of a package, but for hidden and compiled ones; its catalog is read entry by entry."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        made = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if path.is_file() and not made and path != folder / _CATALOG:
            yield path
