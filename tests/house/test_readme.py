"""What the README shows works: its Python blocks run, its shell commands and files exist."""

import re
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from badmm.__main__ import parser
from badmm_kernels.__main__ import main as where
from tests.kernels.header.test_header import needs
from tests.kernels.header_backend import INCLUDE, STRICT, run
from tests.kernels.host_device import on_host

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_there_are_examples() -> None:
    assert len(blocks("python")) >= 2 and len(blocks("c")) >= 1


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_blocks_run_and_are_short(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = blocks("python")[number]
    on_gpu = 'device="gpu"' in code
    if on_gpu:  # NumPy in the part of CuPy, the host in that of a GPU
        monkeypatch.setitem(sys.modules, "cupy", np)
    statements = [line for line in code.splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(statements) <= 10
    with on_host() if on_gpu else nullcontext():
        exec(compile(code, f"README.md, block {number}", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out


@needs("gcc")
@pytest.mark.parametrize("number", range(len(blocks("c"))))
def test_c_blocks_compile_and_run(number: int, tmp_path: Path) -> None:
    source, program = tmp_path / "block.c", tmp_path / "block"
    source.write_text(blocks("c")[number], encoding="utf-8")
    done = run(["gcc", "-std=c99", *STRICT, f"-I{INCLUDE}", source, "-o", program, "-lm"])
    assert done.returncode == 0, done.stderr
    # η = −0.25 and 0.5; c = λ_k/16 − η/2
    assert run([program]).stdout == "0.21875 -0.1875\n"


def commands() -> list[str]:
    return [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("command", commands())
def test_commands_exist(command: str) -> None:
    words = shlex.split(command)
    for options in re.findall(r"\$\(python -m badmm_kernels (.*?)\)", command):
        assert where(options.split()) == 0
    if words[0] == "cc":
        return
    if words[0] == "cmake":
        assert (ROOT / words[words.index("-S") + 1] / "CMakeLists.txt").is_file()
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    else:
        assert words[:2] == ["python", "-m"]
        path = ROOT / words[2].replace(".", "/")
        assert words[2] == "pytest" or (path / "__main__.py").is_file() or path.with_suffix(".py").is_file()
        if words[2] == "badmm":
            options = parser().parse_args(words[3:])
            assert options.command not in ("run", "tune") or (ROOT / options.config).is_file()


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target
