"""One page, one file: templates filled in, everything escaped, nothing from outside.

The page forbids itself by its content security policy what it must not do: fetch anything, or run a script
other than ours.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from docutils.core import publish_parts
from markupsafe import Markup

from mlclipsim.artifacts import ArtifactError
from mlclipsim.report.style import COLOURS, VERDICT_COLOURS, label
from mlclipsim.report.tables.writer import number, write_text

__all__ = ["Caption", "Scale", "caption", "data_uri", "render"]

TEMPLATES = Path(__file__).parent / "templates"
_TITLE = re.compile(r"\*\*(.+?)\*\*")
_TYPES = {
    "csv": "text/csv",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tex": "text/plain",
    "webp": "image/webp",
}


def render(template: str, output: Path, **values: Any) -> None:
    """Fill in a template of ``report/templates`` and write the page.

    Args:
        values: what the template names; text is escaped wherever it comes from.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "label": label, "data_uri": data_uri}
    # Ours, from the package: the only text that goes into the page as it is.
    style, script = (Markup((TEMPLATES / name).read_text("utf-8")) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        **values, colours=COLOURS | VERDICT_COLOURS, style=style, script=script, script_sha256=digest
    )
    write_text(output, page)


def data_uri(content: bytes | Path, kind: str) -> str:
    """A file, or its bytes, as an address that holds it all; ``kind`` is the ending of its name."""
    content = content.read_bytes() if isinstance(content, Path) else content
    return f"data:{_TYPES[kind]};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class Caption:
    """What a table or figure shows: its title, and the whole caption as HTML."""

    title: str
    body: Markup


def caption(path: Path, preset: str) -> Caption:
    """A caption as Snakemake's own report would show it: a template in reStructuredText, its title in bold.

    Raises:
        ArtifactError: the file is missing, or no template.
    """
    try:
        template = jinja2.Template(path.read_text(encoding="utf-8"))
        text = template.render(snakemake={"config": {"preset": preset}})
    except (OSError, jinja2.TemplateError) as error:
        raise ArtifactError(f"{path} cannot be read as a caption ({error}); mend it") from error
    closed = {"raw_enabled": False, "file_insertion_enabled": False, "report_level": 5}
    title = _TITLE.match(text)
    return Caption(
        title=title[1] if title else label(path.stem),
        body=Markup(publish_parts(text, writer="html5", settings_overrides=closed)["body"]),
    )


@dataclass(frozen=True)
class Scale:
    """A line of numbers, laid over the width of a plot."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float | None]) -> Scale:
        """From the smallest to the largest of ``values``, with a margin; None and NaN do not count."""
        known = [value for value in values if value is not None and math.isfinite(value)] or [0.0, 1.0]
        low, high = min(known), max(known)
        margin = 0.04 * (high - low) or 0.5
        return cls(low - margin, high + margin)

    def at(self, value: float) -> str:
        """Where ``value`` lies, as CSS."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"

    def ticks(self) -> list[float]:
        """A few round numbers within."""
        step = 10 ** math.floor(math.log10(self.high - self.low))
        step = next(step * part for part in (1, 0.5, 0.2, 0.1) if (self.high - self.low) / (step * part) >= 4)
        first = math.ceil(self.low / step)
        return [round(n * step, 6) for n in range(first, math.floor(self.high / step) + 1)]
