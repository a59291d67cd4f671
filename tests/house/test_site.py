"""The documentation site: what it names exists, what it shows is found, and it is built without a warning."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import badmm_kernels
from tests.house.documents import ROOT

DOCS = ROOT / "docs"
PLACE = re.compile(r"`((?:badmm|derive|kernels|validation|examples)/[\w/]+\.py)(?::([\w.]+))?`")


FACTORISING = {"whiten", "log_density"}
"""Functions that matrix families do not have."""
NO_ENTROPY = {"binomial", "inverse_gaussian", "negative_binomial", "poisson"}
"""Families whose E log b(θ), which the entropy needs, is an infinite series or a special function."""


def defined(path: Path) -> set[str]:
    """The names that a module defines at its top, and `Class.member` for what its classes define."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}.{member.name}" for member in node.body if isinstance(member, ast.FunctionDef)}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def places(page: Path) -> list[tuple[str, str]]:
    """The files, and names in them, that a page speaks of; `diagonal_gaussian.kl` is a kernel's name."""
    text = page.read_text(encoding="utf-8")
    kernels = re.findall(r"`(diagonal_gaussian|ivon)\.(\w+)`", text)
    return PLACE.findall(text) + [(f"kernels/badmm_kernels/cpu/{module}.py", name) for module, name in kernels]


def missing(found: list[tuple[str, str]]) -> list[str]:
    """The places, as file and name, that do not exist."""
    wrong = []
    for file, name in found:
        path = ROOT / file
        if not path.is_file() or (name and name not in defined(path)):
            wrong.append(f"{file}:{name}" if name else file)
    return wrong


def test_every_place_of_the_table_from_paper_to_code_exists() -> None:
    found = places(DOCS / "paper-to-code.md")
    assert len(found) > 50
    assert missing(found) == []


def test_a_place_that_does_not_exist_is_found() -> None:
    assert missing([("badmm/solve.py", "solve"), ("badmm/solve.py", "nothing"), ("badmm/no.py", "")]) == [
        "badmm/solve.py:nothing",
        "badmm/no.py",
    ]


@pytest.mark.parametrize("family", badmm_kernels.FAMILIES)
def test_the_table_of_kernels_has_every_function_of_a_family(family: str) -> None:
    page = (DOCS / "api" / "kernels.md").read_text(encoding="utf-8")
    table = page.split("## Functions of a family", 1)[1].split("## One family", 1)[0]
    listed = set(re.findall(r"^\| `(\w+)\(", table, flags=re.MULTILINE))
    module = importlib.import_module(f"badmm_kernels.cpu.{family}")
    # special functions, of one number, are Numba's; those of arrays are Python's
    missing = FACTORISING if "spd" in module.NATURAL_DOMAINS else set()
    missing = missing | (set() if module.INEQUALITIES else {"margin", "natural_change"})
    missing = missing | (set() if len(module.VARIABLES) > 1 else {"log_marginal", "conditional"})
    if family in NO_ENTROPY:
        missing = missing | {"entropy"}
    assert {name for name in module.__all__ if inspect.isfunction(getattr(module, name))} == listed - missing
    assert f"`{family}`" in page


def test_every_page_is_in_the_navigation_or_left_out_by_name() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:", 1)[1]
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert pages - set(re.findall(r"([\w/-]+\.md)$", navigation, flags=re.MULTILINE)) == set()


def test_a_formula_becomes_mathml() -> None:
    exceptions = pytest.importorskip("latex2mathml.exceptions")
    sys.path.insert(0, str(DOCS / "hooks"))
    try:
        hook = importlib.import_module("mathml")
    finally:
        sys.path.remove(str(DOCS / "hooks"))
    shown = hook.on_page_content(r'<p><span class="arithmatex">\(\text{a\_b} &lt; \eta_k\)</span></p>')
    assert shown.startswith('<p><span class="formula"><math') and "a_b" in shown and "\\" not in shown
    with pytest.raises(exceptions.NoAvailableTokensError):
        hook.on_page_content(r'<span class="arithmatex">\(\frac{1}{\)</span>')


def test_the_site_is_built_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    html = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert len(html) > 20
    fetched = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?https?:")
    assert [str(path) for path, text in html.items() if fetched.search(text)] == []
    assert "<math" in html[tmp_path / "derivation.html"]


def test_the_page_of_rounds_has_the_words_of_its_command() -> None:
    from benchmarks.rounds import HEAD

    assert (DOCS / "rounds.md").read_text(encoding="utf-8").startswith(f"{HEAD}\n## The suite\n")
