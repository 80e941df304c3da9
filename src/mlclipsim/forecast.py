"""What a run will take, before anything runs: jobs, forward passes, hours, downloads and disk of every step.

Counts follow from the configuration, costs from ``config/costs.yaml``, which says where they were measured.
Times on a GPU are multiply-accumulates over the throughput that the configuration assumes
(``forecast.gpu_gmacs_per_second``), or that table_7 of this run measured on one, and the decoding of images.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field, replace
from math import comb
from typing import Any

from mlclipsim import fetch, pretrained, spec
from mlclipsim.listing import as_text
from mlclipsim.steps import STEPS

__all__ = ["Forecast", "StepForecast", "as_table", "duration", "forecast", "seconds_per_job"]

_NETWORKS = frozenset(
    {
        *("temperatures", "predictions", "similarities", "channel_similarities"),
        *("human_predictions", "human_similarities"),
    }
)
_HOLDS = ("references", "images", "width", "height")
_PER_JUDGED = frozenset({"human_images", "human_baselines", "human_predictions", "human_similarities"})
_BY_NAME = frozenset({"disagreements", "record", "report", "compare"})  # asked for by name, not in `all`
_TRAININGS = frozenset({"codec_trial", "codec_arm", "codec_check"})
_CODINGS = frozenset({"codec_choice", "rate_task"})
_CALIBRATION = (
    ("zoo_val", "pcmp_train"),
    2_000,
)  # the first role that there is, and at most so many references
_BACKWARD = 2  # passes that a gradient costs beside the forward one


@dataclass
class StepForecast:
    """One step. ``gpu_seconds`` is None where a GPU is of no use; ``measured`` is False where costs lack."""

    step: str
    jobs: int
    unit: str = ""
    items: int = 0
    passes: int = 0
    cpu_seconds: float = 0.0  # of one core
    gpu_seconds: float | None = None
    bytes: float = 0.0
    measured: bool = True


@dataclass
class Forecast:
    """All steps of a run, and what its catalogs fetch.

    Attributes:
        seconds: on ``cores`` cores without a GPU, if jobs fill them.
        downloads: network -> bytes of weights that its library would fetch and that are not here.
        untimed: metrics, networks and data sets of unknown costs, which the times leave out.
        gpu_gmacs_per_second: of networks on a GPU, and
        source: where that is from.
    """

    steps: list[StepForecast]
    cores: int
    gpu_gmacs_per_second: float
    source: str
    downloads: dict[str, float] = field(default_factory=dict)
    untimed: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(step.cpu_seconds for step in self.steps) / self.cores


@dataclass(frozen=True)
class _Study:
    """What the costs of a step follow from."""

    plan: spec.Plan
    costs: dict[str, Any]  # config/costs.yaml
    gpu_gmacs_per_second: float
    units: dict[str, int]  # how many there are of what steps count, but passes and scores


@dataclass(frozen=True)
class _Images:
    """A set of images that networks and metrics go through."""

    references: int
    images: int
    scored: int  # of them, by metrics
    megapixels: float  # of one


def forecast(plan: spec.Plan, cores: int) -> Forecast:
    """The forecast of everything that ``snakemake`` would make of ``plan`` from nothing."""
    costs = spec.read_yaml(plan.root / "config" / "costs.yaml")
    rate, source = _throughput(plan)
    steps = _steps(plan, costs, rate)
    return Forecast(steps, cores, rate, source, _downloads(plan, costs), _untimed(plan, costs))


def seconds_per_job(plan: spec.Plan) -> dict[str, float]:
    """Step -> seconds of one of its jobs on one core, where costs are known."""
    costs = spec.read_yaml(plan.root / "config" / "costs.yaml")
    steps = _steps(plan, costs, _throughput(plan)[0])
    return {step.step: step.cpu_seconds / step.jobs for step in steps if step.measured}


def _steps(plan: spec.Plan, costs: dict[str, Any], gpu_gmacs_per_second: float) -> list[StepForecast]:
    own = _own_images(plan, costs)
    pairs = _pairs(plan, costs)
    judged = {name: _judged_images(plan, name) for name in plan.all_judged}
    towers = list(dict.fromkeys([*plan.encoders, plan.untrained]))
    lit = [name for name in towers if plan.entry("encoders", name)["source"] == "lit"]
    units = {
        "references": own.references,
        "images": own.images,
        "pairs": pairs,
        "votes": pairs * len(plan.voters),
        "photographs": plan.config["lit"]["photographs"],
        "judged_by_people": sum(judged[name].images for name in plan.config["human"]["datasets"]),
        "judged_by_machines": sum(judged[name].images for name in plan.config["machine_iqa"]["datasets"]),
        "metrics": len(plan.config["metrics"]),
        "codecs": sum(_coders(plan).values()),
    }
    study = _Study(plan, costs, gpu_gmacs_per_second, units)
    runs: dict[str, list[str]] = {
        "fit": plan.encoders,
        "channel_similarities": [plan.encoder],
        "similarities": [tower for tower in towers if tower != plan.encoder],
        "lit_encoder": lit,
        **_codec_jobs(plan),
    }
    steps = []
    sharded = plan.config["shards"] > 1
    for step in STEPS:
        if step in _BY_NAME or (step == "temperatures" and not sharded):
            continue
        parts: list[tuple[_Images, str | None]]
        if step == "temperatures":
            parts = [(replace(own, references=_calibration(plan), images=0), None)]
        elif step in _PER_JUDGED:
            of_two = [plan.encoder, plan.untrained] if step == "human_similarities" else [None]
            parts = [(images, tower) for images in judged.values() for tower in dict.fromkeys(of_two)]
        else:
            parts = [(own, tower) for tower in runs.get(step, [None])]
        if parts:
            made = _sum([_step(study, step, images, tower) for images, tower in parts])
            steps += _in_shards(study, made) if sharded and STEPS[step].shards else [made]
    return steps


def _in_shards(study: _Study, made: StepForecast) -> list[StepForecast]:
    """The jobs that share the work of a step, and those that put together what they made."""
    shards, costs = study.plan.config["shards"], study.costs
    further = made.jobs * (shards - 1) * costs["job_seconds"]
    on_gpu = None if made.gpu_seconds is None else made.gpu_seconds + further
    seconds = made.jobs * costs["job_seconds"] + made.bytes * costs["gather_seconds_per_byte"]
    return [
        replace(
            made,
            step=f"{made.step}_part",
            jobs=made.jobs * shards,
            cpu_seconds=made.cpu_seconds + further,
            gpu_seconds=on_gpu,
        ),
        StepForecast(made.step, jobs=made.jobs, cpu_seconds=seconds),
    ]


def _calibration(plan: spec.Plan) -> int:
    """On how many references the voters' temperatures are fitted, if they have labels."""
    roles, most = _CALIBRATION
    counts = plan.config["references"]["roles"]
    return min(most, next((counts[role] for role in roles if counts.get(role)), 0))


