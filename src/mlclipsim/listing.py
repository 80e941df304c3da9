"""What can be named: encoders and the metrics of others, with what each needs, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

from mlclipsim.usage import UsageError

__all__ = ["as_text", "encoders", "metrics"]

_OF_SUITE = ("piq", "torchmetrics")  # libraries that come with it; the others have licences of their own


def as_text(rows: Iterable[Sequence[str]]) -> str:
    """One line a row, in columns as wide as they need to be."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def encoders(*, everything: bool = False) -> str:
    """The encoders by the names that ``mlclipsim score`` takes, and whether their weights are here.

    Those of the package, of open_clip's cache, and of the catalog where there is one; with ``everything``
    also all others that open_clip can download.
    """
    import open_clip

    from mlclipsim.encoders import DEFAULT_MODEL, DEFAULT_PRETRAINED, PACKAGED, cached

    catalog = _catalog("encoders")
    in_catalog = {(entry["model"], entry.get("pretrained", "")): name for name, entry in catalog.items()}
    states: dict[tuple[str, str], str] = {}
    for path in (PACKAGED / "models").glob("*.json"):
        shipped = (PACKAGED / "weights" / f"{path.stem}.safetensors").is_file()
        states[path.stem, ""] = "in the package" if shipped else "needs a checkpoint: --pretrained FILE"
    left_out = 0
    for model, tag in open_clip.list_pretrained():
        known, config = open_clip.get_pretrained_cfg(model, tag), open_clip.get_model_config(model) or {}
        if bool(known.get("quick_gelu")) != bool(config.get("quick_gelu")):
            continue  # the weights are of the other activation, and load_encoder refuses them
        here = cached(known) is not None
        default = (model, tag) == (DEFAULT_MODEL, DEFAULT_PRETRAINED)
        if everything or here or default or (model, tag) in in_catalog:
            state = "in open_clip's cache" if here else "needs download"
            states[model, tag] = state + " (the default)" * default
        else:
            left_out += 1

    rows = [("encoder", "pretrained", "weights", "in the catalog")]
    for names, state in sorted(states.items(), key=lambda item: (item[1].split()[0] != "in", item[0])):
        rows.append((*names, state, in_catalog.get(names, "")))
    if not catalog:
        rows = [(*row[:3], "") for row in rows]
    notes = [
        "",
        "Use one: mlclipsim score --encoder ENCODER --pretrained TAG ...",
        "Download one of the catalog: mlclipsim fetch NAME; any other: "
        "python -c \"import mlclipsim; mlclipsim.load_encoder('ENCODER', 'TAG', download=True)\"",
    ]
    if left_out:
        notes.append(f"{left_out} more can be downloaded: mlclipsim encoders --all")
    return "\n".join([as_text(rows), *notes])


def metrics() -> str:
    """The metrics of others in the project's catalog, and whether they can run here.

    Raises:
        ConfigError: this is not the project's folder, which the catalog lies in.
    """
    from mlclipsim import spec

    catalog = spec.read_yaml(spec.project_root() / "config" / "catalog" / "metrics.yaml")
    rows = [("metric", "library", "variant", "better", "class", "state")]
    for name, entry in catalog.items():
        library, needs = entry["library"], entry["needs"]
        state = "ready" if needs == "nothing" else f"needs {needs}"
        if find_spec(library) is None:
            package = "'mlclipsim[suite]'" if library in _OF_SUITE else library
            state = f"needs {library}: pip install {package}"
        better = "higher" if entry["higher_is_better"] else "lower"
        rows.append((name, library, entry["variant"], better, entry["class"], state))
    return as_text(rows)


def _catalog(name: str) -> dict[str, Any]:
    """A catalog of the project, empty where the package alone is installed."""
    try:
        from mlclipsim import spec

        return spec.read_yaml(spec.project_root() / "config" / "catalog" / f"{name}.yaml")
    except (ModuleNotFoundError, UsageError):
        return {}
