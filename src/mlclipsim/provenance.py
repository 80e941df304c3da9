"""Where a result comes from: settings, inputs, networks, code and software, in a record beside the results.

What two runs of the same code on the same machine share is under ``made_from``; what they cannot share
(time, host) is under ``measured``. Results themselves hold neither, so they stay byte-identical. A record
names those of the files that it was made from (``parents``), so that the records of a run form a tree.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mlclipsim import pretrained, shards
from mlclipsim.artifacts import ArtifactError, read_json, sha256_of, write_json
from mlclipsim.spec import canonical

__all__ = [
    "MODULES",
    "Lineage",
    "Record",
    "as_tree",
    "beside",
    "check",
    "collect",
    "commit_date",
    "digest",
    "git_state",
    "hashes",
    "lineage",
    "package_version",
    "write",
]

# Packages that can move a number or a pixel of a result, and how each is imported.
MODULES = {
    "mlclipsim": "mlclipsim",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "statsmodels": "statsmodels",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "matplotlib": "matplotlib",
    "seaborn": "seaborn",
    "pillow": "PIL",
    "torch": "torch",
    "torchvision": "torchvision",
    "torchmetrics": "torchmetrics",
    "open_clip_torch": "open_clip",
    "timm": "timm",
    "piq": "piq",
    "pyiqa": "pyiqa",
    "dreamsim": "dreamsim",
    "compressai": "compressai",
    "bjontegaard": "bjontegaard",
    "onnxruntime": "onnxruntime",
    "pycocotools": "pycocotools",
    "krippendorff": "krippendorff",
}
Paths = Mapping[str, Path | list[Path]]
Hashes = dict[str, dict[str, str]]  # name -> {path: sha256}
FOLDER = shards.RECORDS  # in the folder of what they are about, or in its run's


class Record(NamedTuple):
    """One record, and where it lies."""

    path: Path
    made_from: dict[str, Any]
    measured: dict[str, Any]

    @property
    def step(self) -> str:
        return self.made_from["step"]

    @property
    def inputs(self) -> dict[str, str]:
        """path -> sha256"""
        return _flat(self.made_from["inputs"])

    @property
    def outputs(self) -> dict[str, str]:
        """path -> sha256"""
        return _flat(self.made_from["outputs"])


def _flat(groups: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {path: sha256 for group in groups.values() for path, sha256 in group.items()}


def beside(outputs: Paths) -> Path:
    """Where the record of a step lies whose rule names no place for it: named after its first output."""
    first = next(path for group in outputs.values() for path in _listed(group))
    return shards.record(first)


def check(inputs: Paths) -> Hashes:
    """What a step is about to read: name -> {path: sha256}, each as the step that made it has left it.

    Files of which no record says anything pass: they come from outside the workflow.

    Raises:
        ArtifactError: one is missing, no file, or has changed since it was made.
    """
    read = hashes(inputs)
    for record in _makers(inputs):
        for path, now in _flat(read).items():
            if (made := record.outputs.get(path, now)) != now:
                raise ArtifactError(
                    f"{path} is damaged: {record.step} made it with sha256 {made[:12]}, now it has "
                    f"{now[:12]}; delete it and run again"
                )
    return read


def write(
    record: Path,
    step: str,
    spec: Mapping[str, Any],
    inputs: Paths,
    outputs: Paths,
    *,
    started: float,
    read: Hashes | None = None,
) -> None:
    """Write the provenance of what ``step`` made to ``record`` (JSON).

    Args:
        started: when the step began, seconds since 1970.
        read: what :func:`check` found of the inputs at that time; None: they are hashed now.
    """
    write_json(record, collect(step, spec, inputs, outputs, started=started, read=read))


def collect(
    step: str,
    spec: Mapping[str, Any],
    inputs: Paths,
    outputs: Paths,
    *,
    started: float,
    read: Hashes | None = None,
) -> dict[str, Any]:
    """The provenance as a dict of ``made_from`` (reproducible) and ``measured`` (not)."""
    commit, dirty = git_state()
    lock = Path("requirements.lock")
    device, processor = _device()
    preset, run = _place(outputs)
    return {
        "made_from": {
            "step": step,
            "preset": spec.get("preset", preset),
            "run": spec.get("run", run),
            "seed": spec.get("seed"),
            "threads": spec.get("threads"),
            "device": device,
            "spec": dict(spec),
            "spec_sha256": digest(spec),
            "inputs": hashes(inputs) if read is None else read,
            "outputs": hashes(outputs),
            "parents": _parents(inputs),
            "weights": _weights(spec) if "torch" in sys.modules else {},  # without it no network was run
            "git_commit": commit,
            "git_dirty": dirty,
            "lock_sha256": sha256_of(lock) if lock.is_file() else None,
            "python": platform.python_version(),
            "packages": {
                package: package_version(package)
                for package, module in MODULES.items()
                if module in sys.modules
            },
        },
        "measured": {
            "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 3),
            **_resources(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "processor": processor,
            "cpus": os.cpu_count(),
        },
    }


def _resources() -> dict[str, float]:
    """What the process and its children have used so far: processor time, and memory of the largest."""
    if workers := sys.modules.get("mlclipsim.workers"):  # without it none was started
        workers.end_workers()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "cpu_seconds": round(sum(part.ru_utime + part.ru_stime for part in used), 3),
        "peak_mib": round(max(part.ru_maxrss for part in used) / 1024),
    }


def digest(value: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON."""
    return hashlib.sha256(canonical(dict(value)).encode()).hexdigest()


