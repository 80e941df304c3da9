"""A sheet of a few pairs of a published PCMP: reference, A, B, and who voted for which."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mlclipsim.artifacts import ArtifactError, atomic
from mlclipsim.images import decode_image
from mlclipsim.pcmp import release
from mlclipsim.pcmp.release import Description, schema, walk
from mlclipsim.randomness import derive_seed
from mlclipsim.report.style import VOTER_COLOURS, label
from mlclipsim.usage import UsageError

__all__ = ["choose", "draw"]

_MM = 1 / 25.4  # inches
_WIDTH, _TOP, _BOTTOM = 180.0, 16.0, 12.0  # mm
_CELL, _GAP, _HEAD, _NAMES, _VOTE = 34.0, 2.5, 6.0, 25.0, 3.5
_LATER = "0.35"  # colour of voters of later versions
_FORMATS = (".png", ".pdf", ".svg")


def draw(folder: Path | str, output: Path | str, *, n_pairs: int = 6, seed: int = 0) -> list[str]:
    """Draw a sheet to ``output`` (png, pdf or svg) and return the ids of its pairs; see :func:`choose`.

    Raises:
        ValueError: another format, or no pair asked for.
        ArtifactError: no data set, or one without images.
    """
    folder, output = Path(folder), Path(output)
    if output.suffix not in _FORMATS:
        raise UsageError(f"expected a file ending in {', '.join(_FORMATS)}, got {output.name}; rename it")
    if n_pairs < 1:
        raise UsageError(f"expected at least one pair, got {n_pairs}; 6 is usual")
    description = Description.read(folder)
    pairs = choose(folder, description, n_pairs, seed)
    pictures = _pictures(folder, description, pairs)
    votes = _votes(folder, {pair["pair_id"] for pair in pairs})
    voters = _voters(folder, description)
    row = _HEAD + max(_CELL + 3, _VOTE * len(voters) + 6) + 3
    settings: Any = {"font.family": "DejaVu Sans", "font.size": 7, "svg.hashsalt": "mlclipsim"}
    with matplotlib.rc_context(settings):
        height = _TOP + row * len(pairs) + _BOTTOM
        figure = Figure(figsize=(_WIDTH * _MM, height * _MM))
        _head(figure, description, height)
        for number, pair in enumerate(pairs):
            top = height - _TOP - row * number - _HEAD
            _draw_pair(
                figure, (height, top), pair, pictures, votes[pair["pair_id"]], voters, len(description.folds)
            )
        _legend(figure, height, any(group == "later" for _, group in voters))
        nothing: Any = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        with atomic(output) as temporary:
            figure.savefig(temporary, format=output.suffix[1:], dpi=200, metadata=nothing[output.suffix])
    return [pair["pair_id"] for pair in pairs]


def choose(folder: Path, description: Description, n_pairs: int, seed: int) -> list[dict[str, Any]]:
    """Pairs drawn by lot, not by what pleases: of the test split where there is one, no reference and no two
    distortions twice while there are others.
    """
    names = schema("pairs", len(description.folds)).names
    test = "pcmp_test" if description.counts["pairs"].get("pcmp_test") else None
    rows = walk(folder / "pairs.parquet", schema("pairs", len(description.folds)))
    pairs = (dict(zip(names, row, strict=True)) for row in rows)
    drawn = heapq.nsmallest(
        40 * n_pairs,
        (pair for pair in pairs if test is None or pair["role"] == test),
        key=lambda pair: derive_seed(seed, "sheet", pair["pair_id"]),
    )
    chosen: list[dict[str, Any]] = []
    seen: set[Any] = set()
    again = []
    for pair in drawn:
        marks = {pair["reference_id"], frozenset((pair["family_a"], pair["family_b"]))}
        if marks & seen:
            again.append(pair)
        else:
            chosen.append(pair)
            seen |= marks
    return (chosen + again)[:n_pairs]


def _pictures(folder: Path, description: Description, pairs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Image id -> pixels, of what the pairs show."""
    wanted = {pair[key] for pair in pairs for key in ("reference_id", "image_a", "image_b")}
    found = {}
    for name in release.shard_names(description):
        if not (folder / name).is_file():
            raise ArtifactError(
                f"{folder} has no {name}; build it with `mlclipsim pcmp verify --rebuild` first"
            )
        filters = [("image_id", "in", sorted(wanted))]
        table = pq.read_table(folder / name, columns=["image_id", "image"], filters=filters)
        for row in table.to_pylist():
            found[row["image_id"]] = decode_image(row["image"]["bytes"])
    return found


def _votes(folder: Path, wanted: set[str]) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {pair: {} for pair in wanted}
    for pair, voter, vote in walk(folder / "votes.parquet", schema("votes")):
        if pair in wanted:
            found[pair][voter] = vote
    return found


def _voters(folder: Path, description: Description) -> list[tuple[str, str]]:
    """(voter, ``seen | held_out | later``), in this order; in several folds, as the first one has it."""
    first: dict[str, list[str]] = description.folds[0] if description.folds else {}
    names = [name for (name,) in walk(folder / "voters.parquet", schema("voters"), ("voter",))]
    group = {name: next((g for g in release.GROUPS if name in first.get(g, ())), "later") for name in names}
    order = [*release.GROUPS, "later"]
    return sorted(group.items(), key=lambda item: (order.index(item[1]), item[0]))


