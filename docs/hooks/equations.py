"""Equations as MathML, made when the site is built: every current browser draws it, without a script."""

from __future__ import annotations

import html
import re
from typing import Any

from docutils.utils.math.latex2mathml import tex2mathml

# What pymdownx.arithmatex (generic) leaves of $...$ and $$...$$.
_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, **_: Any) -> str:
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    formula = tex2mathml(html.unescape(found["tex"]).strip(), as_block=found["tag"] == "div")
    return f'<{found["tag"]} class="formula">{formula}</{found["tag"]}>'