def _listed(group: Path | list[Path]) -> list[Path]:
    return group if isinstance(group, list) else [group]


def hashes(paths: Paths) -> Hashes:
    """Name -> {path: sha256}, as records have their inputs and outputs."""
    return {
        name: {str(path): _hash(path) for path in _listed(group)} for name, group in sorted(paths.items())
    }


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; run the step that makes it") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); delete it and run again") from None


def _parents(inputs: Paths) -> dict[str, str]:
    """Record of each input that has one -> sha256 of its ``made_from``, and so of all that came before."""
    return {str(record.path): digest(record.made_from) for record in _makers(inputs)}


def _makers(inputs: Paths) -> Iterator[Record]:
    """The records of what made the inputs: beside them, or in the folder of their run.

    A damaged record stops those who read it later, not a step that does its work.
    """
    paths = {str(path) for group in inputs.values() for path in _listed(group)}
    for folder in sorted({folder for path in paths for folder in list(Path(path).parents)[:2]}):
        with suppress(ArtifactError):
            yield from (record for record in _records(folder / FOLDER) if paths & record.outputs.keys())


def _place(outputs: Paths) -> tuple[str | None, str | None]:
    """Preset and run that the results belong to, by their path; no run where runs share them."""
    first = next(path for group in outputs.values() for path in _listed(group))
    _, results, place = str(first).rpartition("results/")
    preset, _, rest = place.partition("/")
    run = rest.partition("/")[0]
    return (preset, run if run != "shared" else None) if results else (None, None)


def _weights(spec: Mapping[str, Any]) -> dict[str, dict[str, str | None]]:
    """Network by its name in the catalogs -> where its weights came from, and the sha256 of each file.

    A metric that lacks a file was not run.
    """
    named = {**spec.get("voters", {}), **spec.get("metrics", {})}
    inside = [(entry.get("arguments") or {}).get("network") for entry in spec.get("metrics", {}).values()]
    named |= {network["name"]: network["entry"] for network in [spec.get("encoder"), *inside] if network}
    return {
        name: {place: sha256_of(path) if path and path.is_file() else None for place, path in found.items()}
        for name, entry in sorted(named.items())
        if (found := pretrained.files(entry)) and not ("library" in entry and None in found.values())
    }


