"""What came of a fault, and the table of them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Outcome", "as_markdown"]


@dataclass
class Outcome:
    """One row.

    Attributes:
        fault: what was done to the product.
        tried: how often; 0 where it could not be done here, which ``seen`` explains.
        problems: what went wrong, a line for each try that was not survived.
        seen: what the user saw.
    """

    fault: str
    tried: int = 0
    problems: list[str] = field(default_factory=list)
    seen: str = ""

    @property
    def survived(self) -> int:
        return self.tried - len(self.problems)

    def note(self, problems: list[str]) -> None:
        """Count a try, and what went wrong in it."""
        self.tried += 1
        if problems:
            self.problems.append("; ".join(problems))


def as_markdown(outcomes: Iterable[Outcome]) -> str:
    """The table; what was not survived stands below it."""
    outcomes = list(outcomes)
    lines = ["| fault | tried | survived | what the user saw |", "|---|---|---|---|"]
    for row in outcomes:
        seen = row.seen.replace("|", "\\|")
        counts = (row.tried, row.survived) if row.tried else ("-", "-")
        lines.append(f"| {row.fault} | {counts[0]} | {counts[1]} | {seen} |")
    failures = [f"- {row.fault}: {problem}" for row in outcomes for problem in row.problems]
    return "\n".join([*lines, *([""] if failures else []), *failures]) + "\n"
