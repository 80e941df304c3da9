"""What many tests share: a small invented PCMP on disk, by the declared schemas, and tiny towers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from mlclipsim.artifacts import write_table
from mlclipsim.images import encode_image

if TYPE_CHECKING:  # torch is imported where it is needed
    from mlclipsim.encoders import Encoder

NOISE_AND_BLUR = ["gaussian_noise", "shot_noise", "gaussian_blur", "motion_blur"]
FAMILIES = [*NOISE_AND_BLUR, "ringing", "jpeg", "jpeg2000", "contrast"]
TARGETS_DB, PER_BLOCK = (22.0, 25.0, 28.0), 6
VOTERS = {"seen": ("ada", "bob", "cyd", "dee", "eve"), "held_out": ("fay", "gus", "hal", "ivy", "joe")}
LAYERS = [*(f"layer_{index:02d}" for index in range(1, 7)), "global"]
# What the invented machines care about: two late layers and a little of the global embedding.
PLANTED = np.array([0.02, 0.03, 0.05, 0.30, 0.40, 0.10, 0.10])

KINDS = ("kl", "kl_t4", "js", "logit_cosine", "top1")  # of divergence

Picture = Callable[[str, str, float], np.ndarray]  # (reference, family or "reference", target) -> pixels


def _grey(*_: object) -> np.ndarray:
    return np.full((16, 16, 3), 128, np.uint8)


def invent(
    folder: Path, references: dict[str, int], *, families: list[str] = FAMILIES, picture: Picture = _grey
) -> SimpleNamespace:
    """Write every table; voters are noisy observers of the utility ``similarities @ PLANTED``.

    Returns:
        ``tables`` and ``paths`` by schema, ``folds`` as the config spells them, and a ``seed``.
    """
    rng = np.random.default_rng(0)
    tables = _images(rng, references, families, picture)
    images, pairs = tables["images"], tables["pairs"]
    # A family's own effect and the image's, in layers whose spread grows with depth.
    effect = {family: rng.normal(size=len(LAYERS)) for family in families}
    effects = 0.5 * np.stack([effect[family] for family in images["family"]]) + rng.normal(
        size=(len(images), len(LAYERS))
    )
    values = 0.6 - np.linspace(0.02, 0.12, len(LAYERS)) * effects
    similarities = pd.DataFrame(values, columns=LAYERS)
    tables["similarities"] = pd.concat([images[["image_id", "reference_id"]], similarities], axis=1)
    tables["products"] = _products(images, values)
    utility = pd.Series(values @ PLANTED, index=images["image_id"])
    tables |= _votes(rng, pairs, pairs["image_a"].map(utility) - pairs["image_b"].map(utility))
    unrelated = np.random.default_rng(1)  # the votes do not come from these
    tables["predictions"] = pd.concat(
        [
            pd.DataFrame(
                {
                    "image_id": images["image_id"],
                    "voter": voter,
                    **{kind: unrelated.gamma(1.0, 0.2, len(images)) for kind in KINDS},
                    **dict.fromkeys(("box_f1", "mean_iou"), np.nan),
                    "abstains": False,
                    "psnr_seen_db": images["psnr_db"],
                    "correct": rng.random(len(images)) < 0.6,
                    "reference_correct": True,
                }
            )
            for voter in tables["voters"]["voter"]
        ],
        ignore_index=True,
    )
    tables["drops"] = pd.DataFrame(
        [
            ("pcmp_test", 22.0, "jpeg", "unattainable_low", 3),
            ("pcmp_test", 22.0, "jpeg", "unmatched_pair", 2),
        ],
        columns=["role", "target_db", "family", "cause", "count"],
    )
    blind, knowing = rng.normal(size=len(images)), rng.normal(0, 0.02, len(images)) - 0.5 * utility.to_numpy()
    metrics = (("psnr", images["psnr_db"], True), ("gmsd", knowing, False), ("ssim", blind, True))
    tables["scores"] = pd.concat(
        [
            images[["image_id"]].assign(metric=name, variant="rgb", score=score, higher_is_better=up)
            for name, score, up in metrics
        ],
        ignore_index=True,
    ).assign(**{"class": "fidelity"})
    paths = {name: folder / f"{name}.parquet" for name in tables}
    for name, table in tables.items():
        write_table(paths[name], table, name)
    folds = [{group: list(names) for group, names in VOTERS.items()}]
    return SimpleNamespace(tables=SimpleNamespace(**tables), paths=paths, folds=folds, seed=20261122)


def _products(images: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    """Every similarity as a sum over four channels, the first of which knows all that differs."""
    share = np.array([1.0, 0.0, 0.0, 0.0])
    rest = np.random.default_rng(5).normal(0, 0.03, (*values.shape, 4))
    rest -= rest.mean(axis=-1, keepdims=True)  # other channels' differences cancel
    terms = (values[..., None] * share + rest).astype(np.float16)
    columns = {name: list(terms[:, number]) for number, name in enumerate(LAYERS)}
    return images[["image_id", "reference_id"]].assign(**columns)


def _images(
    rng: np.random.Generator, references: dict[str, int], families: list[str], picture: Picture
) -> dict[str, pd.DataFrame]:
    """References, their distorted images, and all pairs of each block."""
    rows: dict[str, list[dict]] = {"references": [], "images": [], "pairs": []}
    names = [
        (role, f"scene-{role}-{number:04d}") for role, count in references.items() for number in range(count)
    ]
    for number, (role, reference) in enumerate(names):
        mine = {"reference_id": reference, "role": role}
        pixels = encode_image(picture(reference, "reference", 0.0))
        photograph = {"photograph": f"photo-{role}-{number % 3}", "label": number % 10, "caption": ""}
        rows["references"].append(mine | photograph | {"image": pixels})
        for target in TARGETS_DB:
            block = {}
            for family in sorted(rng.choice(families, PER_BLOCK, replace=False)):
                block[family] = mine | {
                    "image_id": f"{reference}.{target:g}.{family}",
                    "target_db": target,
                    "family": family,
                    "photometric": family in ("contrast", "brightness"),
                    "strength": (rng.random() + 40 - target) / 50,  # more of it for a lower PSNR
                    "psnr_db": target + rng.uniform(-0.05, 0.05),
                    "evaluations": 9,
                    "image": encode_image(picture(reference, family, target)),
                }
            rows["images"] += block.values()
            for pair in itertools.combinations(block, 2):
                a, b = pair if rng.random() < 0.5 else pair[::-1]
                sides = {
                    f"{key}_{side}": block[family][column]
                    for side, family in (("a", a), ("b", b))
                    for key, column in (("image", "image_id"), ("family", "family"))
                }
                levels = {"psnr_a_db": block[a]["psnr_db"], "psnr_b_db": block[b]["psnr_db"]}
                photometric = block[a]["photometric"] or block[b]["photometric"]
                identity = {"pair_id": f"{reference}.{target:g}.{a}.{b}", "target_db": target}
                rows["pairs"].append(mine | identity | sides | levels | {"photometric": photometric})
    return {name: pd.DataFrame(part) for name, part in rows.items()}


def _votes(rng: np.random.Generator, pairs: pd.DataFrame, margin: pd.Series) -> dict[str, pd.DataFrame]:
    """Each voter sees the difference in utility through noise of its own, and abstains on one pair in a
    hundred.
    """
    everyone = [name for group in VOTERS.values() for name in group]
    votes = []
    for voter in everyone:
        seen = margin.to_numpy() / 0.03 + 0.7 * rng.logistic(size=len(margin))
        vote = np.where(np.abs(seen) < 0.25, 0.5, (seen > 0).astype(float))
        vote[rng.random(len(vote)) < 0.01] = np.nan
        votes.append(pd.DataFrame({"pair_id": pairs["pair_id"], "voter": voter, "vote": vote}))
    cast = pd.concat(votes, ignore_index=True)
    labels = []
    for group, names in VOTERS.items():
        of_group = (
            cast[cast["voter"].isin(names)].groupby("pair_id")["vote"].agg(["mean", "count"]).reset_index()
        )
        of_group = of_group.rename(columns={"mean": "label", "count": "n_votes"})
        labels.append(of_group.assign(fold=0, group=group, n_families=of_group["n_votes"]))
    constant = {"task": "classification", "clean_accuracy": 0.9, "n_clean": 100, "temperature": 1.0}
    voters = pd.DataFrame({"voter": everyone, "family": [f"family-{name}" for name in everyone]})
    return {
        "votes": cast,
        "labels": pd.concat(labels, ignore_index=True),
        "voters": voters.assign(sha256="0" * 64, **constant),
    }


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Encoder]:
    """Makes random towers, the same ones every time: ``tiny("vit")`` or ``tiny("resnet")``."""
    import torch

    from mlclipsim.encoders import Encoder, build_clip

    text = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
    vision = {
        "vit": {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 64},
        "resnet": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 64},
    }

    def make(family: str) -> Encoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build_clip({"embed_dim": 16, "vision_cfg": vision[family], "text_cfg": text})
        # ModifiedResNet starts its last norms at zero: blocks do nothing.
        for parameter in model.visual.parameters():
            if not parameter.any():
                torch.nn.init.constant_(parameter, 0.5)
        return Encoder(model.visual, name=f"tiny-{family}")

    return make


@pytest.fixture(scope="session")
def invented_pcmp(tmp_path_factory) -> SimpleNamespace:
    """An invented PCMP of 50 training, 20 validation and 36 test references; see :func:`invent`."""
    roles = {"pcmp_train": 50, "pcmp_val": 20, "pcmp_test": 36}
    return invent(tmp_path_factory.mktemp("pcmp"), roles)


@pytest.fixture(scope="session")
def invented_weights(invented_pcmp, tmp_path_factory) -> Path:
    """The fit on :func:`invented_pcmp`."""
    from mlclipsim import fit

    path = tmp_path_factory.mktemp("fit") / "weights.json"
    spec = {
        "seed": 1,
        "fit": {"penalties": [0.0001, 0.001, 0.01], "bootstrap": 20},
        "encoder": {"name": "scene-clip"},
    }
    fit.learn(spec, invented_pcmp.paths, {"weights": path})
    return path


@pytest.fixture(scope="session")
def invented_preference(invented_pcmp, invented_weights, tmp_path_factory) -> dict[str, Path]:
    """What the preference step makes of :func:`invented_pcmp`: paths of ``preference, comparisons,
    ceilings``.
    """
    from mlclipsim.benchmarks import machine_preference

    folder = tmp_path_factory.mktemp("preference")
    outputs = {
        "preference": folder / "preference.parquet",
        "comparisons": folder / "comparisons.json",
        "ceilings": folder / "ceilings.json",
    }
    inputs = invented_pcmp.paths | {"weights": invented_weights, "baselines": invented_pcmp.paths["scores"]}
    spec = {
        "seed": invented_pcmp.seed,
        "folds": invented_pcmp.folds,
        "benchmark": {"resamples": 500},
        "metrics": {"psnr": {}, "lpips": {"class": "perceptual", "needs": "AlexNet weights"}},
    }
    machine_preference.evaluate(spec, inputs, outputs)
    return outputs


@pytest.fixture(scope="session")
def invented_severity(invented_pcmp, invented_weights, tmp_path_factory) -> dict[str, Path]:
    """What the severity step makes of :func:`invented_pcmp`: paths of ``severity``, and of our ``scores``."""
    from mlclipsim import fit
    from mlclipsim.benchmarks import severity

    folder = tmp_path_factory.mktemp("severity")
    ours, result = folder / "ml_clipsim.parquet", folder / "severity.parquet"
    fit.score({"seed": 1}, invented_pcmp.paths | {"weights": invented_weights}, {"scores": ours})
    inputs = {"images": invented_pcmp.paths["images"], "scores": [invented_pcmp.paths["scores"], ours]}
    spec = {"seed": invented_pcmp.seed, "benchmark": {"resamples": 500}}
    severity.evaluate(spec, inputs, {"severity": result})
    return {"severity": result, "scores": ours}


@pytest.fixture(scope="session")
def invented_ablation(invented_pcmp, invented_weights, tmp_path_factory) -> dict[str, Path]:
    """What the refits make of :func:`invented_pcmp`: paths of ``layers, choices, data_size, calibration``;
    the second tower of ``choices`` knows nothing.
    """
    from mlclipsim.benchmarks import ablation, calibration, data_size

    folder = tmp_path_factory.mktemp("ablation")
    similarities = invented_pcmp.tables.similarities
    blind = similarities.assign(
        **{name: np.random.default_rng(2).random(len(similarities)) for name in LAYERS}
    )
    write_table(folder / "blind.parquet", blind, "similarities")
    spec = {
        "seed": invented_pcmp.seed,
        "folds": invented_pcmp.folds,
        "benchmark": {"roles": ["pcmp_test"], "resamples": 500},
        "votes": {"divergence": "kl", "tie_log": 0.25, "epsilon": 0.01, "tie_bounded": 0.01},
        "ablation": {"tie_scales": [0.0], "references": [3, 20], "pairs": [30, 9999], "draws": 3},
        "towers": ["scene-clip", "blind"],
    }
    inputs = invented_pcmp.paths | {"weights": invented_weights, "baselines": invented_pcmp.paths["scores"]}
    paths = {name: folder / f"{name}.parquet" for name in ("layers", "choices", "data_size", "calibration")}
    ablation.layers(spec, inputs, {"ablation": paths["layers"]})
    towers = [inputs["similarities"], folder / "blind.parquet"]
    ablation.choices(spec, inputs | {"similarities": towers}, {"ablation": paths["choices"]})
    data_size.vary(spec, inputs, {"data_size": paths["data_size"]})
    calibration.calibrate(spec, inputs, {"calibration": paths["calibration"]})
    return paths


@pytest.fixture
def recorded_run(tmp_path, monkeypatch) -> Path:
    """A run of three steps with their records, ``references`` -> ``baselines`` -> ``table_2``: returns
    ``results/tiny/default``, below the working directory. SSIM was scored, LPIPS lacked its weights.
    """
    from mlclipsim import provenance

    monkeypatch.chdir(tmp_path)
    shared, run = Path("results/tiny/shared"), Path("results/tiny/default")
    references, scores = shared / "references-0/references.parquet", shared / "baselines-1/scores.parquet"
    table = {"csv": run / "tables/table_2.csv", "md": run / "tables/table_2.md"}
    for path in (references, *table.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"of {path}")
    scored = {"image_id": ["a"], "metric": ["ssim"], "variant": ["grey"], "score": [0.5]}
    write_table(scores, pd.DataFrame(scored | {"higher_is_better": [True], "class": ["fidelity"]}), "scores")
    photographs = {"source": "imagenet-val", "dataset": {"licence": "ImageNet terms"}}
    made = [
        ("references", {"seed": 7, "threads": 1, "references": photographs}, {}, {"references": references}),
        (
            "baselines",
            {"seed": 7, "metrics": {"ssim": {}, "lpips": {}}},
            {"references": references},
            {"scores": scores},
        ),
        ("table_2", {"preset": "tiny", "seed": 7}, {"preference": scores}, table),
    ]
    for number, (step, spec, inputs, outputs) in enumerate(made):
        place = run / "provenance/table_2.json" if step == "table_2" else provenance.beside(outputs)
        provenance.write(place, step, spec, inputs, outputs, started=float(number))
    return run
