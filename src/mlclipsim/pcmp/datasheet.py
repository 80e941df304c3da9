"""The datasheet of a published PCMP: where it comes from, how it was labelled, what it cannot tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mlclipsim.distortions import FAMILIES
from mlclipsim.pcmp.release import Description

__all__ = ["datasheet"]

_CAUSES = {
    "unattainable_low": "even the strongest distortion leaves a higher PSNR",
    "unattainable_high": "even the mildest distortion falls below",
    "unattainable_step": "the attained values lie on either side of the target, too far away",
    "unmatched_pair": "two images of a block differ in PSNR by more than the tolerance",
    "too_few_votes": "too few voters or families of voters voted on the pair",
}
_READING = """\
```python
import io; import pandas as pd; from PIL import Image
pairs, images = pd.read_parquet("pairs.parquet"), pd.read_parquet("images-00000.parquet")
picture = Image.open(io.BytesIO(images["image"][0]["bytes"]))
```

```python
from datasets import load_dataset
images = load_dataset("parquet", data_files="images-*.parquet", split="train")
picture = images[0]["image"]
```
"""
_LIMITS = """\
- A label says which image leaves the predictions of *these* networks closer to those on the reference. It is
  no human judgement, and no statement about networks of other kinds or tasks.
- No ground truth enters a label: where a network misreads the reference, its vote says how far it keeps
  misreading it.
- Pairs are matched in PSNR. The set tells nothing about images of different PSNR.
- The pairs of one reference share its content: intervals must be clustered by reference, and splits go by
  `role`.
- Low PSNR is out of reach for some distortions on some images, so the mix of families differs from level to
  level; the counts of what was dropped are below.
- Pixels are drawn again bit for bit by the library versions named below on a machine of the same kind.
  Elsewhere the last bit of a float may round otherwise: `mlclipsim pcmp verify` says so and never accepts
  other pixels.
