"""The workflow's graph of rules, laid out in rows from what is given down to what is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx as nx

__all__ = ["Box", "Drawing", "draw", "of_rules"]

_WIDTH, _HEIGHT = 104, 26  # px of a box
_ACROSS, _DOWN = 10, 34  # px between boxes
_SWEEPS = 8  # of the ordering within rows

Node = str | tuple[str, int]  # a rule; or where connections from a rule pass a row (its number)


@dataclass(frozen=True)
class Box:
    """A rule and the upper left corner of its box, px."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """Boxes of one size, and connections as SVG paths."""

    width: float
    height: float
    box_width: float
    box_height: float
    boxes: list[Box]
    paths: list[str]


def of_rules(jobs: list[dict[str, Any]]) -> nx.DiGraph:
    """Which rule reads what which rule made.

    Args:
        jobs: as in the run's record: ``rule``, ``inputs``, ``outputs``.
    """
    maker = {path: job["rule"] for job in jobs for path in job["outputs"]}
    graph = nx.DiGraph()
    graph.add_nodes_from(sorted({job["rule"] for job in jobs}))
    read = {(maker[path], job["rule"]) for job in jobs for path in job["inputs"] if path in maker}
    graph.add_edges_from(sorted((source, target) for source, target in read if source != target))
    return graph


def draw(graph: nx.DiGraph) -> Drawing:
    """Lay out an acyclic graph (Sugiyama, Tagawa and Toda 1981). A connection that others imply is left out:
    what stands here is what must come before what.
    """
    reduced = nx.transitive_reduction(graph)
    rows: list[list[Node]] = [sorted(row) for row in nx.topological_generations(reduced)]
    layered, routes = _with_bends(reduced, rows)
    for sweep in range(_SWEEPS):  # barycentres, back and forth
        towards = layered.pred if sweep % 2 == 0 else layered.succ
        rank = {node: _from_middle(row, node) for row in rows for node in row}
        for row in rows:
            row.sort(key=lambda node: _mean([rank[other] for other in towards[node]], rank[node]))
    widths = [sum(_width(node) + _ACROSS for node in row) - _ACROSS for row in rows]
    widest = max(widths, default=0)
    corner: dict[Node, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        x = (widest - widths[number]) / 2
        for node in row:
            corner[node] = (x, number * (_HEIGHT + _DOWN))
            x += _width(node) + _ACROSS
    return Drawing(
        width=widest,
        height=max(0, len(rows) * (_HEIGHT + _DOWN) - _DOWN),
        box_width=_WIDTH,
        box_height=_HEIGHT,
        boxes=[Box(node, *corner[node]) for row in rows for node in row if isinstance(node, str)],
        paths=[_path(route, corner) for route in routes],
    )


def _with_bends(graph: nx.DiGraph, rows: list[list[Node]]) -> tuple[nx.DiGraph, list[list[Node]]]:
    """The graph with an invisible node wherever connections from a rule pass a row, so that they get room
    there, one for all: added to ``rows``. And every connection as the nodes that it goes through.
    """
    level = {node: number for number, row in enumerate(rows) for node in row}
    layered, routes = nx.DiGraph(), []
    layered.add_nodes_from(graph)
    for source, target in sorted(graph.edges):
        bends = [(source, number) for number in range(level[source] + 1, level[target])]
        for bend in bends:
            if bend not in layered:
                rows[bend[1]].append(bend)
        route = [source, *bends, target]
        nx.add_path(layered, route)
        routes.append(route)
    return layered, routes


def _width(node: Node) -> float:
    return _WIDTH if isinstance(node, str) else 0


def _from_middle(row: list[Node], node: Node) -> float:
    """Where a node stands in its row, 0 in the middle: rows of any length compare."""
    return row.index(node) - (len(row) - 1) / 2


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _path(route: list[Node], corner: dict[Node, tuple[float, float]]) -> str:
    """From the foot of the first box to the head of the last, straight down through the rows between."""
    x, y = corner[route[0]][0] + _WIDTH / 2, corner[route[0]][1] + _HEIGHT
    words = [f"M{x:g} {y:g}"]
    for node in route[1:]:
        to_x, to_y = corner[node][0] + _width(node) / 2, corner[node][1]
        words.append(f"C{x:g} {y + _DOWN / 2:g} {to_x:g} {to_y - _DOWN / 2:g} {to_x:g} {to_y:g}")
        if node != route[-1]:
            to_y += _HEIGHT
            words.append(f"V{to_y:g}")
        x, y = to_x, to_y
    return "".join(words)
