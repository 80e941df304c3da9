"""A run as a research object: RO-Crate metadata that turns its folder into something to deposit and cite.

The crate describes the run's own files, the steps that made them (as actions, by the Process Run Crate
profile), the networks and packages that took part, and what runs share, which stays outside: images have
licences of their own, and PCMP is published by `mlclipsim pcmp export`.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.model.softwareapplication import SoftwareApplication
from rocrate.rocrate import ROCrate

from mlclipsim.artifacts import ArtifactError, sha256_of, write_json
from mlclipsim.provenance import Lineage, Record, commit_date, digest, lineage

__all__ = ["describe", "write"]

NAME = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
RO_CRATE = "1.1"  # which the profile builds on
PAPER = "https://arxiv.org/abs/2605.09479"
TYPES = {".bib": "application/x-bibtex", ".md": "text/markdown", ".parquet": "application/vnd.apache.parquet"}
_TEXTS = ("references.bib",)  # of the run, and no step's


def write(run: Path) -> Path:
    """Write ``ro-crate-metadata.json`` into a run's folder, ``results/<preset>/<run>``; returns its path.

    Raises:
        ArtifactError: no record says what made the run, or a file that one names is not there.
    """
    path = run / NAME
    write_json(path, describe(run))
    return path


def describe(run: Path) -> dict[str, Any]:
    """The metadata as JSON-LD; the same for the same results of the same code, whenever and wherever made."""
    found = lineage(run)
    records = sorted(found.records, key=lambda record: record.path)
    last = records[-1].made_from
    crate = ROCrate(version=RO_CRATE)
    crate.metadata.extra_terms["sha256"] = "https://schema.org/sha256"  # younger than this version's context
    crate.name = f"ML-CLIPSim: preset {last['preset']}, run {run.absolute().name}"
    crate.description = (
        "Tables, figures, claims and fitted weights of one run, with the record of every step that made them."
    )
    crate.datePublished = _date(records)
    crate.license = _licence(records)
    profile = crate.add(
        ContextEntity(
            crate, PROFILE, {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
        )
    )
    crate.root_dataset["conformsTo"] = profile
    paper = crate.add(
        ContextEntity(
            crate,
            PAPER,
            {
                "@type": "ScholarlyArticle",
                "name": "ML-CLIPSim: Multi-Layer CLIP Similarity for Machine-Oriented Image Quality",
            },
        )
    )
    crate.root_dataset["citation"] = paper

    files = _files(crate, run, found, records)
    suite = _software(crate, records)
    crate.root_dataset["mentions"] = [
        crate.add_action(
            suite,
            identifier=f"#{record.step}-{digest(record.made_from)[:8]}",
            object=[*_entities(files, found.base, record.inputs), *_networks(crate, record)],
            result=_entities(files, found.base, record.outputs),
            properties={"name": record.step, "description": _settings(record)},
        )
        for record in records
    ]
    return crate.metadata.generate()


def _files(crate: ROCrate, run: Path, found: Lineage, records: list[Record]) -> dict[Path, Any]:
    """Every file that a step of the run read or wrote -> its entity; the run's own are parts of the crate."""
    entities: dict[Path, Any] = {}
    sums = {found.base / name: sha256 for r in records for name, sha256 in (r.inputs | r.outputs).items()}
    for path, sha256 in sorted(sums.items()):
        if not path.is_relative_to(run.absolute()):
            name = path.relative_to(found.base).as_posix() if path.is_relative_to(found.base) else path.name
            properties = {"@type": "CreativeWork", "name": name, "sha256": sha256}
            entities[path] = crate.add(ContextEntity(crate, f"#{name}", properties))
        elif not path.is_file():
            raise ArtifactError(f"{path} is not there; make it again, or verify the run")
        else:
            size = {"sha256": sha256, "contentSize": str(path.stat().st_size)}
            entities[path] = _part(crate, run, path, size)
    for record in records:  # they hold times, so that their size and sum are not said
        if record.path.is_relative_to(run.absolute()):
            about = [entities[found.base / name] for name in record.outputs]
            _part(crate, run, record.path, {"name": f"provenance of {record.step}", "about": about})
    for path in (run.absolute() / name for name in _TEXTS):
        if path.is_file():
            _part(crate, run, path, {"sha256": sha256_of(path)})
    return entities


def _part(crate: ROCrate, run: Path, path: Path, properties: dict[str, Any]) -> Any:
    place = path.relative_to(run.absolute()).as_posix()
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return crate.add_file(path, place, properties={"name": place, "encodingFormat": kind, **properties})


def _entities(files: dict[Path, Any], base: Path, names: Iterable[str]) -> list[Any]:
    return [files[base / name] for name in names]


def _networks(crate: ROCrate, record: Record) -> list[Any]:
    """The weights that a step ran, an entity for each network."""
    entities = []
    for name, places in record.made_from.get("weights", {}).items():
        properties: dict[str, Any] = {"@type": "CreativeWork", "name": f"{name}: {', '.join(places)}"}
        if sums := [sha256 for sha256 in places.values() if sha256]:
            properties["sha256"] = sums[0] if len(sums) == 1 else sums
        entities.append(crate.add(ContextEntity(crate, f"#weights-{name}", properties)))
    return entities


def _software(crate: ROCrate, records: list[Record]) -> Any:
    """The suite, which requires the packages that its steps imported."""
    versions = {p: v for record in records for p, v in record.made_from["packages"].items() if v}
    commits = sorted({record.made_from["git_commit"] or "" for record in records} - {""})
    packages = [
        crate.add(
            SoftwareApplication(
                crate,
                f"https://pypi.org/project/{name}/{version}/",
                {"name": name, "softwareVersion": version},
            )
        )
        for name, version in sorted(versions.items())
        if name != "mlclipsim"
    ]
    properties = {
        "name": "mlclipsim",
        "softwareVersion": versions.get("mlclipsim", "") + "".join(f"+{commit[:12]}" for commit in commits),
        "softwareRequirements": packages,
    }
    return crate.add(SoftwareApplication(crate, "#mlclipsim", properties))


def _settings(record: Record) -> str:
    made = record.made_from
    seed = f"seed {made['seed']}, " if made["seed"] is not None else ""
    return f"{seed}threads {made['threads']}, settings of sha256 {made['spec_sha256']}"


def _date(records: list[Record]) -> str:
    """When the newest code of the run was committed; without a repository, when its last step began."""
    dates = [
        commit_date(record.made_from["git_commit"]) for record in records if record.made_from["git_commit"]
    ]
    return max((date for date in dates if date), default=max(r.measured["started_utc"] for r in records))


def _licence(records: list[Record]) -> str:
    """Of the photographs that everything was made of."""
    sets = [r.made_from["spec"]["references"]["dataset"] for r in records if r.step == "references"]
    return sets[0]["licence"] if sets else "Apache-2.0"
