"""Put together what the shards of a step made: the files, and the record, that one job would have made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mlclipsim import provenance
from mlclipsim.artifacts import (
    ArtifactError,
    concatenate_tables,
    read_json,
    read_table,
    sha256_of,
    write_json,
    write_table,
)
from mlclipsim.pcmp import drops, voters
from mlclipsim.shards import RECORD
from mlclipsim.steps import STEPS

__all__ = ["gather"]

# Tables without a row per image or pair: each part has counted what it saw.
_ADD_UP: dict[str, Callable[[Iterable[pd.DataFrame]], pd.DataFrame]] = {
    "drops": drops.add_up,
    "voters": voters.add_up,
}


def gather(step: str, spec: dict[str, Any], parts: Sequence[Path], outputs: dict[str, Path]) -> None:
    """Write the ``outputs`` of ``step`` from the folders of its ``parts``, in their order.

    Tables are concatenated row group by row group, counts are added up. The record of provenance beside the
    outputs says that they were made from what the parts were made from, in the time of all parts together.

    Raises:
        ArtifactError: a part is missing, damaged or of other settings than ``spec``, by its name; or none has
            a row of the first of ``outputs``.
    """
    began = time.time()
    records = [_checked(part, step, spec, outputs) for part in parts]
    for name, schema in STEPS[step].shards.items():
        if name not in outputs:
            continue
        files = [part / outputs[name].name for part in parts]
        if schema == "json":
            write_json(outputs[name], _agreed(files))
        elif schema in _ADD_UP:
            write_table(outputs[name], _ADD_UP[schema](read_table(file, schema) for file in files), schema)
        elif not concatenate_tables(files, outputs[name], schema) and name == next(iter(outputs)):
            raise ArtifactError(
                f"{outputs[name]}: expected rows, its {len(parts)} parts have none; see their logs"
            )
    seconds = sum(record["measured"]["seconds"] for record in records) + time.time() - began
    together = {
        "made_from": records[0]["made_from"] | {"outputs": provenance.hashes(outputs)},
        "measured": records[0]["measured"] | {"seconds": round(seconds, 3), "shards": len(parts)},
    }
    write_json(provenance.beside(outputs), together)


def _checked(part: Path, step: str, spec: dict[str, Any], outputs: dict[str, Path]) -> dict[str, Any]:
    """The record of a part, if it is one of this very step and its files are those that the record names."""
    path = part / RECORD
    record = read_json(path)
    try:
        made_from, _ = record["made_from"], record["measured"]["seconds"]
        theirs = made_from["step"], made_from["spec_sha256"]
        sums = {name: set(made_from["outputs"][name].values()) for name in outputs}
    except (KeyError, TypeError, AttributeError):
        raise ArtifactError(f"{path} is no record of a part; delete it and run again") from None
    if theirs != (step, provenance.digest(spec)):
        raise ArtifactError(f"{part}: expected a part of this {step}, got one of other settings; delete it")
    for name, whole in outputs.items():
        file = part / whole.name
        try:
            sound = sha256_of(file) in sums[name]
        except OSError as error:
            raise ArtifactError(
                f"{file} cannot be read ({error.strerror}); delete it and run again"
            ) from None
        if not sound:
            raise ArtifactError(f"{file} is not what its job wrote (by its sha256); delete it and run again")
    return record


def _agreed(files: Sequence[Path]) -> Any:
    """What all files say alike."""
    first, *others = (read_json(file) for file in files)
    for file, other in zip(files[1:], others, strict=True):
        if other != first:
            raise ArtifactError(f"{file} and {files[0]} do not agree; delete both and run again")
    return first