def _device() -> tuple[str, str]:
    """``cuda`` or ``cpu``, and its model."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name()
    return "cpu", processor_name()


def processor_name() -> str:
    """The processor's model, as the system calls it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor()


def package_version(package: str) -> str | None:
    """The installed version, None where the package runs from a source tree."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the working tree and whether tracked files differ; (None, None) outside a repository."""
    try:
        commit = _output("git", "rev-parse", "HEAD").strip()
        changed = _output("git", "status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.SubprocessError):
        return None, None
    return (commit, bool(changed)) if re.fullmatch(r"[0-9a-f]{40,64}", commit) else (None, None)


def commit_date(commit: str) -> str | None:
    """When ``commit`` was made (ISO 8601), None where this repository does not know it."""
    try:
        return _output("git", "show", "--no-patch", "--format=%cI", commit).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


def _base_of(path: Path) -> Path:
    """The folder that the paths of records start from: the one above ``results``.

    Raises:
        ArtifactError: ``path`` does not exist, or is not in or below a folder ``results``.
    """
    absolute = path.absolute()
    if not absolute.exists():
        made = next(iter(sorted(Path("results").glob("*/*/tables/*.csv"))), None)
        mend = f"name a result, such as {made}" if made else "run the workflow first, which makes results/"
        raise ArtifactError(f"{path} is not there; {mend}")
    for folder in (absolute, *absolute.parents):
        if folder.name == "results":
            return folder.parent
    raise ArtifactError(f"{path} is not below a folder named results; name a result of the workflow")


def _snapshot(path: Path) -> Lineage | None:
    """The lineage of a table, figure or claims in a copy of a run's own files, such as ``docs/reference``.

    The copy has the records of these alone, which name them as they lay below ``results/<preset>/<run>/``.
    """
    absolute = path.absolute()
    base = next((f for f in (absolute, *absolute.parents) if (f / FOLDER).is_dir()), None)
    if not absolute.exists() or base is None or "results" in absolute.parts:
        return None
    records = []
    for record in _records(base / FOLDER):
        made = record.made_from
        run = f"results/{made['preset']}/{made['run']}/"
        moved = {
            kind: {
                name: {file.removeprefix(run): sha256 for file, sha256 in group.items()}
                for name, group in made[kind].items()
            }
            for kind in ("inputs", "outputs")
        }
        records.append(record._replace(made_from=made | moved))
    makers = {base / output: record for record in records for output in record.outputs}
    return _back_from(path, base, makers)


def _read_all(path: Path) -> list[Record]:
    """Every record of the preset that ``path`` belongs to (of all presets, if it is ``results`` itself).

    Raises:
        ArtifactError: there is none, a damaged one, or ``path`` is no result.
    """
    results = _base_of(path) / "results"
    parts = path.absolute().relative_to(results).parts
    folder = results / parts[0] if parts else results
    records = [record for place in sorted(folder.rglob(FOLDER)) for record in _records(place)]
    if not records:
        raise ArtifactError(f"no record says what made {path}; run the workflow again, which writes them")
    return records


def _records(folder: Path) -> Iterator[Record]:
    for path in sorted(folder.glob("*.json")):
        found = read_json(path)
        try:
            found = dict(found)
            record = Record(path, found["made_from"], found["measured"])
            sound = _is_sound(record)
        except (KeyError, TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            raise ArtifactError(f"{path} is no record of provenance; delete it and run its step again")
        yield record


def _is_sound(record: Record) -> bool:
    """Whether what the functions here read of a record is there, and of its kind."""
    made, measured = record.made_from, record.measured
    files = [*record.inputs.items(), *record.outputs.items()]
    hashes = [sha256 for network in made.get("weights", {}).values() for sha256 in network.values()]
    texts = [record.step, measured["started_utc"], *(text for pair in files for text in pair)]
    optional = [made["git_commit"], made["preset"], made["run"], *hashes]
    return (
        bool(record.outputs)
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(text, str | None) for text in optional)
        and isinstance(measured["seconds"], int | float)
        and {"git_dirty", "seed"} <= made.keys()
    )


class Lineage(NamedTuple):
    """Results and all that they were made from.

    Attributes:
        base: what the paths of records start from.
        makers: file -> the record of the step that made it, for every record of the preset.
        records: of the results asked for and of everything before them, in the order in which they began.
    """

    base: Path
    makers: dict[Path, Record]
    records: list[Record]


def lineage(path: Path) -> Lineage:
    """Follow ``path``, a result or a folder of them, back to the data.

    Raises:
        ArtifactError: no record names it or anything in it.
    """
    base = _base_of(path)
    return _back_from(path, base, {base / o: record for record in _read_all(path) for o in record.outputs})


def _back_from(path: Path, base: Path, makers: dict[Path, Record]) -> Lineage:
    waiting = [record for file, record in makers.items() if file.is_relative_to(path.absolute())]
    if not waiting:
        raise ArtifactError(
            f"no record says what made {path}; name a result (a table, a figure, a parquet), or make it again"
        )
    found: dict[Path, Record] = {}
    while waiting:
        record = waiting.pop()
        if record.path not in found:
            found[record.path] = record
            waiting += [makers[base / name] for name in record.inputs if base / name in makers]
    return Lineage(
        base, makers, sorted(found.values(), key=lambda record: (record.measured["started_utc"], record.path))
    )


def as_tree(path: Path) -> str:
    """What ``path`` was made from, step by step back to the data: a line a step, one a network.

    Args:
        path: a result; or one in a snapshot of a run, whose records lie in a folder above it.

    Raises:
        ArtifactError: no record names it.
    """
    base, makers, records = _snapshot(path) or lineage(path)
    roots = {
        next(name for name in record.outputs if (base / name).is_relative_to(path.absolute())): record
        for record in records
        if any((base / name).is_relative_to(path.absolute()) for name in record.outputs)
    }
    last = records[-1]
    code = _code(last)
    began = last.measured["started_utc"].replace("T", " ").removesuffix("Z")
    seed = f", seed {last.made_from['seed']}" if last.made_from["seed"] is not None else ""
    lines = [f"{path} (preset {last.made_from['preset']}{seed}, {code}, {began})"]
    shown: set[Path] = set()

    def show(name: str, record: Record, stem: str, end: bool) -> None:
        line = f"{stem}{'└─ ' if end else '├─ '}{record.step}: {name}"
        if record.path in shown:
            lines.append(f"{line}, as above")
            return
        shown.add(record.path)
        other = f", {_code(record)}" if _code(record) != code else ""
        lines.append(f"{line} ({record.measured['seconds']:.1f} s{other})")
        below = stem + ("   " if end else "│  ")
        leaves = [f"{i}, of which no record is there" for i in record.inputs if base / i not in makers]
        leaves += [
            f"{network}: {place}" + (f", sha256 {sha256[:8]}" if sha256 else "")
            for network, files in record.made_from.get("weights", {}).items()
            for place, sha256 in files.items()
        ]
        parents = {makers[base / i].path: (i, makers[base / i]) for i in record.inputs if base / i in makers}
        for number, leaf in enumerate(leaves, start=1):
            lines.append(f"{below}{'└─ ' if number == len(leaves) and not parents else '├─ '}{leaf}")
        for number, (read, parent) in enumerate(parents.values(), start=1):
            show(read, parent, below, number == len(parents))

    for number, (name, root) in enumerate(roots.items(), start=1):
        show(name, root, "", number == len(roots))
    return "\n".join(lines)


def _code(record: Record) -> str:
    commit, dirty = record.made_from["git_commit"], record.made_from["git_dirty"]
    return f"commit {commit[:8]}{' with changes' if dirty else ''}" if commit else "no commit"
