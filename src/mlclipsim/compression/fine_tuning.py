"""Fine-tune a codec of the zoo as an arm asks: one training is one step of the workflow.

All arms see the same images in the same order for as many steps. Those images are a fixed list, so that what
an arm needs of the originals is computed once. They are of roles that are never reported on, and those of the
validation are of another. Each training leaves a record: settings, weights of the loss, and the curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlclipsim.artifacts import ArtifactError, read_json, read_table, write_json
from mlclipsim.compression import codecs
from mlclipsim.compression.arms import ARMS, ArmObjective, balance, build_term, freeze, identity
from mlclipsim.compression.codecs import CompressionModel
from mlclipsim.compression.image_sets import join
from mlclipsim.compression.terms import Originals
from mlclipsim.compression.training import Schedule, train
from mlclipsim.devices import own_device
from mlclipsim.images import decode_image, to_tensor
from mlclipsim.randomness import derive_seed, generator
from mlclipsim.spec import canonical

__all__ = ["Training", "fine_tune", "load_images", "prepare", "settings_of_trials", "try_setting"]


def try_setting(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``codec_trial``: [references, weights, checkpoint] -> ``codec``, ``record``.

    ``spec["trial"]`` is the place of one of the arm's settings, see :func:`settings_of_trials`.
    """
    settings = settings_of_trials(spec["arm"], spec["compression"])[spec["trial"]]
    _fine_tune(spec, spec["compression"]["trial_point"], 0, settings, inputs, outputs)


def fine_tune(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``codec_arm``: ``choice`` [, references, weights, checkpoint] -> ``codec``, ``record``.

    ``spec`` has ``point`` and ``training_seed``; the choice is the arm's.
    """
    chosen = read_json(inputs["choice"])["chosen"]
    _fine_tune(spec, spec["point"], spec["training_seed"], chosen, inputs, outputs)


def settings_of_trials(name: str, compression: Mapping[str, Any]) -> list[dict[str, float | None]]:
    """``rho`` and ``learning_rate`` of each trial of an arm; arms without a weight try learning rates."""
    if ARMS[name].weighted:
        return [{"rho": rho, "learning_rate": compression["learning_rate"]} for rho in compression["rhos"]]
    return [{"rho": None, "learning_rate": rate} for rate in compression["learning_rates"]]


def load_images(counts: Mapping[str, int], spec: Mapping[str, Any], references: Path | None) -> np.ndarray:
    """Fixed images to train or validate on, mosaics ``(N, H, W, 3)`` uint8.

    Args:
        counts: images by role.
        references: their table; None: scenes.

    Scenes are rendered over the photographs of each role, other images are the run's references of that role.
    Roles are mixed, in an order drawn from the run's seed.

    Raises:
        ArtifactError: fewer references than asked for.
    """
    columns, seed = spec["compression"]["mosaic"], spec["seed"]
    images: list[np.ndarray] = []
    for role, count in counts.items():
        if references is None:
            from mlclipsim.world.pool import render_pool

            images += list(render_pool(role, count, seed).images)
            continue
        table = read_table(references, "references", ["role", "image"])
        found = table.loc[table["role"] == role, "image"].head(count)
        if len(found) < count:
            raise ArtifactError(
                f"{references}: expected {count} images of role {role}, found {len(found)}; give it as many "
                "in references.roles"
            )
        images += [decode_image(data) for data in found]
    order = generator(seed, "codec_images", *counts).permutation(len(images))
    return np.stack(join([images[place] for place in order], columns))


@dataclass(frozen=True)
class Training:
    """A training, ready to run.

    Attributes:
        base: the file that ``model`` was loaded from.
        settings: what the result depends on.
    """

    model: CompressionModel
    base: Path
    objective: ArmObjective
    schedule: Schedule
    seed: int
    settings: dict[str, Any]

    @staticmethod
    def checkpoint(output: Path) -> Path:
        """Where a killed training is resumed from: beside its weights."""
        return output.with_suffix(".checkpoint.pt")

    def run(self, output: Path) -> list[dict[str, float]]:
        """Train, write the weights, and return the curve."""
        curve = train(
            self.model,
            self.objective,
            self.schedule,
            seed=self.seed,
            checkpoint=self.checkpoint(output),
            settings=canonical(self.settings),
            name=output.stem,
        )
        if not self.objective.arm.decoder_only:
            self.model.update(force=True, update_quantiles=True)
        codecs.save_moved(self.model.cpu(), self.base, output)
        return curve


def prepare(
    spec: dict[str, Any],
    point: str,
    training_seed: int,
    chosen: Mapping[str, Any],
    inputs: Mapping[str, Path],
) -> Training:
    """Load base codec, images and term, and weigh the loss.

    Args:
        spec: ``seed``; ``threads``; ``arm``; ``codec``, ``encoder``, ``feature_network``, ``teacher``: each
            {``name``, ``entry``: of its catalog}; ``compression``: the block of the config.
        chosen: ``rho`` and ``learning_rate``.
    """
    torch.set_num_threads(int(spec["threads"]))
    name, compression, entry = spec["arm"], spec["compression"], spec["codec"]["entry"]
    arm, columns = ARMS[name], compression["mosaic"]
    device = own_device()
    training, validation = (
        to_tensor(load_images(compression[part], spec, inputs.get("references")))
        for part in ("train", "validation")
    )
    model = codecs.load(entry, point).to(device)
    proxy = build_term("task_kl", spec, inputs)
    term = build_term(name, spec, inputs) or proxy  # which an arm without a term never asks
    assert proxy is not None
    assert term is not None
    originals = Originals(training, columns, term.to(device))
    weights = balance(
        arm,
        chosen["rho"],
        entry["points"][point]["lambda"],
        model,
        originals if arm.term else None,
        training[: compression["balance_images"]].to(device),
    )
    freeze(model, arm)
    seed = derive_seed(spec["seed"], "codec", training_seed)
    objective = ArmObjective(
        arm,
        weights,
        originals,
        Originals(validation, columns, term),
        Originals(validation, columns, proxy.to(device)),
        seed=seed,
        batch=compression["batch"],
    )
    schedule = Schedule(
        compression["steps"],
        chosen["learning_rate"],
        compression["quantile_rate"],
        validations=compression["validations"],
    )
    settings = {
        "arm": name,
        "codec": spec["codec"]["name"],
        "point": point,
        "seed": training_seed,
        "run_seed": spec["seed"],
        "balance": weights.record(),
        "schedule": vars(schedule),
        "batch": compression["batch"],
        "train": compression["train"],
        "loss": identity(name, spec, inputs),
    }
    return Training(model, codecs.weights_file(entry, point)[0], objective, schedule, seed, settings)


def _fine_tune(
    spec: dict[str, Any],
    point: str,
    training_seed: int,
    chosen: Mapping[str, Any],
    inputs: dict[str, Path],
    outputs: dict[str, Path],
) -> None:
    training = prepare(spec, point, training_seed, chosen, inputs)
    curve = training.run(outputs["codec"])
    write_json(outputs["record"], training.settings | {"curve": curve})
    training.checkpoint(outputs["codec"]).unlink()
