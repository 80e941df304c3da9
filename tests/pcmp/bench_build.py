"""What a PCMP build spends beside its networks, distortions and stored images, and its peak memory.

Run as `python tests/pcmp/bench_build.py [--preset local] [--references 24]`. One process does the four steps
(images, pairs, predictions, votes) on one core, with that many references of the preset per role, then on
4 and 16 times as many if `--grow`. The clock runs inside the calls that no build can do without: drawing and
applying distortions, encoding and writing images, the networks' forward passes. Everything else is overhead.
docs/pcmp.md has the figures.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from mlclipsim import spec, steps
from mlclipsim.distortions import Family
from mlclipsim.pcmp import build, vote

ROLES = ("pcmp_train", "pcmp_test")
OTHER_ROLES = {"local": {"zoo_train": 0, "zoo_val": 64, "pcmp_val": 0}, "embedded": {"pcmp_val": 0}}


class Clock:
    """Seconds inside calls, by what they are for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def inside(self, call: Callable[..., Any], what: str) -> Callable[..., Any]:
        @wraps(call)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **keywords)
            finally:
                self.seconds[what] += time.perf_counter() - start

        return timed

    @contextmanager
    def running(self) -> Iterator[None]:
        load, stream = vote.load, build.stream_table

        def load_timed(name: str, entry: dict[str, Any]) -> Any:
            machine = load(name, entry)
            machine.network.forward = self.inside(machine.network.forward, "networks")
            return machine

        @contextmanager
        def stream_timed(*arguments: Any) -> Iterator[Callable[..., None]]:
            with stream(*arguments) as append:
                yield self.inside(append, "encoding and writing")

        draw = Family.__getattribute__

        def timed_draw(family: Family, name: str) -> Any:
            value = draw(family, name)
            return self.inside(value, "distortions") if name in ("draw", "distort") else value

        with (
            mock.patch.object(vote, "load", load_timed),
            mock.patch.object(build, "stream_table", stream_timed),
            mock.patch.object(build, "encode_image", self.inside(build.encode_image, "encoding and writing")),
            mock.patch.object(Family, "__getattribute__", timed_draw),
        ):
            yield


def run(preset: str, references: int, folder: Path) -> tuple[int, int, float, dict[str, float]]:
    """Images, pairs, seconds of wall time and those inside what no build can do without."""
    roles = dict.fromkeys(ROLES, references)
    roles |= OTHER_ROLES[preset]
    plan = spec.load({"preset": preset, "workers": 1, "references": {"roles": roles}})

    def step(name: str, inputs: list[str], outputs: list[str], **other_names: str) -> None:
        """Files are named as the step calls them, but for ``other_names``."""
        paths = {key: folder / f"{other_names.get(key, key)}.parquet" for key in (*inputs, *outputs)}
        of = steps.function(name)
        of(plan.slice(name), {key: paths[key] for key in inputs}, {key: paths[key] for key in outputs})

    step("references", [], ["partition", "references"])
    clock = Clock()
    with clock.running():
        start = time.perf_counter()
        step("pcmp_images", ["references"], ["images", "drops"], drops="image_drops")
        step("pcmp_pairs", ["images", "drops_in"], ["pairs", "drops"], drops_in="image_drops")
        step("predictions", ["references", "images"], ["predictions", "voters"])
        step("votes", ["pairs", "predictions", "voters"], ["votes", "labels"])
        wall = time.perf_counter() - start
    rows = (pq.read_metadata(folder / f"{name}.parquet").num_rows for name in ("images", "pairs"))
    return *rows, wall, clock.seconds  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=OTHER_ROLES, default="embedded")
    parser.add_argument("--references", type=int, default=24)
    parser.add_argument("--grow", action="store_true")
    chosen = parser.parse_args()
    print("| images | pairs | wall (s) | networks | distortions | encoding, writing | ratio | peak (MiB) |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for times in (1, 4, 16) if chosen.grow else (1,):
        with tempfile.TemporaryDirectory() as folder:
            images, pairs, wall, inside = run(chosen.preset, chosen.references * times, Path(folder))
        shares = [inside[what] for what in ("networks", "distortions", "encoding and writing")]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"| {images:,} | {pairs:,} | {wall:.1f} | "
            + " | ".join(f"{share:.1f}" for share in shares)
            + f" | {wall / sum(shares):.2f} | {peak:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
