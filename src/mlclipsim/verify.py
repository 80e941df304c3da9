"""Is a result still what its record says, and so is everything that it was made from?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from mlclipsim import provenance
from mlclipsim.artifacts import sha256_of
from mlclipsim.places import locate
from mlclipsim.provenance import Record
from mlclipsim.steps import STEPS

__all__ = ["Verdict", "verify"]

Hash = Callable[[Path], "str | None"]  # sha256 of what lies there now


class Verdict(NamedTuple):
    """What :func:`verify` found.

    Attributes:
        problems: a sentence each; none if all is sound.
        n_files: how many files were hashed.
        n_records: how many steps made them.
        unrecorded: files that a step read, and of which nothing says what made them.
        unmade: of a run's folder, the tables, figures and claims that it does not hold.
    """

    problems: list[str]
    n_files: int
    n_records: int
    unrecorded: list[str]
    unmade: list[str]


def verify(path: Path) -> Verdict:
    """Compare ``path``, a result or a folder of them, and all that it was made from with their records.

    Told apart are files that were touched, files that are missing, and results whose inputs were made again
    since, so that they were made by other inputs than those that lie there now.

    Raises:
        ArtifactError: no record names ``path`` or anything in it.
    """
    base, makers, records = provenance.lineage(path)
    current = cache(lambda file: sha256_of(file) if file.is_file() else None)
    problems: dict[str, None] = {}  # in order, each once
    unrecorded: set[str] = set()
    for record in records:
        made = {name: makers[base / name] for name in record.inputs if base / name in makers}
        unrecorded |= record.inputs.keys() - made.keys()
        now = {
            name: made[name].outputs[name] if name in made else current(base / name) for name in record.inputs
        }
        found = (_touched(record, base, current), _stale(record, now), _networks(record, current))
        problems |= dict.fromkeys(chain(*found))
    return Verdict(
        list(problems), current.cache_info().currsize, len(records), sorted(unrecorded), _unmade(path)
    )


def _unmade(path: Path) -> list[str]:
    if path.name == "shared" or not (path.parent / "shared").is_dir():
        return []  # not a run
    documents = [name for name, step in STEPS.items() if step.report]
    return [name for name in documents if not (path / "provenance" / f"{name}.json").is_file()]


def _touched(record: Record, base: Path, current: Hash) -> Iterator[str]:
    if record.made_from["spec_sha256"] != provenance.digest(record.made_from["spec"]):
        yield f"{record.path} was touched: its settings have another digest than it says"
    for name, expected in record.outputs.items():
        found = current(base / name)
        if found is None:
            yield f"{name} is missing"
        elif found != expected:
            yield f"{name} was touched: made as {expected[:8]}, now {found[:8]}"


def _stale(record: Record, now: dict[str, str | None]) -> Iterator[str]:
    """Inputs that lie there now with another content than the step read."""
    for name, read in record.inputs.items():
        if (lies_there := now[name]) is None:
            yield f"{name} is missing"
        elif lies_there != read:
            yield f"{_names(record)} was made from another {name}: {read[:8]}, now {lies_there[:8]}"


def _networks(record: Record, current: Hash) -> Iterator[str]:
    """Weights that are other ones now; those that are not on this machine say nothing."""
    for name, files in record.made_from.get("weights", {}).items():
        for place, ran in files.items():
            found = current(locate(place)) if place.startswith(("assets:", "package:")) else None
            if ran and found and found != ran:
                yield f"{_names(record)} was made by another {name}: {ran[:8]}, now {found[:8]}"


def _names(record: Record) -> str:
    first, *others = record.outputs
    return f"{first} (and {len(others)} more)" if others else first