"""


def datasheet(description: Description, voters: Iterable[tuple], drops: Iterable[tuple]) -> str:
    """Markdown, made from the description and the rows of ``voters`` and ``drops`` alone."""
    config, counts = description.config, description.counts
    source = config.get("references", {}).get("references", {}).get("dataset", {})
    size = config.get("references", {}).get("references", {}).get("size")
    pcmp = config.get("pcmp_pairs", {}).get("pcmp", {})
    votes = config.get("votes", {}).get("votes", {})
    parts = [
        f"# {description.name} {description.version}\n",
        "Pairs of distorted images of one reference with equal PSNR, labelled by the consistency votes of "
        "several "
        "pretrained networks: which of the two leaves their predictions closer to those on the reference?\n",
        "## Sources and licences\n",
        _table(
            ("", ""),
            [
                ("photographs", source.get("source")),
                ("their licence", source.get("licence")),
                ("cite", source.get("citation")),
                ("references", f"{size} x {size} px, 8-bit RGB" if size else None),
                ("made by", f"preset {description.preset}, seed {description.seed}"),
                ("images", _images(description)),
            ],
        ),
        f"The {counts['photographs']:,} photographs of `partition.parquet` have one role each, "
        "near-duplicates merged "
        "before: nothing is learned from and judged on.\n",
        "## What is in it\n",
        _table(
            ("role", "references", "distorted images", "pairs", "pairs without a label of seen voters"),
            [
                (role, *(f"{counts[key].get(role, 0):,}" for key in _BY_ROLE))
                for role in sorted(counts["references"])
            ],
        ),
        _table(
            ("distortion", "images", "parameter", "follows"),
            [(name, f"{number:,}", *_family(name)) for name, number in sorted(counts["families"].items())],
        ),
        _table(
            ("PSNR target (dB)", "images"),
            [(name, f"{n:,}") for name, n in sorted(counts["targets_db"].items(), key=lambda i: float(i[0]))],
        ),
        f"Matched to {_value(pcmp, 'tolerance_db')} dB by root finding; two images are a pair within "
        f"{_value(pcmp, 'pair_tolerance_db')} dB. The side (A or B) is drawn.\n",
        "## How it was labelled\n",
        "Each network predicts on the reference, on A and on B; divergence "
        f"`{_value(votes, 'divergence')}`. A vote is 1 "
        "where A is closer, 0 where B is, 1/2 where the two differ by less than the tie rule says "
        f"(`tie_log` {_value(votes, 'tie_log')}, `epsilon` {_value(votes, 'epsilon')}, `tie_bounded` "
        f"{_value(votes, 'tie_bounded')}), empty where the network abstains. A label is the mean over "
        "tasks of the mean "
        f"over architecture families of the mean over voters; it needs {_value(votes, 'min_families')} "
        "families and, of "
        f"seen voters, {_value(votes, 'min_votes')} votes.\n",
        _table(
            (
                "voter",
                "task",
                "family",
                "clean accuracy",
                "n",
                "temperature",
                "since",
                "votes",
                "ties",
                "abstained",
            ),
            [(*_voter(row), *_votes(counts["votes"].get(row[0], {}))) for row in voters],
        ),
        _table(
            ("fold", "seen (train)", "held out (judge)"),
            [
                (str(number), ", ".join(fold["seen"]), ", ".join(fold["held_out"]))
                for number, fold in enumerate(description.folds)
            ],
        ),
        "The labels in `pairs.parquet` are those of the folds. Voters that a later version brought are in "
        "`votes.parquet` and `voters.parquet` only.\n",
        "## Known limits\n",
        _LIMITS,
        "What was attempted and not kept:\n",
        _table(
            ("cause", "meaning", "count"),
            [(cause, _CAUSES.get(cause, ""), f"{n:,}") for cause, n in _by_cause(drops)],
        ),
        "## What drew the pixels\n",
        _table(("library", "version"), [(k, v) for k, v in description.libraries.items()]),
        "## Reading, checking, building anew\n",
        _READING,
        "`sha256sum --check checksums.sha256` finds damage; `mlclipsim pcmp verify .` also checks columns, "
        "ids and every "
        "pixel, and with `--rebuild --references ...` draws broken or absent shards again from "
        "`recipe.parquet`.\n",
        "## Versions\n",
        _table(("version", "change"), [(h["version"], h["change"]) for h in description.history]),
    ]
    return "\n".join(parts)


_BY_ROLE = ("references", "images", "pairs", "unlabelled")


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        "| " + " | ".join("-" if cell is None or cell == "" else str(cell) for cell in row) + " |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _images(description: Description) -> str:
    if description.includes_images:
        return "included, lossless WebP"
    return "left out; built from the photographs and recipe.parquet by `mlclipsim pcmp verify --rebuild`"


def _value(settings: dict[str, Any], key: str) -> str:
    return f"{settings[key]:g}" if isinstance(settings.get(key), float) else str(settings.get(key, "?"))


def _family(name: str) -> tuple[str, str]:
    entry = FAMILIES.get(name)
    return (
        (f"{entry.quantity} ({entry.unit})" if entry.unit else entry.quantity, entry.source)
        if entry
        else ("", "")
    )


def _voter(row: tuple) -> tuple[str, ...]:
    voter, task, family, accuracy, n_clean, temperature, _, since = row
    accuracy, temperature = (  # a network of another task may have neither
        "" if value is None else f"{value:.{digits}f}" for value, digits in ((accuracy, 3), (temperature, 2))
    )
    return voter, task, family, accuracy, str(n_clean), temperature, since


def _votes(counted: dict[str, int]) -> tuple[str, str, str]:
    cast, ties, abstained = (counted.get(key, 0) for key in ("cast", "ties", "abstained"))
    return f"{cast:,}", f"{ties:,}", f"{abstained:,}"


def _by_cause(drops: Iterable[tuple]) -> list[tuple[str, int]]:
    total: dict[str, int] = {}
    for _, _, _, cause, count, *_ in drops:
        total[cause] = total.get(cause, 0) + count
    return sorted(total.items())
