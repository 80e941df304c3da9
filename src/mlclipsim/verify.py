"""Is a result still what its record says, and so is everything that it was made from?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mlclipsim import provenance
from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.places import locate
from mlclipsim.provenance import Record

__all__ = ["Verdict", "verify"]

Hash = Callable[[Path], "str | None"]  # sha256 of what lies there now


class Verdict(NamedTuple):
    """What :func:`verify` found.

    Attributes:
        problems: a sentence each; none if all is sound.
        n_files: how many files were hashed.
        n_records: how many steps made them.
        unrecorded: files that a step read, and of which nothing says what made them.
    """

    problems: list[str]
    n_files: int
    n_records: int
    unrecorded: list[str]


def verify(path: Path) -> Verdict:
    """Hash ``path``, a result or a folder of them, and all that it was made from, and compare with the records.

    Told apart are files that were touched, files that are missing, and results whose inputs were made again
    since, so that they were made by other inputs than those that lie there now.

    Raises:
        ArtifactError: no record names ``path`` or anything in it.
    """
    base = provenance.base_of(path)
    records = provenance.read_all(path)
    made = {base / name: (record, sha256) for record in records for name, sha256 in record.outputs.items()}
    waiting = [record for file, (record, _) in made.items() if file.is_relative_to(path.absolute())]
    if not waiting:
        raise ArtifactError(f"no record says what made {path}; name a result, or make it again")
    current = cache(lambda file: sha256_of(file) if file.is_file() else None)
    problems: dict[str, None] = {}  # in order, each once
    unrecorded: set[str] = set()
    seen: set[Path] = set()
    while waiting:
        record = waiting.pop()
        if record.path in seen:
            continue
        seen.add(record.path)
        for name in record.inputs:
            if base / name in made:
                waiting.append(made[base / name][0])
            else:
                unrecorded.add(name)
        now = {
            name: made[base / name][1] if base / name in made else current(base / name)
            for name in record.inputs
        }
        problems |= dict.fromkeys(
            [*_touched(record, base, current), *_stale(record, now), *_networks(record, current)]
        )
    return Verdict(sorted(problems), current.cache_info().currsize, len(seen), sorted(unrecorded))


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
        if now[name] is None:
            yield f"{name} is missing"
        elif now[name] != read:
            yield f"{_names(record)} was made from another {name}: {read[:8]}, now {now[name][:8]}"


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
