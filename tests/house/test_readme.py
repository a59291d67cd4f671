"""What README and tutorials show works: their Python and C blocks run, their commands and the files they name exist."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from badmm.__main__ import companion, main, parser
from badmm_kernels.__main__ import main as where
from tests.house.documents import PAGES, README, ROOT, TUTORIALS, blocks, commands, links
from tests.kernels.header.test_header import needs
from tests.kernels.header_backend import INCLUDE, STRICT, run
from tests.kernels.host_device import on_host

PYTHON_PAGES = [page for page in PAGES if blocks(page, "python")]
C_PAGES = [page for page in PAGES if blocks(page, "c")]
NEEDED = {"glm": ("formulaic", "sklearn", "statsmodels")}
"""What the blocks of a page import beyond the package's own needs."""
COMMANDS = [pytest.param(text, id=f"{page.stem}: {text}") for page in PAGES for text in commands(page)]


def name(page: Path) -> str:
    return page.stem


def test_the_readme_is_short_and_every_tutorial_shows_something() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120
    assert {page.stem for page in TUTORIALS} >= {"solve", "likelihood", "family", "ivon", "federated", "c"}
    for page in PAGES:
        assert blocks(page, "python") or blocks(page, "c") or blocks(page, "sh"), page


def test_the_readme_solves_a_problem_in_five_statements() -> None:
    (code,) = blocks(README, "python")
    statements = [line for line in code.splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(statements) <= 5


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name)
def test_python_blocks_run(page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in order, as a reader would run them; each prints something."""
    for package in NEEDED.get(page.stem, ()):
        pytest.importorskip(package, reason=f"needs {package}")
    codes = blocks(page, "python")
    on_gpu = any('device="gpu"' in code for code in codes)
    if on_gpu:  # NumPy in the part of CuPy, the host in that of a GPU
        monkeypatch.setitem(sys.modules, "cupy", np)
    scope: dict[str, object] = {"__name__": page.stem}
    with on_host() if on_gpu else nullcontext():
        for number, code in enumerate(codes):
            exec(compile(code, f"{page.name}, block {number}", "exec"), scope)
            assert capsys.readouterr().out, f"{page.name}, block {number} prints nothing"


@needs("gcc")
@pytest.mark.parametrize("page", C_PAGES, ids=name)
def test_c_blocks_compile_and_run(page: Path, tmp_path: Path) -> None:
    for code in blocks(page, "c"):
        source, program = tmp_path / "block.c", tmp_path / "block"
        source.write_text(code, encoding="utf-8")
        done = run(["gcc", "-std=c99", *STRICT, f"-I{INCLUDE}", source, "-o", program, "-lm"])
        assert done.returncode == 0, done.stderr
        (promised,) = re.findall(r"printf\(.*/\* ([^:]*):", code)
        assert run([program]).stdout == f"{promised}\n"


def python_module(words: list[str]) -> list[str]:
    """`badmm ...` as `python -m badmm ...`."""
    return ["python", "-m", *words] if words[0] == "badmm" else words


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = python_module(shlex.split(command))
    for options in re.findall(r"\$\(python -m badmm_kernels (.*?)\)", command):
        assert where(options.split()) == 0
    if words[0] == "cc":
        return
    if words[0] == "cmake":
        assert (ROOT / words[words.index("-S") + 1] / "CMakeLists.txt").is_file()
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{word}:", makefile, flags=re.MULTILINE) for word in words[1:] if "=" not in word)
    elif words[0] == "pip":
        check_extras(words[-1])
    else:
        assert words[:2] == ["python", "-m"]
        path = ROOT / words[2].replace(".", "/")
        assert words[2] == "pytest" or (path / "__main__.py").is_file() or path.with_suffix(".py").is_file()
        if words[2] == "badmm":
            check_badmm(words[3:], tmp_path, monkeypatch)


def check_extras(requirement: str) -> None:
    """`.[a,b]` names extras that pyproject.toml has."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"[\w]+", requirement.split("[", 1)[1]):
        assert re.search(rf"^{extra} = \[", text, flags=re.MULTILINE), extra


def check_badmm(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments are accepted and the file exists; a run of two rounds is run."""
    if arguments == ["--help"]:
        return
    if arguments[0] in ("derive", "validate"):
        companion({"derive": "badmm_derive", "validate": "badmm_validation"}[arguments[0]])
        return
    options = parser().parse_args(arguments)
    assert options.command not in ("run", "tune") or (ROOT / options.config).is_file()
    if "run.rounds=2" in arguments:
        monkeypatch.chdir(ROOT)
        place = arguments.index("--out") + 1
        assert main([*arguments[:place], str(tmp_path / "out"), *arguments[place + 1 :], "--quiet"]) == 0
        assert (tmp_path / "out" / "summary.md").is_file()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_linked_files_exist(page: Path) -> None:
    for target in links(page):
        assert (page.parent / target).is_file(), target


def test_the_readme_links_every_tutorial() -> None:
    linked = {(README.parent / target).resolve() for target in links(README)}
    assert set(TUTORIALS) <= linked
