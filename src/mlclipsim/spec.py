"""What a run is made of: the config's layers and their check; each step's slice of it, and its paths.

Layers: ``config/config.yaml`` < ``config/presets/<preset>.yaml`` < ``--configfile`` < ``--config``. Dicts
merge, lists are replaced. Everything wrong with a config is reported at once, before any job starts.

A step gets only its *slice* of the config, with names resolved to their catalog entries. What runs share lies
under ``results/<preset>/shared/<step>-<digest>/``; the digest covers the slice and the steps before it:
changing a key changes the paths of what depends on it, and of nothing else.

Standard library, yaml and jsonschema only: the workflow imports this at every start.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from mlclipsim import lifeline, plugins
from mlclipsim.places import locate
from mlclipsim.usage import UsageError

__all__ = [
    "CATALOGS",
    "ConfigError",
    "Plan",
    "canonical",
    "export_environment",
    "load",
    "merge",
    "parse_yaml",
    "project_root",
    "read_yaml",
]

CATALOGS = ("codecs", "datasets", "encoders", "machines", "metrics", "styles")
# How fast a step runs, not what it studies: not in digests (changing one reruns a step in place).
EXECUTION = frozenset({"threads", "batch_size", "cache"})
# Keys of catalog entries that no step reads: completing a reference, or another address, makes nothing again.
DOCUMENTING = frozenset({"citation", "holds", "url", "mirrors", "bytes", "remote"})
# Steps that spread over processes: `workers` of them, one thread each.
IN_PROCESSES = frozenset({"pcmp_images", "baselines", "rate_task"})
# The steps whose results runs share, and those that each reads.
PARENTS: dict[str, tuple[str, ...]] = {
    "references": (),
    "lit_encoder": ("references",),
    "pcmp_images": ("references",),
    "pcmp_pairs": ("pcmp_images",),
    "predictions": ("pcmp_images",),
    "votes": ("pcmp_pairs", "predictions"),
    "baselines": ("pcmp_images",),
    "similarities": ("pcmp_images",),
    "channel_similarities": ("pcmp_images",),
    "human_images": (),
    "human_baselines": ("human_images",),
    "human_predictions": ("human_images", "predictions"),
    "human_similarities": ("human_images",),
}
# The key of the config under which data sets are selected, by who judged their images.
_SELECTED = {"people": "human", "machines": "machine_iqa"}
# Steps that draw nothing at random: runs of other seeds share them too.
SEEDLESS = frozenset({"human_images", "human_baselines", "human_predictions", "human_similarities"})
# What each of the steps that train or show codecs reads of `compression`.
_COMMON = ("fold", "mosaic", "train", "validation", "steps", "batch", "quantile_rate", "validations")
_TRAINING = {
    "codec_trial": (*_COMMON, "balance_images", "trial_point", "rhos", "learning_rate", "learning_rates"),
    "codec_choice": ("mosaic", "trial_images", "trial_point"),
    "codec_arm": (*_COMMON, "balance_images"),
    "codec_check": (*_COMMON, "balance_images"),
    "rate_task": ("fold",),
    "reconstructions": ("fold",),
}


class ConfigError(UsageError):
    """The config cannot be run; the message lists every problem."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        noun = "problem" if len(self.problems) == 1 else "problems"
        super().__init__(
            "\n".join([f"{len(self.problems)} {noun} in the configuration:", *_bullets(self.problems)])
        )


def _bullets(lines: Iterable[str]) -> list[str]:
    return [f"  - {line}" for line in lines]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text, however their YAML is ordered."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def project_root() -> Path:
    """The folder that holds ``config/config.yaml``: this one, one above it, or the package's source tree.

    Raises:
        ConfigError: none of them does.
    """
    for folder in (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[2]):
        if (folder / "config" / "config.yaml").is_file():
            return folder
    raise ConfigError(
        [f"config/config.yaml is neither in {Path.cwd()} nor above it; change to the project's folder"]
    )


def export_environment(plan: Plan) -> None:
    """Tell the jobs that this process starts whose they are, where the assets are, and to use this very
    interpreter.
    """
    os.environ[lifeline.RUN] = str(os.getpid())
    os.environ["MLCLIPSIM_ASSETS"] = str(plan.assets_dir)
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    os.environ.setdefault("TQDM_MININTERVAL", "10")  # jobs' progress goes into logs: a line now and then
    # glibc hands each large tensor back to the system, whose pages then come back one fault at a time: a
    # third of a small network's forward pass. So it keeps those up to 32 MiB; with larger ones its heap would
    # fragment and grow.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
    # In pages of 2 MiB, where the kernel leaves that to programs, addresses are looked up sooner: small
    # convolutions forward and backward take two thirds of their time, a pass of a small network four fifths.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


