"""What is generated is what is committed, and `--check` says what is not."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import sympy as sp

from derive import generate
from derive.__main__ import main


@cache
def derived() -> dict[str, str]:
    """Every generated file, from tools of other versions than the committed ones'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp, "__version__", "0.0.another")
        return generate.expected()


def test_generated_files_are_current_and_name_no_tool_s_version() -> None:
    assert generate.differences(derived(), generate.ROOT) == []
    assert [
        path for path, text in derived().items() if "0.0.another" in text or f"SymPy {sp.__version__}" in text
    ] == []


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all generated files; the command compares with what was derived once."""
    files = derived()
    monkeypatch.setattr(generate, "expected", lambda names=None: dict(files))
    generate.write(files, tmp_path)
    return tmp_path


def test_check_fails_on_a_hand_edited_file(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written / "kernels/badmm_kernels/cpu/gamma.py"
    path.write_text(path.read_text(encoding="utf-8").replace("fma(p, w,", "fma(p, -w,", 1), encoding="utf-8")
    assert main(["--check", "--out", str(written)]) == 1
    out = capsys.readouterr().out
    assert "edited by hand: kernels/badmm_kernels/cpu/gamma.py" in out
    assert "-    p = fma(p, -w," in out and "+    p = fma(p, w," in out
    assert "python -m derive" in out


@pytest.mark.parametrize(
    "name",
    [
        "kernels/badmm_kernels/include/badmm/gamma.h",
        "kernels/badmm_kernels/include/badmm/special.h",
        "kernels/badmm_kernels/include/badmm_kernels.f90",
    ],
)
def test_check_covers_the_header(name: str, written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written / name
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("GENERATED", "Generated", 1), encoding="utf-8")
    assert main(["--check", "--out", str(written)]) == 1
    assert f"edited by hand: {name}" in capsys.readouterr().out
    path.write_text(text, encoding="utf-8")
    orphan = path.with_name(f"cauchy{path.suffix}")
    orphan.write_text(text, encoding="utf-8")
    assert main(["--check", "--out", str(written)]) == 1
    assert f"orphaned: {orphan.relative_to(written)}" in capsys.readouterr().out
    assert generate.remove_orphans(generate.expected(), written) == [str(orphan.relative_to(written))]


def test_check_fails_on_a_missing_file(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (written / "kernels/badmm_kernels/cpu/full_gaussian.py").unlink()
    assert main(["--check", "--out", str(written)]) == 1
    assert "missing: kernels/badmm_kernels/cpu/full_gaussian.py" in capsys.readouterr().out


def test_check_fails_on_an_orphan_and_generation_removes_it(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orphan = written / "kernels/badmm_kernels/cpu/cauchy.py"
    orphan.write_text((written / "kernels/badmm_kernels/cpu/gamma.py").read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["--check", "--out", str(written)]) == 1
    assert "orphaned: kernels/badmm_kernels/cpu/cauchy.py" in capsys.readouterr().out
    assert generate.remove_orphans(generate.expected(), written) == ["kernels/badmm_kernels/cpu/cauchy.py"]
    assert main(["--check", "--out", str(written)]) == 0


def test_output_does_not_depend_on_hashing() -> None:
    """One seed for modules of every form, beside that of the tests' own process, which is another one each time, and
    that of `make check`, for all."""
    done = subprocess.run(
        [sys.executable, "-m", "derive", "--check", "round", "beta", "full_gaussian", "likelihoods/probit", "ivon"],
        cwd=generate.ROOT,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
