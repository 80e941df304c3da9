"""table_8: are consistency votes a fair stand-in for machine utility? (mlclipsim.benchmarks.validity)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mlclipsim.artifacts import read_table
from mlclipsim.benchmarks import validity
from mlclipsim.benchmarks.statistics import MIN_CLUSTERS
from mlclipsim.benchmarks.validity import JURIES, OTHERS
from mlclipsim.report.style import label
from mlclipsim.report.tables.writer import NOTHING, number, write

__all__ = ["make"]

_JURY = {"all": "all voters"} | {group: label(group) for group in OTHERS}
# What is printed, in order: (quantity, reference_read) and how a reader is told; None begins a new group.
_PRINTED: tuple[tuple[tuple[str, str], str] | None, ...] = (
    (("one_right", "all"), "just one image of the pair is read rightly"),
    (("own_truth", "all"), "the voter's own vote sides with it"),
    (("own_truth", "right"), "... reference read rightly"),
    (("own_truth", "wrong"), "... reference misread"),
    (("others_truth", "all"), "the other group's label sides with it"),
    (("others_truth", "right"), "... reference read rightly"),
    (("others_truth", "wrong"), "... reference misread"),
    None,
    (("label_left", ""), "labels left without the votes of misreaders"),
    (("majority_kept", ""), "majority kept"),
    (("majority_kept_where_votes_fell_out", ""), "... where a vote fell out"),
    (("correlation", ""), "correlation with the full label"),
    None,
    (("circular_triads", ""), "circular triads"),
    (("circular_triads_of_random_rankings", ""), "... if every voter ranked at random"),
    (("tied_triads", ""), "triads with a tie, left out above"),
    None,
    (("family_utility", ""), "2AFC of one utility per family"),
    (("image_utility", ""), "2AFC of one utility per image"),
    (("others_label", ""), "2AFC of the other group's label"),
    (("attainable", ""), "2AFC attainable"),
)


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``table_8``: pairs, predictions, voters, votes, labels -> csv (tidy, every split), md and tex
    (pcmp_test). The quantities are told at :func:`mlclipsim.benchmarks.validity.measure`.
    """
    voters = read_table(inputs["voters"], "voters").set_index("voter")
    tidy = validity.measure(spec, inputs, voters)
    printed, rules = _pivot(tidy)
    write(
        spec, outputs, tidy=tidy, printed=printed, caption="Validity of consistency votes", name="table_8",
        notes=_notes(tidy, voters, spec["folds"]), rules=rules,
    )  # fmt: skip


def _pivot(tidy: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """Rows of pcmp_test without single voters: an estimate with its interval, and n, per jury."""
    overall = tidy[(tidy["split"] == "pcmp_test") & (tidy["voter"] == "") & (tidy["family"] == "")]
    cells = overall.set_index(["quantity", "reference_read", "voters"]).to_dict("index")
    rows: list[dict[str, str]] = []
    rules: list[int] = []
    for entry in _PRINTED:
        if entry is None:
            rules.append(len(rows))
            continue
        key, text = entry
        row = {"": text}
        for space, jury in enumerate(JURIES):
            cell = cells.get((*key, jury), {"estimate": None, "interval": "none", "n": 0})
            known = cell["interval"] != "none"
            interval = f" [{number(cell['ci_low'])}, {number(cell['ci_high'])}]" if known else ""
            row[_JURY[jury]] = number(cell["estimate"]) + interval
            row["n" + " " * space] = f"{cell['n']:,}" if cell["n"] else NOTHING
        rows.append(row)
    return pd.DataFrame(rows), rules


def _notes(tidy: pd.DataFrame, voters: pd.DataFrame, folds: list[dict[str, list[str]]]) -> list[str]:
    test = tidy[tidy["split"] == "pcmp_test"]
    notes = [
        "First block: top-1, on pairs of which a voter reads just one image rightly; how often that image "
        "gets its own vote, and the majority of the group that shares no family with it (ties half). Own "
        "votes agree almost by definition where the reference is read rightly; the other group's label is "
        "independent evidence.",
        "Circular triads: a vote compares divergences, so one voter's never run in a circle, and few voters' "
        "hardly can. Chance is each voter ranking three images at random, not the 1/4 of tossed coins.",
        "2AFC on soft labels: utility per family is Bradley-Terry's, fitted to the same voters' labels of "
        "pcmp_train; utility per image is its share of the other group's votes in its block.",
    ]
    seen, held_out = ({name for fold in folds for name in fold[group]} for group in OTHERS)
    if seen == held_out:
        notes.append("The groups swap between folds, so both columns are of the same voters.")
    silent = list(voters.index[voters["task"] != "classification"])
    if silent:
        notes.append(
            f"No ground truth for {', '.join(silent)}: not in the first block, never counted as misreading."
        )
    own = test[(test["quantity"] == "own_truth") & (test["reference_read"] == "all") & (test["voter"] != "")]
    own = own.dropna(subset="estimate").sort_values(["estimate", "voter"])
    if len(own):
        low, high = own.iloc[0], own.iloc[-1]
        notes.append(
            f"Own votes by voter: {number(low['estimate'])} ({low['voter']}) to {number(high['estimate'])} "
            f"({high['voter']}). The csv has every voter, the other splits and the families' utilities."
        )
    if (test.loc[test["voter"] == "", "interval"] == "t").any():
        notes.append(f"Cluster-robust t intervals where there are fewer than {MIN_CLUSTERS} references.")
    return notes