def load(
    overrides: Mapping[str, Any] | None = None, root: Path | None = None, *, planning: bool = False
) -> Plan:
    """Merge the layers, check the result and return it as a :class:`Plan`.

    Args:
        overrides: what ``--configfile`` and ``--config`` gave, merged already.
        root: the project's folder.
        planning: files that are not there are only listed in ``plan.missing``.

    Raises:
        ConfigError: all problems: unknown keys and names, bad values, missing files, shared families.
    """
    root = root or project_root()
    overrides = copy.deepcopy(dict(overrides or {}))
    base = read_yaml(root / "config" / "config.yaml")
    overrides = {key: _typed(value, base.get(key)) for key, value in overrides.items()}
    problems: list[str] = []

    name = overrides.get("preset", base["preset"])
    presets = {path.stem: path for path in sorted((root / "config" / "presets").glob("*.yaml"))}
    if isinstance(name, str) and name in presets:
        preset = merge(base, {**read_yaml(presets[name]), "preset": name})
    else:
        problems.append(f"preset {_unknown(name, presets)}")
        overrides.pop("preset")
        preset = base
    config = merge(preset, overrides)

    schemas = {
        path.name.split(".")[0]: json.loads(path.read_text())
        for path in (root / "workflow" / "schemas").glob("*")
    }
    families = schemas["config"]["properties"]["pcmp"]["properties"]["families"]["items"]["enum"]
    catalogs, wrong = _catalogs(root, schemas, families, config)
    families += catalogs["distortions"]
    problems += _schema_problems(config, schemas["config"]) + wrong
    if wrong:
        raise ConfigError(problems)

    plan = Plan(root=root, config=config, catalogs=catalogs, preset_encoder=preset["encoder"])
    try:
        problems += _codec_problems(plan)
        problems += _name_problems(plan)
        problems += _family_problems(plan)
        problems += _vote_problems(plan)
        problems += _judge_problems(plan)
        problems += _training_problems(plan)
        plan.missing.extend(_missing_files(plan))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        if not problems:
            raise
        # They trip over values of the wrong type, which are told already.
        raise ConfigError(problems) from None
    if problems or not planning:
        problems += plan.missing if config["require_files"] else []
    if problems:
        raise ConfigError(problems)
    return plan