def _throughput(plan: spec.Plan) -> tuple[float, str]:
    """GMAC/s of a GPU: as ML-CLIPSim's own cost was measured on one, else as the configuration assumes."""
    table = plan.root / plan.own("tables", "table_7.csv")
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                if row["metric"] == "ml_clipsim" and row["device"].startswith("cuda"):
                    return float(row["macs"]) / float(row["ms_per_image"]) / 1e6, f"measured, {table.name}"
    return plan.config["forecast"]["gpu_gmacs_per_second"], "assumed, forecast.gpu_gmacs_per_second"


def _own_images(plan: spec.Plan, costs: dict[str, Any]) -> _Images:
    roles = plan.config["references"]["roles"]
    images = {role: _blocks(plan, role) * _families(plan) * costs["kept"]["images"] for role in roles}
    return _Images(
        references=sum(number for role, number in roles.items() if role != "zoo_train"),
        images=round(sum(images.values())),
        scored=round(sum(images[role] for role in plan.config["benchmark"]["roles"])),
        megapixels=plan.config["references"]["size"] ** 2 / 1e6,
    )


def _blocks(plan: spec.Plan, role: str) -> int:
    """A block is one reference at one PSNR."""
    if not role.startswith("pcmp_"):
        return 0
    return plan.config["references"]["roles"][role] * len(plan.config["pcmp"]["targets_db"])


def _families(plan: spec.Plan) -> int:
    return min(plan.config["pcmp"]["families_per_block"], len(plan.config["pcmp"]["families"]))


def _pairs(plan: spec.Plan, costs: dict[str, Any]) -> int:
    blocks = sum(_blocks(plan, role) for role in plan.config["references"]["roles"])
    return round(blocks * comb(_families(plan), 2) * costs["kept"]["pairs"])


def _judged_images(plan: spec.Plan, name: str) -> _Images:
    holds = plan.catalogs["datasets"][name].get("holds") or dict.fromkeys(_HOLDS, 0)
    pixels = holds["width"] * holds["height"]
    return _Images(holds["references"], holds["images"], holds["images"], pixels / 1e6)