def _head(figure: Figure, description: Description, height: float) -> None:
    figure.text(
        4 / _WIDTH,
        1 - 6.5 / height,
        f"{description.name} {description.version}",
        fontsize=11,
        fontweight="bold",
        va="center",
    )
    text = (
        "pairs at equal PSNR, drawn by lot: which one leaves a network's prediction closer to the reference?"
    )
    figure.text(4 / _WIDTH, 1 - 11.5 / height, text, fontsize=7, color="0.35", va="center")


def _axes(figure: Figure, height: float, x: float, top: float, width: float, tall: float) -> Axes:
    """Axes whose upper left corner is at (x, top) mm from the page's lower left."""
    return figure.add_axes((x / _WIDTH, (top - tall) / height, width / _WIDTH, tall / height))


def _draw_pair(
    figure: Figure,
    place: tuple[float, float],
    pair: dict[str, Any],
    pictures: dict[str, np.ndarray],
    votes: dict[str, float | None],
    voters: list[tuple[str, str]],
    n_folds: int,
) -> None:
    height, top = place
    titles = {
        "reference_id": "reference",
        "image_a": f"A  {label(pair['family_a'])}",
        "image_b": f"B  {label(pair['family_b'])}",
    }
    for column, (key, title) in enumerate(titles.items()):
        axes = _axes(figure, height, 4 + column * (_CELL + _GAP), top, _CELL, _CELL)
        axes.imshow(pictures[pair[key]], interpolation="none")
        axes.set_axis_off()
        axes.set_title(
            title, fontsize=7.5, pad=2.5, loc="left", fontweight="normal" if column == 0 else "bold"
        )
        if column:
            level = f"{pair['psnr_a_db' if column == 1 else 'psnr_b_db']:.2f} dB"
            axes.text(0, -0.02, level, transform=axes.transAxes, va="top", fontsize=6.5, color="0.35")
    left = 4 + 3 * (_CELL + _GAP) + _NAMES
    tall = _VOTE * len(voters) + 6
    _draw_votes(_axes(figure, height, left, top, _WIDTH - left - 10, tall), pair, votes, voters, n_folds)


def _draw_votes(
    axes: Axes,
    pair: dict[str, Any],
    votes: dict[str, float | None],
    voters: list[tuple[str, str]],
    n_folds: int,
) -> None:
    """A row per voter with its vote between B (left, 0) and A (right, 1), and the soft labels below."""
    last = len(voters)
    axes.set_xlim(1.12, -0.12)  # A is on the left, as its image is
    axes.set_ylim(last + 1.1, -0.6)
    for x in (0, 0.5, 1):
        axes.axvline(x, ymin=1.7 / (last + 1.7), color="0.88", linewidth=0.8, zorder=0)
    for row, (voter, group) in enumerate(voters):
        colour = VOTER_COLOURS.get(group, _LATER)
        vote = votes.get(voter)
        if vote is None:
            axes.text(0.5, row, "abstains", ha="center", va="center", fontsize=6, color="0.5", style="italic")
        else:
            axes.plot(vote, row, "o", color=colour, markersize=5.5, markeredgewidth=0)
    axes.set_yticks([*range(last), last + 0.3], [*(name for name, _ in voters), "soft label"], fontsize=6.2)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_xticks([1, 0.5, 0], ["A", "tie", "B"], fontsize=7)
    axes.tick_params(length=0, pad=2)
    axes.xaxis.tick_top()
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.axhline(last - 0.4, color="0.6", linewidth=0.6)
    _draw_labels(axes, pair, last, n_folds)


def _draw_labels(axes: Axes, pair: dict[str, Any], last: int, n_folds: int) -> None:
    """Share of votes for A, mean over the folds: a mark on a line from A to B, and the number beside."""
    axes.axhline(last + 0.3, xmin=0.12 / 1.24, xmax=1.12 / 1.24, color="0.75", linewidth=0.8, zorder=0)
    for group in release.GROUPS:
        values = [pair[f"label_{group}_{fold}"] for fold in range(n_folds)]
        known = [value for value in values if value is not None]
        if not known:
            continue
        mean = sum(known) / len(known)
        # From above and from below, so that both are seen where they are equal.
        marker, shift = ("v", -0.3) if group == "seen" else ("^", 0.3)
        colour = VOTER_COLOURS[group]
        axes.plot(mean, last + 0.3 + shift, marker, color=colour, markersize=5, markeredgewidth=0)
        axes.text(-0.15, last + 0.3 + 1.5 * shift, f"{mean:.2f}", color=colour, fontsize=6.2, va="center")


def _legend(figure: Figure, height: float, later: bool) -> None:
    entries = [("o", VOTER_COLOURS[group], label(group)) for group in release.GROUPS]
    entries += [("o", _LATER, "voters of later versions")] if later else []
    entries += [
        ("v", VOTER_COLOURS["seen"], "soft label (share for A), seen"),
        ("^", VOTER_COLOURS["held_out"], "soft label, held-out"),
    ]
    handles = [Line2D([], [], marker=m, color=c, linestyle="", markersize=5, label=t) for m, c, t in entries]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(2 / _WIDTH, 1.5 / height),
        ncols=len(handles),
        frameon=False,
        fontsize=7,
        handletextpad=0.2,
        columnspacing=1.6,
    )
