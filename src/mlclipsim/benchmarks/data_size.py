"""How much data the fit needs: 2AFC of fits on random parts of the references, pairs and voters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import write_table
from mlclipsim.benchmarks.ballots import Ballots
from mlclipsim.benchmarks.refit import Arm, Study, similarity_differences
from mlclipsim.randomness import generator

__all__ = ["vary"]


def vary(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``data_size``: pairs, labels, votes, voters, similarities, weights -> ``data_size``.

    ``spec["ablation"]``: ``references`` and ``pairs``, sizes to try (those beyond what there is are left
    out), and ``draws``, random parts per size; voters are taken 1, 2, ... at a time. Each ``quantity`` begins
    with the uniform weights, which need no data (``size`` 0), and ends with all of what there is. The penalty
    of every fit is chosen on all of pcmp_val. ``estimate`` is the mean over draws, its interval is over test
    references; ``draw_low`` and ``draw_high`` are the least and the largest estimate of a draw.
    """
    study = Study.read(spec, inputs)
    _, deltas = similarity_differences(study.pairs, inputs["similarities"])
    full = study.prefer(deltas, study.fitted)
    uniform = study.prefer(deltas, study.uniform(deltas.shape[1]))
    frames = []
    ballots = Ballots(study, spec["folds"], inputs["votes"], inputs["voters"])
    for quantity, total, fits in _fits(study, ballots, spec, deltas):
        sizes = {0: [uniform], **fits, total: [full]}
        # Credit is linear in the preference, so the mean preference earns the mean of the draws' credits.
        arms = [
            Arm({"quantity": quantity, "size": size, "n_draws": len(draws)}, np.mean(draws, axis=0))
            for size, draws in sizes.items()
        ]
        frame = pd.DataFrame(study.judge(arms, full))
        for row in frame.index:
            found = study.estimates(sizes[frame.at[row, "size"]], frame.at[row, "voters"])
            frame.loc[row, ["draw_low", "draw_high"]] = found.min(), found.max()
        frames.append(frame)
    write_table(outputs["data_size"], pd.concat(frames, ignore_index=True), "data_size")


def _fits(
    study: Study, ballots: Ballots, spec: dict[str, Any], deltas: np.ndarray
) -> Iterator[tuple[str, int, dict[int, list[np.ndarray]]]]:
    """Quantity, all that there is of it, and for each lesser size the preferences of every draw."""
    options, seed = spec["ablation"], spec["seed"]
    train = (study.pairs["role"] == "pcmp_train").to_numpy()[:, None] & np.isfinite(study.labels["seen"])
    references = study.pairs["reference_id"].to_numpy()
    units = {"references": references, "pairs": np.arange(len(references))}
    for quantity, of_pair in units.items():
        each = [np.unique(of_pair[part]) for part in train.T]
        total = min(len(names) for names in each)
        fits: dict[int, list[np.ndarray]] = {}
        for size in (size for size in options[quantity] if size < total):
            fits[size] = []
            for draw in range(options["draws"]):
                kept = ~train  # all of pcmp_val
                for fold, names in enumerate(each):
                    rng = generator(seed, "data_size", quantity, size, draw, fold)
                    kept[:, fold] |= np.isin(of_pair, rng.choice(names, size, replace=False))
                fits[size].append(study.prefer(deltas, study.refit(deltas, kept=kept)))
        yield quantity, total, fits
    seen = [fold["seen"] for fold in spec["folds"]]
    total = min(len(members) for members in seen)
    fits = {}
    for size in range(1, total):
        parts = []
        for fold, members in enumerate(seen):
            every = list(itertools.combinations(members, size))
            order = generator(seed, "data_size", "voters", size, fold).permutation(len(every))
            parts.append([list(every[index]) for index in order[: options["draws"]]])
        fits[size] = [
            study.prefer(deltas, study.refit(deltas, ballots.seen_by(members)))
            for members in zip(*parts, strict=False)  # folds may have unequal numbers of voters
        ]
    yield "voters", total, fits
