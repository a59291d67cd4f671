"""What the README shows works: its Python blocks run, its shell commands and files exist."""

import re
import shlex
from pathlib import Path

import pytest

from badmm.__main__ import parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_there_are_examples() -> None:
    assert len(blocks("python")) >= 2


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_blocks_run_and_are_short(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks("python")[number]
    statements = [line for line in code.splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(statements) <= 10
    exec(compile(code, f"README.md, block {number}", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out


def commands() -> list[str]:
    return [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("command", commands())
def test_commands_exist(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    else:
        assert words[:2] == ["python", "-m"]
        assert (ROOT / words[2] / "__main__.py").is_file()
        if words[2] == "badmm":
            options = parser().parse_args(words[3:])
            assert options.command not in ("run", "tune") or (ROOT / options.config).is_file()


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target
