"""How steps grow with the data: `make bench-scale`. Preset `ci` with 1, 4 and 16 times its references.

Runs in a copy of the working tree. Prints processor seconds and peak memory of each step, by its provenance:
seconds should grow as the data do, memory should not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

from conftest import ROOT, Project, copy_project
from mlclipsim.provenance import lineage

SCALED = ("pcmp_train", "pcmp_val", "pcmp_test")
STEPS = ("references", "pcmp_images", "pcmp_pairs", "predictions", "votes", "similarities", "baselines",
         "fit", "clip_scores", "preference")  # fmt: skip
MEASURED = ("cpu_seconds", "peak_mib")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--cores", default="2")
    arguments = parser.parse_args()
    roles = yaml.safe_load((ROOT / "config/presets/ci.yaml").read_text())["references"]["roles"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        project = copy_project(Path(folder) / "project")
        for factor in arguments.factors:
            grown = {role: count * factor if role in SCALED else count for role, count in roles.items()}
            rows += run(project, factor, grown, arguments.cores)
    table = pd.DataFrame(rows).pivot(index="step", columns="factor").reindex(STEPS)
    print(table.to_string(float_format="%.1f"))
    return 0


def run(project: Project, factor: int, roles: dict[str, int], cores: str) -> list[dict[str, object]]:
    name = f"times-{factor}"
    config = project.root / f"{name}.yaml"
    config.write_text(yaml.safe_dump({"preset": "ci", "run": name, "references": {"roles": roles}}))
    print(f"{name}: {sum(roles[role] for role in SCALED)} references", file=sys.stderr)
    project.snakemake("table_2", "--cores", cores, "--configfile", str(config))
    _, _, records = lineage(project.root / f"results/ci/{name}/tables/table_2.csv")
    return [
        {"step": step, "factor": factor, **{key: record.measured[key] for key in MEASURED}}
        for record in records
        if (step := record.made_from["step"]) in STEPS
    ]


if __name__ == "__main__":
    sys.exit(main())
