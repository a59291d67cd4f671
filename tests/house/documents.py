"""The documents that a user reads and what they hold: code blocks by language, commands, links."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = (README, *TUTORIALS)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language, in order, without those that the site fills from a file: these have a title."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """The shell commands, without their comments."""
    lines = [line.split("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line]


def links(page: Path) -> list[str]:
    """The targets of links and pictures that lie in the repository, without anchors."""
    found = re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return [str(target) for target in found]
