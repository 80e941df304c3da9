"""What is here and what is not: environment, devices, caches, and what each preset still lacks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement

from mlclipsim import fetch, pretrained, spec
from mlclipsim.listing import as_text
from mlclipsim.places import locate
from mlclipsim.provenance import git_state, package_version, processor_name

__all__ = ["Lack", "lacks", "report"]

_GIB = 2**30
_KINDS = {
    "codecs": "codec",
    "datasets": "data set",
    "encoders": "encoder",
    "machines": "machine",
    "metrics": "metric",
}


class Lack(NamedTuple):
    """A thing that a preset names and that is not here.

    Attributes:
        kind: encoder | machine | codec | data set | metric. Without a metric a preset runs all the same.
        get: the command or the address that gets it.
    """

    kind: str
    name: str
    get: str


def report(presets: list[str] | None = None) -> tuple[str, bool]:
    """The whole text, and whether every preset asked for (None: of them all, the default one) can run."""
    root = spec.project_root()
    known = sorted(path.stem for path in (root / "config" / "presets").glob("*.yaml"))
    default = str(spec.read_yaml(root / "config" / "config.yaml")["preset"])
    plans = {name: spec.load({"preset": name}, root, planning=True) for name in presets or known}
    found = {name: lacks(plan) for name, plan in plans.items()}
    wanted: dict[Lack, list[str]] = {}
    for name, missing in found.items():
        for lack in missing:
            wanted.setdefault(lack, []).append(name)
    parts = [
        ("Environment", [*_environment(root)]),
        ("Devices", [*_devices(root)]),
        ("Caches", [*_caches()]),
        ("Presets", [(name, _state(plans[name], missing)) for name, missing in found.items()]),
    ]
    text = "\n\n".join(f"{title}\n{_indented(rows)}" for title, rows in parts)
    if wanted:
        text += f"\n\nNot here, and what gets it\n{_instructions(wanted)}"
    ready = all(_can_run(found[name]) for name in presets or [default])
    return text, ready


def lacks(plan: spec.Plan) -> list[Lack]:
    """What a preset reads and is not here."""
    from mlclipsim import baselines

    missing = []
    for catalog, name in plan.used:
        if catalog == "metrics":
            there = baselines.lacks(plan.metric(name)) is None
        else:
            there = fetch.is_there(plan.catalogs[catalog][name])
        if not there:
            missing.append(Lack(_KINDS[catalog], name, _how(name, plan.catalogs[catalog][name])))
    return missing


def _how(name: str, entry: dict[str, Any]) -> str:
    return _fetch(name) if fetch.knows(entry) else "\n".join(fetch.by_hand(entry))


def _can_run(missing: list[Lack]) -> bool:
    return all(lack.kind == "metric" for lack in missing)


def _state(plan: spec.Plan, missing: list[Lack]) -> str:
    counts = Counter(lack.kind for lack in missing)
    metrics = counts.pop("metric", 0)
    words = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items()]
    state = f"lacks {', '.join(words)}" if words else "ready"
    return state + (f"; {metrics} of {len(plan.config['metrics'])} metrics would not run" if metrics else "")


def _instructions(wanted: dict[Lack, list[str]]) -> str:
    """What gets what, each command once; what is fetched is fetched together."""
    groups: dict[tuple[str, ...], list[Lack]] = {}
    for lack in sorted(wanted, key=lambda lack: lack.kind == "metric"):  # without one a preset runs
        together = (lack.kind, *wanted[lack]) if lack.get == _fetch(lack.name) else (lack.get,)
        groups.setdefault(together, []).append(lack)
    lines = []
    for group in groups.values():
        names = [lack.name for lack in group]
        presets = ", ".join(dict.fromkeys(preset for lack in group for preset in wanted[lack]))
        plural = "s" if len(group) > 1 else ""
        get = _fetch(*names) if group[0].get == _fetch(names[0]) else group[0].get
        lines += [
            f"  {group[0].kind}{plural} {', '.join(names)} ({presets})",
            *(f"      {line}" for line in get.splitlines()),
        ]
    return "\n".join(lines)


def _fetch(*names: str) -> str:
    return f"mlclipsim fetch {' '.join(names)}"


def _environment(root: Path) -> list[tuple[str, str]]:
    commit, dirty = git_state()
    state = f", commit {commit[:8]}{' with changes' if dirty else ''}" if commit else ""
    lock = root / "requirements.lock"
    return [
        ("mlclipsim", f"{package_version('mlclipsim') or 'from source'}, {Path(__file__).parent}"),
        ("project", f"{root}{state}"),
        ("python", f"{platform.python_version()}, {sys.executable}"),
        ("packages", _packages(lock) if lock.is_file() else "no requirements.lock to compare with"),
    ]


def _packages(lock: Path) -> str:
    """How far the installed packages are those of the lock, for this Python and system."""
    other, equal = [], 0
    for line in lock.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith(("#", " ")):
            continue
        wanted = Requirement(line.removesuffix("\\").strip())
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            found = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            other.append(f"{wanted.name} is not installed")
            continue
        if wanted.specifier.contains(found, prereleases=True):
            equal += 1
        else:
            other.append(f"{wanted.name} {found} instead of {str(wanted.specifier).lstrip('=')}")
    state = f"{equal} as in requirements.lock"
    return (
        f"{state}; {'; '.join(other)} (`make setup` installs them, with SLURM=1 those for clusters)"
        if other
        else state
    )


def _devices(root: Path) -> list[tuple[str, str]]:
    import torch

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gpus = [
        f"{torch.cuda.get_device_name(number)}, "
        f"{torch.cuda.get_device_properties(number).total_memory / _GIB:.0f} GiB"
        for number in range(torch.cuda.device_count())
    ]
    return [
        ("processor", f"{processor_name()}, {os.cpu_count()} cores"),
        ("memory", f"{memory / _GIB:.1f} GiB"),
        ("gpu", "; ".join(gpus) or "none that torch sees"),
        ("disk", f"{shutil.disk_usage(root).free / _GIB:.0f} GiB free for results"),
    ]


def _caches() -> list[tuple[str, str]]:
    import huggingface_hub.constants

    folders = {
        "assets": (locate("assets:"), "MLCLIPSIM_ASSETS"),
        "torch hub": (pretrained.hub_folder(), "TORCH_HOME"),
        "hugging face": (Path(huggingface_hub.constants.HF_HUB_CACHE), "HF_HOME"),
    }
    return [
        (name, f"{folder}, by {variable}: {_filling(folder)}") for name, (folder, variable) in folders.items()
    ]


def _filling(folder: Path) -> str:
    if not folder.is_dir():
        return "not there"
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return f"{len(sizes)} files of {sum(sizes) / _GIB:.2f} GiB" if sizes else "empty"


def _indented(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"  {line}" for line in as_text(rows).splitlines())
