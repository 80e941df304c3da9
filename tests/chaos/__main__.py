"""`make chaos`: all faults, one after the other, printed as they go and written as a page of the docs.

    python -m tests.chaos --kills 100 --work build/chaos --output docs/faults.md

The folder of the campaign keeps the undisturbed run, the slowest part, for the next one; ``--only`` tries
some kinds of faults. Every choice derives from the seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from . import disk, kills, meddling, memory, network, stand_in
from .ground import Ground
from .outcome import Outcome, as_markdown

KINDS = ("kills", "disk", "memory", "meddling", "network")
_PAGE = Path(__file__).with_name("faults.md")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("build/chaos"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--kills", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20261123, help="of whom is killed when")
    parser.add_argument(
        "--latest", type=float, default=20.0, metavar="S", help="latest moment of a kill in its run"
    )
    parser.add_argument(
        "--only", nargs="+", choices=KINDS, default=KINDS, help="kinds of faults (default: all)"
    )
    parser.add_argument(
        "--rooms", nargs="+", type=int, default=disk.ROOMS_KIB, metavar="KIB", help="left on a full disk"
    )
    parser.add_argument("--preset", default="ci")
    parser.add_argument("--targets", default="all", help="of `make reproduce`")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument(
        "--stand-ins", action="store_true", help="steps that only write, in place of the real ones"
    )
    parser.add_argument("--output", type=Path, help="page to write, such as docs/faults.md")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    outcomes = list(campaign(arguments))
    table = as_markdown(outcomes)
    print(f"\n{table}\n{time.monotonic() - began:.0f} s")
    if arguments.output:
        arguments.output.write_text(_page(arguments, outcomes, table), encoding="utf-8")
    return 1 if any(row.problems for row in outcomes) else 0


def campaign(arguments: argparse.Namespace) -> Iterator[Outcome]:
    """The rows of the table, each as soon as it is known."""
    patch = stand_in.patch(arguments.work.resolve() / "patch") if arguments.stand_ins else None
    ground = Ground(arguments.work, arguments.preset, arguments.targets, arguments.cores, patch)
    if set(arguments.only) - {"network"}:
        seconds = ground.prepare()
        print(f"undisturbed run: {f'{seconds:.0f} s' if seconds else 'there'}", flush=True)
    faults: dict[str, Callable[[], Iterable[Outcome]]] = {
        "kills": lambda: kills.campaign(ground, arguments.kills, arguments.seed, arguments.latest),
        "disk": lambda: disk.faults(ground, arguments.rooms),
        "memory": lambda: memory.faults(ground),
        "meddling": lambda: meddling.faults(ground),
        "network": network.faults,
    }
    for kind in arguments.only:
        for row in faults[kind]():
            print(f"{row.fault}: {row.survived} of {row.tried}; {row.seen}", flush=True)
            for problem in row.problems:
                print(f"  {problem}", flush=True)
            yield row


def _page(arguments: argparse.Namespace, outcomes: list[Outcome], table: str) -> str:
    tried = sum(row.tried for row in outcomes)
    survived = sum(row.survived for row in outcomes)
    steps = "stand-ins for the steps" if arguments.stand_ins else "real steps"
    how = (
        f"Preset `{arguments.preset}`, {steps}, seed {arguments.seed}: {survived} of {tried} tries survived."
    )
    return _PAGE.read_text(encoding="utf-8").replace("{how}", how).replace("{table}", table.rstrip("\n"))


if __name__ == "__main__":
    sys.exit(main())
