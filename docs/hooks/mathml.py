"""Turn the site's LaTeX into MathML while it is built, so that pages show formulas without a script or the network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.DOTALL)


def mathml(match: re.Match[str]) -> str:
    """One formula that arithmatex has marked; raises what the converter raises where it cannot read it."""
    tag, kind, latex = match.groups()
    found = convert(html.unescape(latex).strip(), display="block" if kind == "[" else "inline")
    # the converter keeps the backslash of \_ inside \text{}
    return f'<{tag} class="formula">{found.replace(chr(92) + "_", "_")}</{tag}>'


def on_page_content(content: str, **_: Any) -> str:
    """MkDocs calls this with a page's HTML."""
    return FORMULA.sub(mathml, content)
