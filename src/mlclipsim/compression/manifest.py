"""Trained codecs as they ship: the weights of every training, and a manifest of how each was made.

Whoever finds weights there must know whether they belong to his run: :func:`stale` compares what each arm's
loss was made of with what it would be made of now.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlclipsim.artifacts import ArtifactError, read_json, sha256_of, write_json
from mlclipsim.compression import codecs
from mlclipsim.compression.arms import identity
from mlclipsim.compression.fine_tuning import prepare
from mlclipsim.provenance import git_state

__all__ = ["check", "collect", "stale"]

# Layer weights fitted elsewhere on the same pairs differ by rounding.
_WEIGHT_TOLERANCE = 0.01
# A training on another processor drifts: rounding differs, and 600 steps amplify it.
_RELATIVE_TOLERANCE = {"bpp": 0.02, "mse": 0.02, "task": 0.1}


def collect(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``codec_manifest``: ``codecs`` and ``records`` of all trainings, ``choices`` of all arms ->
    ``manifest``, which belongs beside the weights.
    """
    commit, changed = git_state()
    write_json(
        outputs["manifest"],
        {
            "command": f"snakemake codecs --config preset={spec['preset']} retrain_codecs=true",
            "commit": commit,
            "changed": changed,
            "choices": {choice["arm"]: choice for choice in map(read_json, inputs["choices"])},
            "codecs": {
                weights.stem: {"sha256": sha256_of(weights)} | read_json(record)
                for weights, record in zip(inputs["codecs"], inputs["records"], strict=True)
            },
        },
    )


def stale(manifest: Mapping[str, Any], spec: Mapping[str, Any], inputs: Mapping[str, Path]) -> dict[str, str]:
    """Arms whose shipped weights were trained for another loss than this run's, and what differs.

    Args:
        manifest: as :func:`collect` wrote it.
        spec, inputs: as of :func:`mlclipsim.compression.arms.build_term`.
    """
    found: dict[str, str] = {}
    for record in manifest["codecs"].values():
        name = record["arm"]
        now = identity(name, spec, inputs)
        differing = [key for key, value in now.items() if not _alike(record["loss"].get(key), value)]
        if differing:
            found[name] = f"trained for another {' and '.join(differing)}; needs retrain_codecs=true"
    return found


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return all(abs(one[key] - other[key]) <= _WEIGHT_TOLERANCE for key in one)
    return one == other


def check(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``codec_check``: ``manifest`` [, references, weights, checkpoint] -> ``report``.

    Trains one of the shipped codecs again and compares: largest difference of a weight, and relative
    differences of rate, squared error and the machines' proxy on the validation images.

    Args:
        spec: as of :func:`mlclipsim.compression.fine_tuning.prepare`, with ``point`` and ``training_seed``.

    Raises:
        ArtifactError: it was not found again, or what ships is not what the manifest lists.
    """
    manifest = read_json(inputs["manifest"])
    name, point = spec["arm"], spec["point"]
    codec = f"{name}-{point}-s{spec['training_seed']}"
    shipped = inputs["manifest"].with_name(f"{codec}.safetensors")
    if (seen := sha256_of(shipped)) != manifest["codecs"][codec]["sha256"]:
        raise ArtifactError(
            f"{shipped}: expected sha256 {manifest['codecs'][codec]['sha256']}, got {seen}; fetch it again"
        )
    differing = stale({"codecs": {codec: manifest["codecs"][codec]}}, spec, inputs)
    if differing:
        write_json(outputs["report"], {"codec": codec, "ran": False, "reason": differing[name]})
        return
    training = prepare(spec, point, spec["training_seed"], manifest["choices"][name]["chosen"], inputs)
    again = outputs["report"].with_suffix(".safetensors")
    training.run(again)
    models = [codecs.load(spec["codec"]["entry"], point, path) for path in (shipped, again)]
    figures = [training.objective.validate(model) for model in models]
    relative = {key: abs(figures[1][key] / figures[0][key] - 1) for key in _RELATIVE_TOLERANCE}
    report = {
        "codec": codec,
        "ran": True,
        "identical": sha256_of(again) == seen,
        "largest_weight_difference": max(
            float((one - other).detach().abs().max())
            for one, other in zip(*(model.parameters() for model in models), strict=True)
        ),
        "relative_differences": relative,
        "passes": all(relative[key] <= most for key, most in _RELATIVE_TOLERANCE.items()),
    }
    write_json(outputs["report"], report)
    again.unlink()
    training.checkpoint(again).unlink()
    if not report["passes"]:
        raise ArtifactError(
            f"{codec}: expected the training to give what ships, got relative differences of "
            f"{relative}; run with retrain_codecs=true"
        )
