"""No module asks for a family's name or a precision's number of axes, outside the files of the structures."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3] / "badmm"
NAMED = re.compile(r"(family|name) *(==|in) *\(?[\"'](isotropic|diagonal|full|gamma|exponential)")
AXES = re.compile(r"precision[\w.\[\]() ]*\.ndim|np\.ndim\([^)]*precision")
STRUCTURES = {ROOT / "families" / name for name in ("precision.py", "matrix_precision.py")}


def lines_that(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(ROOT.rglob("*.py"))
        if path not in STRUCTURES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_family_is_asked_for_its_name() -> None:
    assert lines_that(NAMED) == []


def test_no_precision_is_asked_for_its_axes() -> None:
    assert lines_that(AXES) == []


def test_a_branch_would_be_found() -> None:
    assert NAMED.search('if family.name == "gamma":')
    assert NAMED.search("if name in ('diagonal_gaussian',):")
    assert AXES.search("if q.precision.ndim == 2:")
    assert AXES.search("if posterior.precision[0].ndim:")


def test_no_factorising_family_is_named_in_the_families() -> None:
    """A new one needs no word here; the Gaussian with a matrix is a file of its own."""
    for path in sorted((ROOT / "families").glob("*.py")):
        code = re.sub(r'""".*?"""', "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.findall(r'"(?:gamma|exponential|diagonal_gaussian|isotropic_gaussian)"', code), path.name
