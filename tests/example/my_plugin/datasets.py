import json
from typing import Any

from mlclipsim.datasets.opinions import Opinions, Rated
from mlclipsim.places import locate


def sketches(entry: dict[str, Any]) -> Opinions:
    """`ratings.jsonl`: an object per image with `file`, `original`, `kind` and `mos`."""
    folder = locate(entry["path"])
    lines = (folder / "ratings.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return Opinions(
        [
            Rated(
                image_id=row["file"],
                reference_id=row["original"],
                distortion=row["kind"],
                reference=folder / row["original"],
                distorted=folder / row["file"],
                rating=float(row["mos"]),
            )
            for row in rows
        ]
    )