def _step(study: _Study, step: str, images: _Images, subject: str | None) -> StepForecast:
    """One job of ``step`` on a set of images; ``subject`` is the encoder or the arm that it is about."""
    plan, costs = study.plan, study.costs
    made = StepForecast(step, jobs=1, cpu_seconds=costs["job_seconds"])
    if STEPS[step].report:
        made.cpu_seconds, made.bytes = costs["report"]["seconds"], costs["report"]["bytes"]
        return made
    if step in _TRAININGS:
        return _training(study, made, str(subject))
    if step in _CODINGS:
        return _coding(study, made)
    cost = costs["steps"].get(step)
    if cost is None:
        made.measured = False
        return made
    made.unit = cost["unit"]
    seen = images.references + images.images
    decode = images.megapixels * costs["decode_ms_per_megapixel"] / 1e3
    if step in _NETWORKS:
        networks = [subject] if subject else plan.voters
        made.items = made.passes = seen * len(networks)
        made.cpu_seconds += seen * (decode + sum(_pass_ms(costs, name) for name in networks) / 1e3)
        gmacs = sum(_cost(costs, name).get("gmacs", 0.0) for name in networks)
        made.gpu_seconds = costs["job_seconds"] + seen * (decode + gmacs / study.gpu_gmacs_per_second)
    elif cost["unit"] == "scores":
        untimed = _untimed(plan, costs)
        metrics = [name for name in plan.config["metrics"] if name not in untimed]
        made.items = images.scored * len(metrics)
        each = sum(_metric_ms(plan, costs, name, images.megapixels) for name in metrics) / 1e3
        made.cpu_seconds += images.scored * (decode + each)
    else:
        made.items = images.images if step == "human_images" else study.units[cost["unit"]]
        made.cpu_seconds += made.items * _ms(cost, images.megapixels) / 1e3
    size = cost.get("bytes", 0) + cost.get("bytes_per_megapixel", 0) * images.megapixels
    made.bytes = made.items * size
    return made


def _codec_jobs(plan: spec.Plan) -> dict[str, list[str]]:
    """Step -> the arm of each of its jobs; where trained codecs ship, one is trained again as a check."""
    compression, arms = plan.config["compression"], plan.trained_arms
    trains = plan.trains_codecs
    each = len(compression["points"]) * compression["seeds"]
    each -= compression["trial_point"] in compression["points"]  # of which the chosen trial is one
    return {
        "codec_trial": [arm for arm in arms for _ in compression["rhos"]] if trains else [],
        "codec_choice": arms if trains else [],
        "codec_arm": [arm for arm in arms for _ in range(each)] if trains else [],
        "codec_manifest": [""] if trains else [],
        "codec_check": [] if trains else [compression["check"]["arm"]],
    }


def _coders(plan: spec.Plan) -> dict[str, int]:
    """Codec -> at how many qualities and from how many trainings it codes the test images."""
    compression, catalog = plan.config["compression"], plan.catalogs["codecs"]
    trained = len(plan.trained_arms) * len(compression["points"]) * compression["seeds"]
    return {compression["codec"]: len(catalog[compression["codec"]]["points"]) + trained} | {
        name: len(catalog[name]["qualities"]) for name in plan.config["rate_task"]["codecs"]
    }


def _training(study: _Study, made: StepForecast, arm: str) -> StepForecast:
    """One training: the codec forward and backward, the arm's network with it, and the validations.

    A network sees each original once, and the reconstructions forward and backward.
    """
    plan, costs, compression = study.plan, study.costs, study.plan.config["compression"]
    codec = costs["codecs"].get(compression["codec"])
    if codec is None:
        made.measured = False
        return made
    validated = compression["validations"] * sum(compression["validation"].values())
    trained = compression["steps"] * compression["batch"] * compression["mosaic"] ** 2
    originals = sum(compression["train"].values()) + sum(compression["validation"].values())
    megapixels = plan.config["references"]["size"] ** 2 / 1e6
    network = {"deep_features": plan.config["feature_network"], "task_kl": compression["teacher"]}.get(
        arm, plan.encoder if arm not in ("mse", "ms_ssim") else None
    )
    passes = {compression["teacher"]: validated}
    if network:
        seen = trained * (1 + _BACKWARD) + originals + validated
        passes[network] = passes.get(network, 0) + seen
    made.unit, made.items, made.passes = "training steps", compression["steps"], sum(passes.values())
    coded = trained + validated / (1 + _BACKWARD)
    milliseconds = coded * megapixels * codec["train_ms_per_megapixel"]
    if arm == "ms_ssim":
        each = _ms(costs["metrics"]["ms_ssim"], megapixels)
        milliseconds += (trained * (1 + _BACKWARD) + validated) * each
    milliseconds += sum(number * _pass_ms(costs, name) for name, number in passes.items())
    gmacs = coded * megapixels * (1 + _BACKWARD) * codec["gmacs_per_megapixel"]
    gmacs += sum(number * _cost(costs, name).get("gmacs", 0.0) for name, number in passes.items())
    made.gpu_seconds = made.cpu_seconds + gmacs / study.gpu_gmacs_per_second
    made.cpu_seconds += milliseconds / 1e3
    made.bytes = codec.get("bytes", 0)
    return made


