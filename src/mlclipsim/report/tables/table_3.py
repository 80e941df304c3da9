"""table_3: human image quality, how each metric ranks what people rated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mlclipsim.artifacts import read_table
from mlclipsim.report.style import CLASSES, label
from mlclipsim.report.tables.writer import NOTHING, bold, number, write

__all__ = ["make"]

COLUMNS = [
    *("dataset", "metric", "variant", "srcc", "krcc", "plcc", "rmse", "srcc_ci_low", "srcc_ci_high"),
    *("n", "n_excluded", "note"),
]
_CONTENDERS = ("ours", "fidelity", "perceptual")  # the best of these is set in bold
_TYPES = 6  # columns that a page has room for


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``table_3``: correlations -> csv (every data set, and ``<data set>/<type>`` of distortion), md and
    tex (whole data sets; the types' SRCC too, where there is one set with few of them).
    """
    frame = read_table(inputs["correlations"], "correlations")
    tidy = frame[COLUMNS + [name for name in frame.columns if name not in COLUMNS]]
    ran = frame[~_not_run(frame)]
    whole = ran[~ran["dataset"].str.contains("/")]
    if len(whole):
        printed, rules = _pivot(whole, ran)
        notes = [*_notes(whole), *_absent(frame[_not_run(frame)])]
    else:
        printed, rules = _nothing(frame), []
        notes = [
            "No ratings by people ship with the package, and its encoders know rendered scenes, not "
            "photographs; preset local rates 480 photographs."
        ]
    write(
        spec, outputs, tidy=tidy, printed=printed,
        caption="Human image quality: agreement of each metric with people",
        name="table_3", notes=notes, rules=rules,
    )  # fmt: skip


def _not_run(frame: pd.DataFrame) -> pd.Series:
    return frame["note"].fillna("").str.startswith("not run")


def _nothing(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["dataset", "note"]].rename(columns={"dataset": "data set", "note": "state"})


def _pivot(whole: pd.DataFrame, ran: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """A row with the name of each data set, and below it one per metric; and where a group begins."""
    rows: list[dict[str, str]] = []
    rules = []
    for dataset, of_set in whole.groupby("dataset", sort=False):
        types = _types(ran, str(dataset)) if whole["dataset"].nunique() == 1 else []
        primary = "srcc" if of_set["srcc"].notna().any() else "two_afc"
        rules.append(len(rows))
        rows.append({"metric": bold(str(dataset))})
        of_set = of_set.sort_values("class", key=lambda kind: kind.map(list(CLASSES).index), kind="stable")
        contenders = of_set[of_set["class"].isin(_CONTENDERS)]
        best = contenders[primary].round(3).max()
        several = of_set["metric"].duplicated(keep=False)
        kinds = list(of_set["class"])
        for place, (row, more) in enumerate(zip(of_set.to_dict("records"), several, strict=True)):
            if place and kinds[place] != kinds[place - 1]:
                rules.append(len(rows))
            rows.append(_line(row, primary, best, more) | _by_type(ran, row, types))
    return pd.DataFrame(rows).fillna(""), rules


def _line(row: dict[str, Any], primary: str, best: float, several: bool) -> dict[str, str]:
    plain = number(row[primary])
    leads = row["class"] in _CONTENDERS and round(row[primary], 3) == best
    low, high = (number(row[f"{primary}_ci_{end}"]) for end in ("low", "high"))
    named = several or row["metric"] == "best_single_layer"
    return {
        "metric": f"{label(row['metric'])} ({label(row['variant'])})" if named else label(row["metric"]),
        "SRCC" if primary == "srcc" else "2AFC": bold(plain) if leads else plain,
        "95 % interval": NOTHING if low == NOTHING else f"[{low}, {high}]",
        **({key.upper(): number(row[key]) for key in ("krcc", "plcc", "rmse")} if primary == "srcc" else {}),
        "n": f"{row['n']:,}",
    }


def _types(ran: pd.DataFrame, dataset: str) -> list[str]:
    found = [name for name in ran["dataset"].unique() if name.startswith(f"{dataset}/")]
    return found if len(found) <= _TYPES else []


def _by_type(ran: pd.DataFrame, row: dict[str, Any], types: list[str]) -> dict[str, str]:
    own = ran[(ran["metric"] == row["metric"]) & (ran["variant"] == row["variant"])]
    srcc = own.set_index("dataset")["srcc"]
    return {label(name.split("/")[1]): number(srcc.get(name)) for name in types}


def _notes(whole: pd.DataFrame) -> list[str]:
    notes = [
        "SRCC (primary), KRCC (tau-b); PLCC and RMSE (in units of the ratings) after a logistic that never "
        "falls. Scores and ratings are turned so that larger is better: a negative figure is a disagreement. "
        "Intervals over references.",
    ]
    sizes = whole.groupby("dataset", sort=False)[["n", "n_references", "n_excluded"]].max()
    notes += [
        f"{name}: {row['n']:,} images of {row['n_references']} references." for name, row in sizes.iterrows()
    ]
    if (whole["interval"] == "t").any():
        notes.append("Fewer than 30 references: t intervals with the jackknife's standard error.")
    notes += [
        f"{row.dataset}, {label(row.metric)}: {row.n_excluded} without a score are left out."
        for row in whole[whole["n_excluded"] > 0].itertuples()
    ]
    notes += [
        f"{row.dataset}, {label(row.metric)}: {row.note}." for row in whole[whole["note"] != ""].itertuples()
    ]
    return notes


def _absent(missing: pd.DataFrame) -> list[str]:
    """Metrics that did not run one by one; data sets by name, since the csv says what each of them needs."""
    asked = missing["class"] != "ours"
    notes = [f"{row.dataset}, {label(row.metric)}: {row.note}." for row in missing[asked].itertuples()]
    others = ", ".join(missing.loc[~asked, "dataset"])
    return [*notes, f"Not run: {others}; docs/human_iqa.md says how to get them."] if others else notes
