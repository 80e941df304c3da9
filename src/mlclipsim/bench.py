"""A callable on the test pairs of a finished run: its rows of table_2, and its tests against all that ran.

``mlclipsim bench my_module:metric``. The run's records say which images, pairs, labels and settings its own
steps had, and nothing is judged unless these files are still the same. The newcomer then goes through the
code of the steps ``baselines``, ``preference`` and ``severity``, so its rows are those that it would have as
a baseline of that run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from mlclipsim import baselines, plugins, provenance
from mlclipsim.artifacts import ArtifactError, read_table, sha256_of
from mlclipsim.benchmarks import machine_preference, severity
from mlclipsim.benchmarks.machine_preference import PRIMARY_SLICE
from mlclipsim.listing import as_text
from mlclipsim.provenance import Record
from mlclipsim.report.style import label
from mlclipsim.report.tables import table_2
from mlclipsim.report.tables.writer import number, write_csv
from mlclipsim.usage import UsageError

__all__ = ["Verdict", "judge"]

_CLASS = "newcomer"  # in the column `class`: no claim is about it


@dataclass(frozen=True)
class Verdict:
    """What became of a newcomer.

    Attributes:
        metric: as it was named, ``module:name``.
        pairs: the folder of the pairs, which has their digest in its name.
        rows: its rows of table_2, in its columns: every slice, both groups of voters, and severity.
        standing: the entrants' own rows of the primary slice.
        comparisons: the newcomer less each entrant, paired, in the primary slice, with Holm's correction.
        n_images, n_lost: scored images, and those of them whose score is not a number.
    """

    metric: str
    pairs: Path
    rows: pd.DataFrame
    standing: pd.DataFrame
    comparisons: pd.DataFrame
    n_images: int
    n_lost: int

    def as_text(self) -> str:
        """For a terminal: its figures by slice, then its tests against the others."""
        own = self.rows[(self.rows["slice"] == PRIMARY_SLICE) & (self.rows["voters"] == "held_out")].iloc[0]
        parts = [
            f"{self.metric} on {self.pairs.name}: {own['n_pairs']:,} pairs of {own['n_references']:,} "
            "references under macro",
            as_text(self._slices()),
            f"{self.metric} less each metric of the run (macro, held-out voters, paired, Holm over all)",
            as_text(self._tests()),
        ]
        if self.n_lost:
            parts.append(
                f"{self.n_lost:,} of {self.n_images:,} scores are not numbers; {own['n_unscored']:,} pairs "
                "under macro are left out."
            )
        if own["ci_high"] < 0.5:
            parts.append(
                "It sides against the machines: if its smaller values are better, say --lower-is-better."
            )
        return "\n\n".join(parts)

    def _slices(self) -> list[tuple[str, ...]]:
        rows = self.rows.set_index(["voters", "slice"])
        table: list[tuple[str, ...]] = [("slice", "2AFC", "95 % interval", "seen voters", "pairs")]
        for part, at in rows.loc["held_out"].iterrows():
            seen = rows["estimate"].get(("seen", part))
            table.append((part, number(at["estimate"]), _interval(at), number(seen), f"{at['n_pairs']:,}"))
        if ("none", PRIMARY_SLICE) in rows.index:  # severity, where PCMP has several levels of PSNR
            at = rows.loc["none", PRIMARY_SLICE]
            table.append(("severity (tau)", number(at["estimate"]), _interval(at), "", f"{at['n_pairs']:,}"))
        return table

    def _tests(self) -> list[tuple[str, ...]]:
        held_out = [frame[frame["voters"] == "held_out"] for frame in (self.standing, self.comparisons)]
        both = held_out[1].merge(held_out[0][["metric", "variant", "estimate"]], on=["metric", "variant"])
        several = both["metric"].duplicated(keep=False)
        both["name"] = both["metric"].map(label) + (" (" + both["variant"] + ")").where(several, "")
        head = ("metric", "2AFC", "difference", "95 % interval", "p (Holm)", "")
        table: list[tuple[str, ...]] = [head]
        for row in both.sort_values("estimate", ascending=False, kind="stable").to_dict("records"):
            table.append(
                (
                    row["name"],
                    number(row["estimate"]),
                    number(row["difference"], signed=True),
                    _interval(row, signed=True),
                    "<.001" if row["p_holm"] < 0.001 else number(row["p_holm"]),
                    _outcome(row),
                )
            )
        return table


def _interval(row: Any, *, signed: bool = False) -> str:
    return f"[{number(row['ci_low'], signed=signed)}, {number(row['ci_high'], signed=signed)}]"


def _outcome(row: dict[str, Any]) -> str:
    if not row["p_holm"] < 0.05:
        return "no difference shown"
    return "better" if row["difference"] > 0 else "worse"


def judge(
    named: str, run: Path, output: Path, *, higher_is_better: bool = True, batch_size: int | None = None
) -> Verdict:
    """Score ``named`` on the test images of ``run`` and judge it beside the run's own metrics.

    Writes ``table_2.csv``, ``comparisons.csv`` and ``scores.parquet`` to ``output``, with a record of where
    they come from.

    Args:
        named: ``module:name`` of a function, or of a class that gives one: (reference, distorted), float
            ``(B, 3, H, W)`` in [0, 1] each -> ``(B,)``.
        run: ``results/<preset>/<run>``.
        batch_size: images of one reference at a time; None: as the run's baselines had.

    Raises:
        UsageError: no such callable, or the working directory is not the one that holds ``results``.
        ArtifactError: the run is not finished, or its files are others than its own metrics were judged on.
        ValueError: what it returns is not one score per image.
    """
    started = time.time()
    entry = plugins.stamp(
        "metrics",
        {"library": "plugin", "function": named, "higher_is_better": higher_is_better, "class": _CLASS},
    )
    entry["variant"] = f"sha256:{entry['plugin']['sha256'][:8]}"
    plugins.load(named)  # before the run's files are hashed
    found = provenance.lineage(run)
    if found.base != Path.cwd():  # records name files from there, this one's too
        raise UsageError(f"{run} is of another project; run this in its folder, {found.base}")
    records = {record.step: record for record in found.records}
    contest, scored = (_inputs(step, records, run) for step in ("preference", "baselines"))

    read = records["baselines"].made_from["spec"]
    spec = {
        "metrics": {named: entry},
        "roles": read["roles"],
        "batch_size": batch_size or read["batch_size"],
        "threads": 1,
    }
    outputs = {
        "table_2": output / "table_2.csv",
        "comparisons": output / "comparisons.csv",
        "scores": output / "scores.parquet",
    }
    baselines.score(spec, scored, {"scores": outputs["scores"]})
    scores = read_table(outputs["scores"], "scores")["score"]

    settings = records["preference"].made_from["spec"]
    own, standing, comparisons = machine_preference.challenge(settings, contest, outputs["scores"])
    with TemporaryDirectory() as folder:
        levels = Path(folder) / "severity.parquet"
        inputs = {"images": scored["images"], "scores": [outputs["scores"]]}
        severity.evaluate(settings, inputs, {"severity": levels})
        rows = table_2.of_pcmp(own, read_table(levels, "preference"))
    rows = rows[rows["metric"] == named]  # without severity's coins
    write_csv(outputs["table_2"], rows)
    write_csv(outputs["comparisons"], comparisons.drop(columns="without_voter_family"))
    provenance.write(
        provenance.beside(outputs),
        "bench",
        settings | spec,
        {**contest, **scored},
        outputs,
        started=started,
    )
    pairs = contest["pairs"].parent
    return Verdict(named, pairs, rows, standing, comparisons, len(scores), int(scores.isna().sum()))


def _inputs(step: str, records: dict[str, Record], run: Path) -> dict[str, Any]:
    """What a step of the run read, by name, if it still is that."""
    if step not in records:
        raise ArtifactError(
            f"{run} has no record of its step {step}, which metrics are judged by; finish that run first: "
            f"snakemake table_2 --cores all --config preset={run.parent.name}, and its other settings"
        )
    inputs: dict[str, Any] = {}
    for name, files in records[step].made_from["inputs"].items():
        paths = [Path(file) for file in files]
        for path, sha256 in zip(paths, files.values(), strict=True):
            if not path.is_file() or sha256_of(path) != sha256:
                raise ArtifactError(
                    f"{path} is not what the metrics of {run} were judged on; run the workflow again"
                )
        inputs[name] = paths if len(paths) > 1 else paths[0]
    return inputs
