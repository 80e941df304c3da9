"""The workflow's graph of rules, laid out in columns from what is given to what is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx as nx

__all__ = ["Box", "Drawing", "draw", "of_rules"]

_WIDTH, _HEIGHT = 128, 26  # px of a box
_ACROSS, _DOWN = 46, 12  # px between boxes
_SWEEPS = 8  # of the ordering within columns


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
    columns = [list(sorted(column)) for column in nx.topological_generations(reduced)]
    layered, routes = _with_bends(reduced, columns)
    for sweep in range(_SWEEPS):  # barycentres, back and forth
        towards = layered.pred if sweep % 2 == 0 else layered.succ
        rank = {node: _from_middle(column, node) for column in columns for node in column}
        for column in columns:
            column.sort(key=lambda node: _mean([rank[other] for other in towards[node]], rank[node]))
    heights = [sum(_height(node) + _DOWN for node in column) - _DOWN for column in columns]
    tallest = max(heights, default=0)
    corner = {}
    for number, column in enumerate(columns):
        y = (tallest - heights[number]) / 2
        for node in column:
            corner[node] = (number * (_WIDTH + _ACROSS), y)
            y += _height(node) + _DOWN
    return Drawing(
        width=max(0, len(columns) * (_WIDTH + _ACROSS) - _ACROSS),
        height=tallest,
        box_width=_WIDTH,
        box_height=_HEIGHT,
        boxes=[Box(node, *corner[node]) for column in columns for node in column if node in reduced],
        paths=[_path(route, corner) for route in routes],
    )


def _with_bends(graph: nx.DiGraph, columns: list[list[Any]]) -> tuple[nx.DiGraph, list[list[Any]]]:
    """The graph with an invisible node wherever a connection passes a column, so that it gets room there:
    added to ``columns``. And every connection as the nodes that it goes through.
    """
    level = {node: number for number, column in enumerate(columns) for node in column}
    layered, routes = nx.DiGraph(), []
    layered.add_nodes_from(graph)
    for source, target in sorted(graph.edges):
        between = range(level[source] + 1, level[target])
        route = [source, *((source, target, number) for number in between), target]
        for number in between:
            columns[number].append((source, target, number))
        nx.add_path(layered, route)
        routes.append(route)
    return layered, routes


def _height(node: Any) -> float:
    return _HEIGHT if isinstance(node, str) else 0


def _from_middle(column: list[Any], node: Any) -> float:
    """Where a node stands in its column, 0 in the middle: columns of any length compare."""
    return column.index(node) - (len(column) - 1) / 2


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _path(route: list[Any], corner: dict[Any, tuple[float, float]]) -> str:
    """From the right of the first box to the left of the last, level through the columns between."""
    x, y = corner[route[0]][0] + _WIDTH, corner[route[0]][1] + _HEIGHT / 2
    words = [f"M{x:g} {y:g}"]
    for node in route[1:]:
        to_x, to_y = corner[node][0], corner[node][1] + _height(node) / 2
        words.append(f"C{x + _ACROSS / 2:g} {y:g} {to_x - _ACROSS / 2:g} {to_y:g} {to_x:g} {to_y:g}")
        if node != route[-1]:
            to_x += _WIDTH
            words.append(f"H{to_x:g}")
        x, y = to_x, to_y
    return "".join(words)
