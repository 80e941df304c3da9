"""What a run has to cite: BibTeX of exactly the metrics, data sets, networks and software that made it.

The catalogs' ``citation`` names keys of ``config/references.bib``; software goes by the name of its package.
Which of them a run used is read from its records, and from the scores: a metric that lacked its weights
has none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mlclipsim import spec
from mlclipsim.artifacts import ArtifactError
from mlclipsim.provenance import Lineage, Record, lineage

__all__ = ["as_bibtex", "bibliography", "in_words", "keys"]

THE_PAPER = "ding2026mlclipsim"
THE_WORKFLOW = "snakemake"  # starts the steps, so that none of them imports it


def as_bibtex(results: Path) -> str:
    """The entries that the results in ``results``, a file or a run's folder, used, by their keys.

    Raises:
        ArtifactError: no record says what made them, or the bibliography lacks a key.
    """
    known, versions = bibliography(), _packages(lineage(results))
    used = keys(results)
    missing = sorted(used - known.keys())
    if missing:
        raise ArtifactError(f"config/references.bib has no entry {', '.join(missing)}; add it there")
    return "\n".join(_with_version(known[key], versions.get(key)) for key in sorted(used))


def keys(results: Path) -> set[str]:
    """Keys of what ``results`` used; packages without an entry in the bibliography are left out."""
    found = lineage(results)
    catalogs = {
        name: spec.read_yaml(spec.project_root() / "config" / "catalog" / f"{name}.yaml")
        for name in ("datasets", "encoders", "machines", "metrics")
    }
    cited = {THE_PAPER}
    for record in found.records:
        for catalog, name in _named(record, found.base):
            citation = catalogs[catalog].get(name, {}).get("citation") or []
            cited |= {citation} if isinstance(citation, str) else set(citation)
    return cited | (bibliography().keys() & {*_packages(found), THE_WORKFLOW})


def _named(record: Record, base: Path) -> Iterator[tuple[str, str]]:
    """(catalog, name) of what a step read or ran."""
    read: dict[str, Any] = record.made_from["spec"]
    yield from (("machines", name) for name in read.get("voters", {}))
    if record.made_from.get("weights"):  # else the encoder is only named, not run
        yield "encoders", read.get("encoder", {}).get("name", "")
    if record.step == "references":
        yield "datasets", read["references"]["source"]
    if read.get("dataset"):
        yield "datasets", read["dataset"]["name"]
    if "scores" in record.made_from["outputs"] and "metrics" in read:
        for scores in record.made_from["outputs"]["scores"]:
            column = pq.read_table(base / scores, columns=["metric"]).column("metric")
            for name in column.unique().to_pylist():
                yield "metrics", name
                if network := (read["metrics"][name].get("arguments") or {}).get("network"):
                    yield "machines", network["name"]


def _packages(found: Lineage) -> dict[str, str]:
    """Package -> version, as the last step saw it."""
    return {
        package: version
        for record in found.records
        for package, version in record.made_from["packages"].items()
        if version
    }


def bibliography() -> dict[str, str]:
    """Key -> entry, of ``config/references.bib``."""
    text = (spec.project_root() / "config" / "references.bib").read_text(encoding="utf-8")
    entries = re.finditer(r"^@\w+\{([^,\s]+),\n.*?^\}\n", text, re.MULTILINE | re.DOTALL)
    return {entry[1]: entry[0] for entry in entries}


def in_words(key: str) -> str:
    """An entry as a line of text: ``Russakovsky et al., ImageNet Large Scale ..., 2015``."""
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", bibliography()[key], re.MULTILINE))
    first, *others = fields["author"].split(" and ")
    words = [first.partition(",")[0] + " et al." * bool(others), fields["title"], fields.get("year", "")]
    accented = re.sub(r"\\(['\"])(\w)", _accented, ", ".join(filter(None, words)))
    return re.sub(r"[{}]", "", accented)


def _accented(found: re.Match[str]) -> str:
    """TeX's ``\\'e`` as the letter that it is."""
    mark = {"'": "\N{COMBINING ACUTE ACCENT}", '"': "\N{COMBINING DIAERESIS}"}[found[1]]
    return unicodedata.normalize("NFC", found[2] + mark)


def _with_version(entry: str, version: str | None) -> str:
    return entry[: -len("}\n")] + f"  note = {{version {version}}},\n}}\n" if version else entry
