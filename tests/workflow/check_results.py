"""Compare a run's tables and claims with the snapshot in docs/reference/<preset>: `make check-results`.

Equal bytes are expected on the machine and with the lock that made the snapshot. Elsewhere the last digits
may differ: numbers of a table are then compared with a tolerance, and the largest difference is printed.
Columns of table_7 that are measured, not computed, are left out.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path

from mlclipsim.report.tables.table_7 import MEASURED

TOLERANCE = 1e-6  # relative and absolute: rounding of another processor, not another result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--run", default="default")
    arguments = parser.parse_args()
    reference = Path("docs/reference") / arguments.preset
    results = Path("results") / arguments.preset / arguments.run
    files = sorted(
        path
        for path in reference.rglob("*")
        if path.suffix in {".csv", ".json"} and "provenance" not in path.parts
    )
    if not files:
        print(f"check-results: {reference} holds no tables to compare with", file=sys.stderr)
        return 1
    verdicts = {path: compare(path, results / path.relative_to(reference)) for path in files}
    for path, (good, text) in verdicts.items():
        print(f"{'ok ' if good else 'DIFFERS'} {path.relative_to(reference)}: {text}")
    return 0 if all(good for good, _ in verdicts.values()) else 1


def compare(expected: Path, actual: Path) -> tuple[bool, str]:
    """Whether two result files agree, and how well."""
    if not actual.is_file():
        return False, f"{actual} is not there"
    if expected.read_bytes() == actual.read_bytes():
        return True, "same bytes"
    if expected.suffix != ".csv":
        return False, "other content"
    tables = [repeatable(path) for path in (expected, actual)]
    if [len(row) for row in tables[0]] != [len(row) for row in tables[1]]:
        return False, f"{len(tables[0]) - 1} rows expected, {len(tables[1]) - 1} found"
    largest = 0.0
    for number, (left, right) in enumerate(zip(*tables, strict=True), start=1):
        for a, b in zip(left, right, strict=True):
            if a == b:
                continue
            try:
                x, y = float(a), float(b)
            except ValueError:
                return False, f"line {number}: {a!r} expected, {b!r} found"
            if not math.isclose(x, y, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                return False, f"line {number}: {a} expected, {b} found"
            largest = max(largest, abs(x - y))
    return True, f"same up to {largest:.1g}"


def repeatable(path: Path) -> list[list[str]]:
    """The cells of a csv, its head first, without the columns that no other run can repeat."""
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    kept = [place for place, name in enumerate(rows[0]) if name not in MEASURED]
    return [[row[place] for place in kept] for row in rows]


if __name__ == "__main__":
    sys.exit(main())
