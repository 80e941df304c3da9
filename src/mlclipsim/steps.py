"""The steps of the line: which function does each, and which files of the package it depends on.

Only the standard library: the workflow reads this at parse time, before anything heavy is imported.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = ["STEPS", "Step", "code", "function", "module_code", "options"]

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Step:
    """One step: ``call`` is ``module:function`` under :mod:`mlclipsim`.

    A step with ``shards`` can be done in parts: its function takes the share of the work that is meant, and
    the parts of each output, of the kind that ``shards`` names, are put together (:mod:`mlclipsim.gather`).
    """

    call: str
    lists: frozenset[str] = frozenset()  # inputs that are lists of files even where there is just one
    report: bool = False  # makes a table, a figure or the claims, which the rule declares with their record
    reads: str | None = None  # a folder of the package whose files it reads, besides the code that it runs
    shards: Mapping[str, str] = field(default_factory=dict)  # output -> schema, or `json`: alike in all parts


_PER_DATASET = frozenset({"ratings", "pairs", "baselines", "similarities", "untrained", "predictions"})

STEPS = {
    "references": Step("datasets.references:build"),
    "lit_encoder": Step("lit:train"),
    "pcmp_images": Step("pcmp.build:distort", shards={"images": "images", "drops": "drops"}),
    "pcmp_pairs": Step("pcmp.build:pair", shards={"pairs": "pairs", "drops": "drops"}),
    "temperatures": Step("pcmp.vote:calibrate"),
    "predictions": Step("pcmp.vote:predict", shards={"predictions": "predictions", "voters": "voters"}),
    "votes": Step("pcmp.vote:cast", shards={"votes": "votes", "labels": "labels", "drops": "drops"}),
    "similarities": Step("similarities:build", shards={"similarities": "similarities"}),
    "channel_similarities": Step(
        "similarities:build", shards={"similarities": "similarities", "products": "products"}
    ),
    "fit": Step("fit:learn"),
    "baselines": Step("baselines:score", shards={"scores": "scores"}),
    "clip_scores": Step("fit:score"),
    "preference": Step("benchmarks.machine_preference:evaluate"),
    "severity": Step("benchmarks.severity:evaluate", lists=frozenset({"scores"})),
    "cost": Step("benchmarks.cost:measure"),
    "calibration": Step("benchmarks.calibration:calibrate"),
    "layer_ablation": Step("benchmarks.ablation:layers"),
    "ablation": Step("benchmarks.ablation:choices", lists=frozenset({"similarities"})),
    "data_size": Step("benchmarks.data_size:vary"),
    "human_images": Step("datasets.human_images:build"),
    "human_baselines": Step("baselines:score", shards={"scores": "scores"}),
    "human_predictions": Step("pcmp.vote:predict", shards={"predictions": "predictions"}),
    "human_similarities": Step("similarities:build", shards={"similarities": "similarities"}),
    "human_iqa": Step("benchmarks.human_iqa:evaluate", lists=_PER_DATASET),
    "machine_iqa": Step("benchmarks.human_iqa:evaluate", lists=_PER_DATASET),
    "codec_trial": Step("compression.fine_tuning:try_setting"),
    "codec_choice": Step("compression.trials:choose", lists=frozenset({"codecs", "records"})),
    "codec_arm": Step("compression.fine_tuning:fine_tune"),
    "codec_manifest": Step("compression.manifest:collect", lists=frozenset({"codecs", "records", "choices"})),
    "codec_check": Step("compression.manifest:check"),
    "rate_task": Step(
        "compression.rate_task:code",
        shards={
            "codes": "rate_task_codes",
            "scores": "rate_task_scores",
            "truth": "rate_task_truth",
            "not_run": "json",
        },
    ),
    "rate_task_curves": Step("compression.curves:evaluate"),
    "reconstructions": Step("compression.reconstructions:show"),
    "claims": Step("report.claims:write", report=True),
    "table_1": Step("report.tables.table_1:make", lists=frozenset({"drops"}), report=True),
    "table_2": Step("report.tables.table_2:make", report=True),
    "table_3": Step("report.tables.table_3:make", report=True),
    "table_4": Step("report.tables.table_4:make", report=True),
    "table_5": Step("report.tables.table_5:make", report=True),
    "table_6": Step("report.tables.table_6:make", report=True),
    "table_7": Step("report.tables.table_7:make", report=True),
    "table_8": Step("report.tables.table_8:make", report=True),
    "table_9": Step("report.tables.table_9:make", report=True),
    "table_trials": Step("report.tables.table_trials:make", report=True),
    "figure_1": Step("report.figures.figure_1:make", report=True),
    "figure_2": Step("report.figures.figure_2:make", lists=frozenset({"scores"}), report=True),
    "figure_3": Step("report.figures.figure_3:make", lists=frozenset({"weights"}), report=True),
    "figure_4": Step("report.figures.figure_4:make", report=True),
    "figure_5": Step("report.figures.figure_5:make", report=True),
    "figure_6": Step("report.figures.figure_6:make", report=True),
    "figure_7": Step("report.figures.figure_7:make", report=True),
    "figure_8": Step("report.figures.figure_8:make", report=True),
    "disagreements": Step("benchmarks.disagreements:find", lists=frozenset({"scores"})),
    "record": Step("report.record:write"),
    "report": Step("report.page:make", lists=frozenset({"documents", "captions"}), reads="report/templates"),
    "compare": Step(
        "report.compare:make",
        lists=frozenset({"record", "claims", "table_2", "table_4", "table_5", "figure_3"}),
        reads="report/templates",
    ),
    "figure_training": Step("report.figures.figure_training:make", report=True),
}


def function(step: str) -> Callable[..., None]:
    """Import the function that does ``step``."""
    module, name = STEPS[step].call.split(":")
    return getattr(importlib.import_module(f"mlclipsim.{module}"), name)


def code(step: str) -> list[str]:
    """The package's files that ``step`` runs, relative to the working directory where it lies above them.

    Followed import by import, so that the list cannot fall behind the code: editing one of these files makes
    the step run again, editing any other does not.
    """
    folder = STEPS[step].reads
    read = sorted((PACKAGE / folder).iterdir()) if folder else []
    return module_code(STEPS[step].call.split(":")[0]) + [_relative(path) for path in read]


def options(files: Mapping[str, str | Sequence[str]], option: str = "--input") -> list[str]:
    """``--input name=path ...`` of a rule's files, of which some names may be without: those are left out.

    So are ``code`` and ``parts``, which no step reads.
    """
    words = []
    for name, paths in files.items():
        listed = [paths] if isinstance(paths, str) else list(paths)
        if listed and name not in ("code", "parts"):
            words += [option, f"{name}={listed[0]}", *listed[1:]]
    return words


def module_code(module: str) -> list[str]:
    """The same for a module of the package, e.g. ``world.zoo``."""
    return [_relative(path) for path in sorted(_closure(f"mlclipsim.{module}"))]


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _closure(module: str) -> set[Path]:
    found: set[Path] = set()
    waiting = [module]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _file(name)
        if path is None:
            continue
        found.add(path)
        waiting += _imports(path, name)
    return found


def _file(module: str) -> Path | None:
    place = PACKAGE.joinpath(*module.split(".")[1:])
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file() and path != PACKAGE / "__init__.py":
            return path
    return None


@cache
def _imports(path: Path, module: str) -> tuple[str, ...]:
    """Modules of this package that the file at ``path`` imports, wherever in it (also inside functions)."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
                base = f"{above}.{base}" if base else above
            # `from package import thing`: the thing may be a module or a name inside one
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    # importing a.b.c runs a.b's __init__ too
    ours = {name for name in names if name.split(".")[0] == "mlclipsim"} | {module}
    parents = {name.rpartition(".")[0] for name in ours if name.count(".") > 1}
    return tuple(sorted(ours | parents))