def _coding(study: _Study, made: StepForecast) -> StepForecast:
    """Images through codecs, into bitstreams and back, and what they decode through the judges."""
    plan, costs, compression = study.plan, study.costs, study.plan.config["compression"]
    if made.step == "rate_task":
        coders, judges = _coders(plan), plan.judges["test"]
        sets = [
            (*_coded_images(plan, images), images["tasks"]) for images in plan.config["rate_task"]["images"]
        ]
    else:
        trials = len(compression["rhos"]) + len(plan.catalogs["codecs"][compression["codec"]]["points"])
        coders, judges = {compression["codec"]: trials}, plan.judges["validation"]
        count, megapixels = (
            sum(compression["trial_images"].values()),
            plan.config["references"]["size"] ** 2 / 1e6,
        )
        sets = [(count, megapixels, ["classification", "detection", "segmentation"])]
    if not coders.keys() <= costs["codecs"].keys():
        made.measured = False
        return made
    made.unit = "codings"
    per_megapixel = sum(
        number * costs["codecs"][name]["code_ms_per_megapixel"] for name, number in coders.items()
    )
    decode = costs["decode_ms_per_megapixel"]
    for count, megapixels, tasks in sets:
        judging = [name for name in judges if plan.entry("machines", name)["task"] in tasks]
        predicted = count * (sum(coders.values()) + 1)
        made.items += count * sum(coders.values())
        made.passes += predicted * len(judging)
        made.cpu_seconds += count * megapixels * (per_megapixel + decode) / 1e3
        made.cpu_seconds += predicted * sum(_pass_ms(costs, name) for name in judging) / 1e3
    made.bytes = made.items * costs["bytes_per_coding"]
    return made


def _coded_images(plan: spec.Plan, images: dict[str, Any]) -> tuple[int, float]:
    """How many images a set of the rate-task study has, and megapixels of each."""
    if images["source"] in ("scenes", plan.config["references"]["source"]):
        return images["count"], plan.config["references"]["size"] ** 2 / 1e6
    holds = plan.catalogs["datasets"][images["source"]].get("holds") or dict.fromkeys(_HOLDS, 0)
    return images["count"] or holds["images"], holds["width"] * holds["height"] / 1e6


def _ms(cost: dict[str, float], megapixels: float) -> float:
    return cost["ms"] + cost.get("ms_per_megapixel", 0.0) * megapixels


def _cost(costs: dict[str, Any], network: str) -> dict[str, float]:
    """A tower of random weights costs what the trained one does."""
    return costs["networks"].get(network.removesuffix("-untrained"), {})


def _pass_ms(costs: dict[str, Any], network: str) -> float:
    known = _cost(costs, network)
    return known.get("cpu_ms", known.get("gmacs", 0.0) * costs["default_ms_per_gmac"])


def _sum(parts: list[StepForecast]) -> StepForecast:
    first = parts[0]
    on_gpu = [part.gpu_seconds for part in parts if part.gpu_seconds is not None]
    return StepForecast(
        step=first.step,
        jobs=len(parts),
        unit=first.unit,
        items=sum(part.items for part in parts),
        passes=sum(part.passes for part in parts),
        cpu_seconds=sum(part.cpu_seconds for part in parts),
        gpu_seconds=sum(on_gpu) if on_gpu else None,
        bytes=sum(part.bytes for part in parts),
        measured=first.measured,
    )


def _downloads(plan: spec.Plan, costs: dict[str, Any]) -> dict[str, float]:
    named = [("encoders", name) for name in plan.encoders] + [("machines", name) for name in _machines(plan)]
    return {
        name: 4e6 * _cost(costs, name).get("megaparameters", math.nan)  # of float32
        for catalog, name in named
        if pretrained.is_fetched(entry := plan.entry(catalog, name))
        and None in pretrained.files(entry).values()
    }