@dataclass(frozen=True)
class Plan:
    """A checked config and everything that follows from it: slices, digests, paths."""

    root: Path
    config: dict[str, Any]
    catalogs: dict[str, dict[str, Any]]
    preset_encoder: str  # the preset's own
    missing: list[str] = field(default_factory=list)  # files that are not there, a sentence each

    @property
    def preset(self) -> str:
        return self.config["preset"]

    @property
    def run(self) -> str:
        """Folder of this run: as given, else ``default`` for the preset's own encoder, else the encoder."""
        return self.config["run"] or ("default" if self.encoder == self.preset_encoder else self.encoder)

    @property
    def encoder(self) -> str:
        return self.config["encoder"]

    @property
    def encoders(self) -> list[str]:
        """The towers that figure_3 and table_5 compare, the main one first."""
        return list(dict.fromkeys([self.encoder, *self.config["encoders"]]))

    @property
    def untrained(self) -> str:
        """The control of the main encoder: the same shape, nothing learned."""
        control = _is_untrained(self.catalogs["encoders"][self.encoder])
        return self.encoder if control else f"{self.encoder}-untrained"

    @property
    def voters(self) -> list[str]:
        """Every machine that votes in some fold, each once."""
        return list(
            dict.fromkeys(name for fold in self.config["folds"] for group in fold.values() for name in group)
        )

    @property
    def judges(self) -> dict[str, list[str]]:
        """Machines that judge codecs: ``test`` reports, ``validation`` chooses settings."""
        return self.config["compression"]["judges"]

    @property
    def marked_judges(self) -> dict[str, str]:
        """Test judges of the encoder's own family, and that family: no claim can rest on them."""
        family = self.catalogs["encoders"][self.encoder]["family"]
        machines = self.catalogs["machines"]
        return {name: family for name in self.judges["test"] if machines[name]["family"] == family}

    @property
    def feature_networks(self) -> list[str]:
        """The network of `deep_features`, if one is chosen."""
        chosen = self.config["feature_network"]
        return [chosen] if chosen else []

    @property
    def all_judged(self) -> list[str]:
        """The selected data sets whose images people or machines judged."""
        return [name for key in _SELECTED.values() for name in self.config[key]["datasets"]]

    @property
    def used(self) -> list[tuple[str, str]]:
        """Catalog and name of what this run reads: towers, machines, metrics, its codec, images."""
        config, compression = self.config, self.config["compression"]
        images = [images["source"] for images in config["rate_task"]["images"]]
        named = {
            "encoders": self.encoders,
            "machines": [
                *self.voters,
                *self.feature_networks,
                *self.judges["test"],
                *self.judges["validation"],
                compression["teacher"],
            ],
            "metrics": config["metrics"],
            "codecs": [compression["codec"]],
            "datasets": [config["references"]["source"], *self.all_judged, *images],
        }
        return [(catalog, name) for catalog, names in named.items() for name in dict.fromkeys(names)]

    @property
    def outside(self) -> dict[str, str]:
        """Name -> catalog of all entries whose files do not ship in the package."""
        return {
            name: catalog
            for catalog, entries in self.catalogs.items()
            for name, entry in entries.items()
            if _is_outside(entry)
        }

    @property
    def assets_dir(self) -> Path:
        return Path(self.config["assets_dir"] or os.environ.get("MLCLIPSIM_ASSETS") or "assets")

    def require_files(self) -> None:
        """Raise ConfigError if a file is not there that the config requires."""
        if self.missing and self.config["require_files"] and not self.config["retrain_zoo"]:
            raise ConfigError(self.missing)

    def entry(self, catalog: str, name: str) -> dict[str, Any]:
        """A catalog entry as steps read it: with the checksum of weights that ship in the package (its
        manifest has them), and without what only documents it.
        """
        entry = _studied(self.catalogs[catalog][name])
        if "points" in entry:  # a codec's, each with weights of its own
            entry["points"] = {key: self._verified(_studied(point)) for key, point in entry["points"].items()}
        return self._verified(entry)

    def _verified(self, entry: dict[str, Any]) -> dict[str, Any]:
        place = entry.get("weights") or entry.get("checkpoint") or ""
        if place.startswith("package:") and not entry.get("sha256"):
            return entry | {"sha256": self._shipped.get(Path(place).stem, {}).get("sha256")}
        return entry

    def metric(self, name: str) -> dict[str, Any]:
        """A metric's catalog entry; a ``network`` that it takes is the config's and names the variant."""
        entry, chosen = self.entry("metrics", name), self.config["feature_network"]
        arguments = entry.get("arguments") or {}
        if "network" in arguments and chosen:
            network = {"name": chosen, "entry": self.entry("machines", chosen)}
            entry |= {"arguments": arguments | {"network": network}, "variant": chosen}
        return entry

    @cached_property
    def _shipped(self) -> dict[str, Any]:
        manifests = (
            locate("package:world/weights/manifest.json"),
            locate("package:compression/weights/base.json"),
        )
        known: dict[str, Any] = {}
        for path in manifests:
            known |= json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return known

    @property
    def trained_arms(self) -> list[str]:
        """The arms that can be trained: `deep_features` needs a network."""
        return [
            arm
            for arm in self.config["compression"]["arms"]
            if arm != "deep_features" or self.feature_networks
        ]

    @property
    def trains_codecs(self) -> bool:
        """Whether this run fine-tunes codecs, or takes those that ship."""
        return self.config["retrain_codecs"] or not self.config["compression"]["weights"]

    @property
    def codec_manifest(self) -> str:
        """Path of the manifest of the fine-tuned codecs, which lie beside it."""
        if self.trains_codecs:
            return self.own("compression", "codecs", "manifest.json")
        return str(locate(self.config["compression"]["weights"]) / "manifest.json")

    def slice(
        self, step: str, encoder: str | None = None, dataset: str | None = None, **item: str | int
    ) -> dict[str, Any]:
        """What ``step`` reads of the config, names resolved to catalog entries.

        Args:
            encoder: of ``lit_encoder``, ``fit``, ``clip_scores`` and the steps that compare images by an
                encoder; None: the main one.
            dataset: of the steps in :data:`SEEDLESS`, one each per data set that people judged.
            item: what else tells the files of one step apart, passed on to it: ``arm``, ``point``, ...
        """
        config = self.config
        compression = config["compression"]
        named = {
            "codec": ("codecs", compression["codec"]),
            "teacher": ("machines", compression["teacher"]),
            "feature_network": ("machines", config["feature_network"]),
        }
        encoder = encoder or self.encoder
        judges = "machines" if step == "machine_iqa" else "people"
        selected = _SELECTED[judges]
        drawn = config["pcmp"]["families"]
        outside = {name: entry for name, entry in self.catalogs["distortions"].items() if name in drawn}
        resolved = {
            "pcmp": config["pcmp"] | ({"plugins": outside} if outside else {}),
            "references": config["references"]
            | {"dataset": self.entry("datasets", config["references"]["source"])},
            "encoder": {"name": encoder, "entry": self.entry("encoders", encoder)},
            "voters": {name: self.entry("machines", name) for name in self.voters},
            "metrics": {name: self.metric(name) for name in config["metrics"]},
            "roles": [dataset] if dataset else config["benchmark"]["roles"],
            "towers": list(dict.fromkeys([*self.encoders, self.untrained])),
            "dataset": {"name": dataset, "entry": self.entry("datasets", dataset)} if dataset else None,
            "known": {
                name: f"{self.catalogs['datasets'][name]['needs']}, and a place in {selected}.datasets"
                for name in self.judged_by(judges)
            },
            **{
                key: {"name": name, "entry": self.entry(catalog, name)} if name else None
                for key, (catalog, name) in named.items()
            },
            "compression": {key: compression[key] for key in _TRAINING[step]} if step in _TRAINING else None,
            "choosing": {name: self.entry("machines", name) for name in self.judges["validation"]},
            "arms": compression["arms"],
            "codecs": {name: self.entry("codecs", name) for name in config["rate_task"]["codecs"]},
            "judges": {name: self.entry("machines", name) for name in self.judges["test"]},
            "judged_tasks": {name: self.entry("machines", name)["task"] for name in self.judges["test"]},
            "marked_judges": self.marked_judges,
            "rate_task": config["rate_task"]
            | {
                "images": [
                    images
                    | {
                        "entry": self.entry("datasets", images["source"]),
                        "references": images["source"] == config["references"]["source"],
                    }
                    for images in config["rate_task"]["images"]
                ]
            },
            "datasets": config[selected]["datasets"],
            "image_size": config["references"]["size"],
            "run": self.run,
            "cache": f"results/{self.preset}/shared/scored",
            "style": self.entry("styles", config["style"]),
            # what a run is compared with is no setting of its own, nor is in how many jobs it is made
            "config": {key: value for key, value in config.items() if key not in ("compare", "shards")},
            "threads": config["workers"] if step in IN_PROCESSES else config["threads"],
        }
        document = ("preset", "run")
        figure = (*document, "style")
        # not said where it is the usual one: steps take that for granted
        passes = ("batch_size",) if config["precision"] == "float32" else ("batch_size", "precision")
        trained = ("codec", "compression", "encoder", "teacher", "feature_network")
        keys: dict[str, tuple[str, ...]] = {
            "references": ("references",),
            "lit_encoder": ("lit", "encoder", "references"),
            "pcmp_images": ("pcmp",),
            "pcmp_pairs": ("pcmp",),
            "temperatures": ("voters", *passes),
            "predictions": ("voters", *passes),
            "votes": ("votes", "folds"),
            "similarities": ("encoder", *passes),
            "channel_similarities": ("encoder", *passes),
            "fit": ("fit", "encoder"),
            "baselines": ("metrics", "roles", "batch_size", "cache"),
            "clip_scores": ("encoder",),
            "preference": ("benchmark", "folds", "metrics", "encoder"),
            "severity": ("benchmark",),
            "cost": ("cost", "image_size", "metrics", "encoder"),
            "calibration": ("benchmark", "folds"),
            "layer_ablation": ("benchmark", "folds"),
            "ablation": ("ablation", "benchmark", "folds", "votes", "towers"),
            "data_size": ("ablation", "benchmark", "folds"),
            "table_8": (*document, "benchmark", "folds", "votes"),
            "human_images": ("dataset",),
            "human_baselines": ("metrics", "roles", "batch_size", "cache"),
            "human_predictions": ("voters", *passes),
            "human_similarities": ("encoder", *passes),
            "human_iqa": ("datasets", "benchmark", "metrics", "votes", "known"),
            "machine_iqa": ("datasets", "benchmark", "metrics", "votes", "known"),
            "figure_7": (*figure, "human", "votes"),
            "disagreements": ("page", "benchmark", "folds", "encoder"),
            "record": ("config",),
            "compare": ("preset", "compare"),
            "codec_trial": trained,
            "codec_choice": ("codec", "compression", "references", "choosing", "batch_size"),
            "codec_arm": trained,
            "codec_manifest": ("preset",),
            "codec_check": trained,
            "rate_task": (*trained, "arms", "rate_task", "codecs", "judges", "batch_size"),
            "rate_task_curves": ("rate_task",),
            "reconstructions": ("codec", "compression", "encoder", "rate_task", "codecs"),
            "table_6": (*document, "codec", "marked_judges"),
            "claims": (*document, "judged_tasks", "marked_judges"),
        }
        common = ("threads",) if step in SEEDLESS else ("seed", "threads")
        others = figure if step.startswith("figure_") else document
        read = {key: resolved.get(key, config.get(key)) for key in (*common, *keys.get(step, others))}
        return read | item

    def text(
        self, step: str, encoder: str | None = None, dataset: str | None = None, **item: str | int
    ) -> str:
        """The slice as canonical JSON, for ``mlclipsim step --spec``."""
        return canonical(self.slice(step, encoder, dataset, **item))

    def digest(self, step: str, encoder: str | None = None, dataset: str | None = None) -> str:
        """Eight hexadecimal digits over the step's slice and those of all steps before it."""
        read = self.slice(step, encoder, dataset)
        studied = {key: value for key, value in read.items() if key not in EXECUTION}
        parents = [
            self.digest(parent, dataset=dataset if parent == "human_images" else None)
            for parent in self._parents(step, encoder)
        ]
        return hashlib.sha256(canonical([step, studied, parents]).encode()).hexdigest()[:8]

    def _parents(self, step: str, encoder: str | None) -> tuple[str, ...]:
        source = self.entry("encoders", encoder or self.encoder)["source"]
        made = step.endswith("similarities") and source == "lit"
        return (*PARENTS[step], "lit_encoder") if made else PARENTS[step]

    def shared(self, step: str, name: str, encoder: str | None = None, dataset: str | None = None) -> str:
        """Path of a file that runs share; ``encoder`` and ``dataset`` are in it."""
        what = f"{step}-{encoder}" if encoder else step
        place = f"{dataset}/{name}" if dataset else name
        return f"results/{self.preset}/shared/{what}-{self.digest(step, encoder, dataset)}/{place}"

    def judged_by(self, judges: str) -> list[str]:
        """The data sets of the catalog whose images people or machines rated or compared."""
        return [
            name
            for name, entry in self.catalogs["datasets"].items()
            if entry.get("opinions") and entry.get("judges", "people") == judges
        ]

    def judged(self, judges: str, step: str, name: str, encoder: str | None = None) -> list[str]:
        """Paths of a file that each selected data set has, in their order; by ``people`` or ``machines``."""
        datasets = self.config[_SELECTED[judges]]["datasets"]
        return [self.shared(step, name, encoder, dataset=dataset) for dataset in datasets]

    def own(self, *parts: str) -> str:
        """Path of a file of this run."""
        return "/".join(["results", self.preset, self.run, *parts])

    def compared(self, *parts: str) -> list[str]:
        """Paths of a file of each run that ``compare`` names.

        Raises:
            ConfigError: it names fewer than two; or a run without that file, which this config, being another
                run's, does not know how to make.
        """
        runs = self.config["compare"]
        if len(runs) < 2:
            raise ConfigError(
                [
                    f"`compare` names {len(runs)} runs, expected at least two of this preset's: "
                    "--config 'compare=[default,scene-clip-resnet]'"
                ]
            )
        paths = {run: "/".join(["results", self.preset, run, *parts]) for run in runs}
        problems = [
            f"`compare`: run {run!r} has no {path}; make its report first, with the settings of that run"
            for run, path in paths.items()
            if run != self.run and not Path(path).is_file()
        ]
        if problems:
            raise ConfigError(problems)
        return list(paths.values())


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        ConfigError: it is missing, or something else.
    """
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path} cannot be read ({error.strerror}); name a YAML file"]) from None
    except ValueError as error:
        raise ConfigError([f"{path} cannot be read as YAML in UTF-8 ({error}); mend it there"]) from None
    if value is not None and not isinstance(value, dict):
        raise ConfigError([f"{path} holds a {type(value).__name__}, expected keys and values"])
    return value or {}


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, which can hold data only.

    Raises:
        ValueError: it is none, or holds a key twice: which of the two is meant?
    """
    depth = 0
    try:
        for event in yaml.parse(text, _InC):  # which recurses without looking at the stack
            opens, closes = yaml.CollectionStartEvent, yaml.CollectionEndEvent
            depth += isinstance(event, opens) - isinstance(event, closes)
            if depth > _DEEPEST:
                raise ValueError(f"nested more than {_DEEPEST} deep")
        return yaml.load(text, _Loader)
    except Exception as error:  # values of `!!bool x` and the like fail in as many ways as there are
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


