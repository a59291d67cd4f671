"""A MkDocs hook that converts LaTeX to MathML, so that pages show formulas without a script or the network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.DOTALL)


def mathml(match: re.Match[str]) -> str:
    """Convert one formula that arithmatex has marked; errors of the converter are not caught."""
    tag, kind, latex = match.groups()
    found = convert(html.unescape(latex).strip(), display="block" if kind == "[" else "inline")
    # the converter keeps the backslash of \_ inside \text{}
    return f'<{tag} class="formula">{found.replace(chr(92) + "_", "_")}</{tag}>'


def on_page_content(content: str, **_: Any) -> str:
    """Convert the formulas of a page's HTML; MkDocs calls this function."""
    return FORMULA.sub(mathml, content)