def _machines(plan: spec.Plan) -> list[str]:
    """All that a run needs: voters, judges of codecs, and what codecs are trained by."""
    judges = [name for group in plan.judges.values() for name in group]
    teacher = plan.config["compression"]["teacher"]
    return list(dict.fromkeys([*plan.voters, *judges, *plan.feature_networks, teacher]))


def _untimed(plan: spec.Plan, costs: dict[str, Any]) -> list[str]:
    networks = [name for name in [*plan.encoders, *_machines(plan)] if not _cost(costs, name)]
    datasets = [name for name in plan.all_judged if "holds" not in plan.catalogs["datasets"][name]]
    metrics = [name for name in plan.config["metrics"] if name not in costs["metrics"]]
    return networks + datasets + [name for name in metrics if not _cost(costs, _network_of(plan, name))]


def _network_of(plan: spec.Plan, metric: str) -> str:
    """The machine that a metric compares images by, empty if none."""
    network = (plan.metric(metric).get("arguments") or {}).get("network")
    return network["name"] if network else ""


def _metric_ms(plan: spec.Plan, costs: dict[str, Any], metric: str, megapixels: float) -> float:
    """Of one image; a network sees it and its reference, at their own size."""
    if network := _network_of(plan, metric):
        scale = megapixels * 1e6 / plan.entry("machines", network)["input_size"] ** 2
        return 2 * _pass_ms(costs, network) * scale
    return _ms(costs["metrics"][metric], megapixels)


def as_table(plan: spec.Plan, found: Forecast) -> str:
    """The forecast for a terminal."""
    reports = {name for name, known in STEPS.items() if known.report}
    report = [step for step in found.steps if step.step in reports]
    others = [step for step in found.steps if step not in report]
    documents = replace(_sum(report), step="tables, figures, claims", jobs=len(report))
    total = replace(
        _sum(found.steps), step="all", unit="", items=0, jobs=sum(step.jobs for step in found.steps)
    )
    rows: list[tuple[str, ...]] = [("step", "jobs", "items", "passes", "on one core", "on a GPU", "disk")]
    rows += [_row(step) for step in [*others, documents, total]]
    without = [step for step in found.steps if step.gpu_seconds is None]
    on_gpu = max(total.gpu_seconds or 0.0, sum(step.cpu_seconds for step in without) / found.cores)
    notes = [
        f"Preset {plan.preset}, run {plan.run}: {duration(found.seconds)} on {found.cores} cores, "
        f"{duration(on_gpu)} with a GPU as well.",
        f"Costs by config/costs.yaml; a GPU does {found.gpu_gmacs_per_second:,.0f} GMAC/s ({found.source}).",
    ]
    if found.downloads:
        size = sum(size for size in found.downloads.values() if not math.isnan(size))
        notes.append(f"To download: {_size(size)} of weights ({', '.join(found.downloads)}).")
    absent = _absent(plan)
    known = [name for name in absent if fetch.knows(plan.catalogs["datasets"][name])]
    by_hand = [name for name in absent if name not in known]
    if known:
        notes.append(f"Data sets to fetch: {', '.join(known)} (`mlclipsim fetch` gets them).")
    if by_hand:
        notes.append(
            f"To fetch by hand: {', '.join(by_hand)} (`mlclipsim doctor {plan.preset}` says from where)."
        )
    if found.untimed:
        notes.append(f"Without costs there, so left out of the times: {', '.join(found.untimed)}.")
    return "\n".join([_aligned(rows), "", *notes])


def _row(step: StepForecast) -> tuple[str, ...]:
    return (
        step.step,
        str(step.jobs),
        f"{step.items:,} {step.unit.replace('_', ' ')}" if step.items else "",
        f"{step.passes:,}" if step.passes else "",
        duration(step.cpu_seconds) if step.measured else "no costs",
        duration(step.gpu_seconds) if step.gpu_seconds is not None else "",
        _size(step.bytes) if step.bytes else "",
    )


def _absent(plan: spec.Plan) -> list[str]:
    names = [plan.config["references"]["source"], *plan.all_judged]
    return [name for name in dict.fromkeys(names) if any(f"{name!r} needs" in text for text in plan.missing)]


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return as_text(
        [
            (row[0], *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)))
            for row in rows
        ]
    )


def duration(seconds: float) -> str:
    """``3.2 min``: in the largest unit of which there are at least one and a half."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _size(number: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"