_DEEPEST = 50
_InC: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in a tenth of the time


class _Loader(_InC):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands there twice", key.start_mark
                    )
                seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``: dicts key by key, everything else as a whole."""
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else copy.deepcopy(value)
    return merged


def _catalog(root: Path, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A catalog with what the config says over it, if that is of the right kind."""
    entries = read_yaml(root / "config" / "catalog" / f"{name}.yaml")
    above = config["catalog"].get(name) if isinstance(config["catalog"], Mapping) else None
    return merge(entries, above) if isinstance(above, Mapping) else entries


def _is_outside(entry: Mapping[str, Any]) -> bool:
    points = entry.get("points", {}).values()
    places = [
        entry.get("path"),
        entry.get("weights"),
        entry.get("checkpoint"),
        *(p.get("weights") for p in points),
    ]
    named = any(place and not place.startswith("package:") for place in places)
    return named or bool(entry.get("pretrained") or entry.get("files"))


def _studied(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in DOCUMENTING}


def _typed(value: Any, default: Any) -> Any:
    """What ``--config key=true`` or ``key=[a,b]`` means: Snakemake hands these over as text."""
    if not isinstance(value, str) or isinstance(default, str) or (default is None and value != "null"):
        return value
    try:
        return parse_yaml(value)
    except ValueError:
        return value


def _unknown(name: Any, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"{name!r} is unknown; " + (
        f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    )


def _is_number(_: Any, value: Any) -> bool:
    """YAML also knows infinity and NaN, which no comparison with a bound would refuse."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # of an integer beyond all floats
        return False


def _is_integer(_: Any, value: Any) -> bool:
    """2.0 is one for JSON, and so is 1e308."""
    return isinstance(value, int) and _is_number(_, value)


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterable[jsonschema.ValidationError]:
    """As the standard means it: for Python, ``$`` also stands before a newline at the end."""
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _pattern},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"number": _is_number, "integer": _is_integer}
    ),
)


def _schema_problems(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """One sentence per violation, in the document's order."""
    problems = []
    for error in _Validator(schema).iter_errors(value):
        place = ".".join(str(part) for part in error.absolute_path)
        within = f" in `{place}`" if place else ""
        if error.validator == "additionalProperties":
            known = error.schema.get("properties", {})
            problems += [f"key{within} {_unknown(key, known)}" for key in error.instance if key not in known]
        elif error.validator == "enum":
            problems.append(f"`{place}` {_unknown(error.instance, [str(v) for v in error.validator_value])}")
        elif error.validator == "type":
            expected = error.validator_value
            expected = " or ".join(expected) if isinstance(expected, list) else expected
            problems.append(f"`{place or 'config'}` is {_short(error.instance)}, expected {expected}")
        elif error.validator in ("pattern", "maxLength", "not") and "description" in error.schema:
            described = error.schema["description"]
            problems.append(f"`{place or 'config'}` is {_short(error.instance)}, expected {described}")
        else:
            problems.append(f"`{place or 'config'}`: {error.message}")
    return problems


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _catalogs(
    root: Path, schemas: Mapping[str, Any], families: Iterable[str], config: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The catalogs, with what the config and plug-ins add to them, and what is wrong there.

    ``distortions`` holds only those of plug-ins; those of the package, ``families``, are in no catalog.
    """
    catalogs: dict[str, dict[str, Any]] = {"distortions": {}}
    problems: list[str] = []
    origin = {("distortions", name): "the package" for name in families}

    def add(catalog: str, entries: Any, where: str) -> None:
        found = _schema_problems(entries, schemas[catalog])
        problems.extend(f"{where}: {text}" for text in found)
        held = catalogs.setdefault(catalog, {})
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if first := origin.get((catalog, name)):
                problems.append(f"{where}: {name!r} is the name of one in {first}; take another")
                continue
            origin[catalog, name] = where
            try:
                held[name] = entry if found else plugins.stamp(catalog, entry)
            except UsageError as error:
                problems.append(f"{where}: {name!r}: {error}")

    for catalog in CATALOGS:
        add(catalog, _catalog(root, catalog, config), f"catalog/{catalog}.yaml")
    modules = config["plugins"]
    for module in modules if isinstance(modules, list) else ():
        try:
            path = plugins.catalog(str(module))
            sections = read_yaml(path)
        except ConfigError as error:
            problems += error.problems
            continue
        except UsageError as error:
            problems.append(f"`plugins`: {error}")
            continue
        for kind, entries in sections.items():
            if kind in plugins.KINDS:
                add(kind, entries or {}, f"{path}: {kind}")
            else:
                problems.append(f"{path}: kind {_unknown(kind, plugins.KINDS)}")
    catalogs["encoders"] |= _controls(catalogs["encoders"])
    return catalogs, problems


def _codec_problems(plan: Plan) -> list[str]:
    """Codecs of one id: a stream would not say which of them wrote it."""
    codecs = plan.catalogs["codecs"].items()
    ids = {name: entry["id"] for name, entry in codecs if isinstance(entry, dict) and "id" in entry}
    first: dict[int, str] = {}
    return [
        f"catalog/codecs.yaml: {name!r} has the id {number} of {first[number]!r}; take a free one"
        for name, number in ids.items()
        if first.setdefault(number, name) != name
    ]


def _name_problems(plan: Plan) -> list[str]:
    """Names that their catalog lacks."""
    config = plan.config
    uses: list[tuple[str, str, list[str]]] = [
        ("references.source", "datasets", [config["references"]["source"]]),
        ("encoder", "encoders", [plan.encoder]),
        ("encoders", "encoders", config["encoders"]),
        ("folds", "machines", plan.voters),
        ("metrics", "metrics", config["metrics"]),
        ("feature_network", "machines", plan.feature_networks),
        *((f"{key}.datasets", "datasets", config[key]["datasets"]) for key in _SELECTED.values()),
        ("compression.codec", "codecs", [config["compression"]["codec"]]),
        ("compression.teacher", "machines", [config["compression"]["teacher"]]),
        *(
            (f"compression.judges.{group}", "machines", config["compression"]["judges"][group])
            for group in ("test", "validation")
        ),
        ("rate_task.codecs", "codecs", config["rate_task"]["codecs"]),
        ("rate_task.images", "datasets", [images["source"] for images in config["rate_task"]["images"]]),
        ("style", "styles", [config["style"]]),
    ]
    problems = [
        f"`{key}`: {_unknown(name, plan.catalogs[catalog])} (config/catalog/{catalog}.yaml)"
        for key, catalog, names in uses
        for name in names
        if name not in plan.catalogs[catalog]
    ]
    for judges, key in _SELECTED.items():
        problems += [
            f"`{key}.datasets`: {name!r} holds no opinions of {judges}; take some of "
            f"{', '.join(plan.judged_by(judges))}"
            for name in config[key]["datasets"]
            if name in plan.catalogs["datasets"] and name not in plan.judged_by(judges)
        ]
    return problems


def _family_problems(plan: Plan) -> list[str]:
    """Encoders, training voters and held-out voters of one fold must not share an architecture family, and
    the feature network must be of no voter's.
    """
    machines, towers = plan.catalogs["machines"], plan.catalogs["encoders"]
    problems = []
    for number, fold in enumerate(plan.config["folds"]):
        groups = {
            "encoder": {name: towers[name]["family"] for name in plan.encoders if name in towers},
            "seen": {name: machines[name]["family"] for name in fold["seen"] if name in machines},
            "held_out": {name: machines[name]["family"] for name in fold["held_out"] if name in machines},
            "feature_network": {
                name: machines[name]["family"] for name in plan.feature_networks if name in machines
            },
        }
        for first, second in (
            ("encoder", "seen"),
            ("encoder", "held_out"),
            ("seen", "held_out"),
            ("feature_network", "seen"),
            ("feature_network", "held_out"),
        ):
            for family in sorted(set(groups[first].values()) & set(groups[second].values())):
                sharing = [
                    name for group in (first, second) for name, f in groups[group].items() if f == family
                ]
                problems.append(
                    f"`folds[{number}]`: family {family!r} is both in {first} and in {second} "
                    f"({', '.join(dict.fromkeys(sharing))}); let it stand on one side only"
                )
    return problems


def _vote_problems(plan: Plan) -> list[str]:
    """Numbers of votes, or of families that voted, that no pair can reach."""
    machines, votes = plan.catalogs["machines"], plan.config["votes"]
    problems = []
    for number, fold in enumerate(plan.config["folds"]):
        families = {machines[name]["family"] for name in fold["seen"] if name in machines}
        for key, most in (("min_votes", len(fold["seen"])), ("min_families", len(families))):
            if votes[key] > most:
                problems.append(
                    f"`votes.{key}` is {votes[key]}, but of fold {number} only {most} train the metric, so "
                    "that every pair would be dropped; lower it or let more vote"
                )
    return problems


def _training_problems(plan: Plan) -> list[str]:
    """Trainings of codecs that cannot start."""
    compression = plan.config["compression"]
    known = plan.catalogs["codecs"].get(compression["codec"], {}).get("points", {})
    named = {"points": compression["points"], "trial_point": [compression["trial_point"]]}
    problems = [
        f"`compression.{key}`: {_unknown(point, known)} (points of {compression['codec']!r})"
        for key, points in named.items()
        for point in points
        if point not in known
    ]
    if len(compression["rhos"]) != len(compression["learning_rates"]):
        problems.append(
            f"`compression`: {len(compression['rhos'])} rhos and {len(compression['learning_rates'])} "
            "learning_rates, expected as many, so that every arm has as many trials"
        )
    fold = compression["fold"]
    if fold >= len(plan.config["folds"]):
        problems.append(
            f"`compression.fold` is {fold}, expected one of {len(plan.config['folds'])} folds, from 0"
        )
    references = plan.config["references"]
    roles = references["roles"]
    rendered = plan.catalogs["datasets"].get(references["source"], {}).get("reader") == "scenes"
    for part in ("train", "validation", "trial_images"):
        count, each = sum(compression[part].values()), compression["mosaic"] ** 2
        if count % each:
            problems.append(
                f"`compression.{part}`: {count} images do not fill mosaics of {each}; change a count"
            )
        if rendered:
            continue
        problems += [
            f"`compression.{part}`: {wanted} images of {role}, `references.roles` has {roles.get(role, 0)}; "
            "change one of them"
            for role, wanted in compression[part].items()
            if wanted > roles.get(role, 0)
        ]
    return problems


def _judge_problems(plan: Plan) -> list[str]:
    """Test judges that took part in what they judge: in the votes behind the metric, in a loss, in a choice.

    A judge of the encoder's family is no problem: it is marked, and decides no claim.
    """
    machines, config = plan.catalogs["machines"], plan.config
    test, validation = (
        [name for name in plan.judges[group] if name in machines] for group in ("test", "validation")
    )
    chosen = config["folds"][config["compression"]["fold"] :][:1]  # none: a problem of its own
    seen = [name for fold in chosen for name in fold["seen"]]
    families = {machines[name]["family"]: name for name in seen if name in machines}
    problems = []
    for name in test:
        if (family := machines[name]["family"]) in families:
            reason = f"is of the family {family!r}, as the training voter {families[family]!r}"
        elif name == config["compression"]["teacher"]:
            reason = "is the teacher of the arm task_kl"
        elif name == config["feature_network"]:
            reason = "is the network of the arm deep_features"
        elif name in validation:
            reason = "chooses settings in compression.judges.validation"
        else:
            continue
        problems.append(f"`compression.judges.test`: {name!r} {reason}; let another machine judge")
    if (teacher := config["compression"]["teacher"]) in validation:
        problems.append(
            f"`compression.judges.validation`: {teacher!r} is the teacher of the arm task_kl, which it would "
            "favour; let another machine choose"
        )
    problems += [
        f"`compression.judges.{group}`: {name!r} is a classifier that votes in no fold, so it has no "
        "temperature; let it vote, or take another"
        for group, names in (("test", test), ("validation", validation))
        for name in names
        if machines[name]["task"] == "classification" and name not in plan.voters
    ]
    return problems


def _is_untrained(encoder: Mapping[str, Any]) -> bool:
    return encoder["source"] == "untrained" or (encoder["source"] == "plugin" and "seed" in encoder)


def _controls(encoders: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For every encoder the same network with random weights, as an entry of its own."""
    return {
        f"{name}-untrained": {
            "source": "plugin" if "plugin" in entry else "untrained",
            **{key: entry[key] for key in ("model", "family", "plugin") if key in entry},
            "seed": 0,
        }
        for name, entry in encoders.items()
        if isinstance(entry, dict)
        and {"source", "model", "family"} <= set(entry)
        and not _is_untrained(entry)
    }


def _missing_files(plan: Plan) -> list[str]:
    """Files of data set, voters and encoders that are not there, but for what a library downloads."""
    towers = plan.encoders
    judged = [name for key in _SELECTED.values() for name in plan.config[key]["datasets"]]
    places: dict[str, str] = {}
    for catalog, key, names in (
        (
            "datasets",
            "path",
            [
                plan.config["references"]["source"],
                *judged,
                *(images["source"] for images in plan.config["rate_task"]["images"]),
            ],
        ),
        ("datasets", "photographs", judged),
        (
            "machines",
            "weights",
            [*plan.voters, *plan.feature_networks, *plan.judges["test"], *plan.judges["validation"]],
        ),
        ("encoders", "checkpoint", towers),
    ):
        for name in names:
            entry = plan.catalogs[catalog].get(name, {})
            place = entry.get(key) or ""
            if place.startswith(("assets:", "package:")) or (key != "weights" and place):
                places.setdefault(place, f"{name!r}")
    wants_assets = any(place.startswith("assets:") for place in places)
    problems = []
    if wants_assets and not plan.assets_dir.is_dir():
        problems.append(
            f"the assets folder {str(plan.assets_dir)!r} is not there; "
            "set MLCLIPSIM_ASSETS or --config assets_dir=<folder>"
        )
    for place, user in places.items():
        if place.startswith("assets:"):
            path = plan.assets_dir / place.removeprefix("assets:")
            if problems and not plan.assets_dir.is_dir():
                continue  # said once
        else:
            path = locate(place)
        if not path.exists():
            problems.append(f"{user} needs {str(path)!r}, which is not there")
    return problems
