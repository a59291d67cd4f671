"""The header as text: every compiler takes it without a warning, in every standard, and no macro outlives it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import badmm_kernels
from tests.kernels.header_backend import INCLUDE, STRICT, missing, run

HEADERS = (
    "badmm_kernels.h",
    "badmm/special.h",
    *(f"badmm/{name}.h" for name in ("round", *badmm_kernels.FAMILIES, *badmm_kernels.OPTIMIZERS)),
    *(f"badmm/likelihoods/{name}.h" for name in badmm_kernels.LIKELIHOODS),
    *(f"badmm/arrays/{name}.h" for name in ("round", *badmm_kernels.FAMILIES)),
    *(f"badmm/arrays/likelihoods/{name}.h" for name in badmm_kernels.LIKELIHOODS),
)
FORMS = (
    *HEADERS[:2],
    *(f"badmm/{folder}{name}.h" for folder in ("", "arrays/") for name in ("round", "gamma", "full_gaussian")),
    *(f"badmm/{folder}likelihoods/logistic.h" for folder in ("", "arrays/")),
    *(f"badmm/{name}.h" for name in badmm_kernels.OPTIMIZERS),
)
"""A header of every form that the emitters write."""
FORTRAN = ("-std=f2018", "-Wall", "-Wextra", "-pedantic", "-Werror")


def needs(compiler: str) -> pytest.MarkDecorator:
    """Skip, with the reason, where a compiler is missing."""
    return pytest.mark.skipif(bool(missing(compiler)), reason=missing(compiler))


STANDARDS = [
    pytest.param(compiler, language, standard, id=f"{compiler} {standard}", marks=needs(compiler))
    for compiler, language, standards in (
        ("gcc", "c", ("c99", "c11")),
        ("clang", "c", ("c99", "c11")),
        ("g++", "c++", ("c++17",)),
        ("clang++", "c++", ("c++17",)),
    )
    for standard in standards
]


@pytest.mark.parametrize(("compiler", "language", "standard"), STANDARDS)
def test_it_compiles_without_a_warning(compiler: str, language: str, standard: str, tmp_path: Path) -> None:
    # every header alone, twice, for one compiler, and one of each form in C++: their lines that include are the same
    for header in {("gcc", "c99"): HEADERS, ("g++", "c++17"): FORMS}.get((compiler, standard), HEADERS[:1]):
        source = tmp_path / "one.c"
        source.write_text(f'#include "{header}"\n#include "{header}"\nint main(void) {{ return 0; }}\n')
        casts = ["-Wold-style-cast"] if language == "c++" else []
        options = ["-x", language, f"-std={standard}", *STRICT, *casts, f"-I{INCLUDE}", "-fsyntax-only"]
        done = run([compiler, *options, str(source)])
        assert done.returncode == 0, done.stderr
    # every function is translated, not only parsed; of the same text c11 makes the same, and gcc, whose warnings depend
    # on what it optimizes, makes the shared object of test_header_arrays with the same options
    if (compiler, standard) == ("clang", "c99"):
        done = run([compiler, f"-std={standard}", *STRICT, "-c", INCLUDE / "badmm_kernels.c", f"-I{INCLUDE}",
                    "-o", tmp_path / "all.o"])  # fmt: skip
        assert done.returncode == 0, done.stderr


@needs("gfortran")
def test_the_fortran_interface_compiles_without_a_warning(tmp_path: Path) -> None:
    source = INCLUDE / "badmm_kernels.f90"
    done = run(["gfortran", *FORTRAN, f"-J{tmp_path}", "-c", source, "-o", tmp_path / "interface.o"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "badmm_kernels.mod").exists()


@needs("nvcc")
@pytest.mark.slow
def test_nvcc_takes_every_function_for_host_and_device(tmp_path: Path) -> None:
    source = tmp_path / "all.cu"
    source.write_text('#include "badmm_kernels.h"\n__global__ void one(double *x)\n'
                      "{ x[0] = badmm_gamma_kl_term(x[0], x[1], x[2], x[3]) + badmm_outside_f64(x[0], 0.0); }\n"
                      "double host(double x) { return badmm_lgamma(x); }\n")  # fmt: skip
    done = run(["nvcc", "-Werror", "all-warnings", f"-I{INCLUDE}", "-c", source, "-o", tmp_path / "all.o"])
    assert done.returncode == 0, done.stderr


def macros(text: str, path: Path) -> set[str]:
    """The macros defined at the end of a translation unit."""
    path.write_text(text)
    done = run(["gcc", "-dM", "-E", f"-I{INCLUDE}", path])
    assert done.returncode == 0, done.stderr
    return {line.split()[1].split("(")[0] for line in done.stdout.splitlines()}


@needs("gcc")
@pytest.mark.parametrize("header", HEADERS)
def test_no_macro_leaks(header: str, tmp_path: Path) -> None:
    standard = "#include <math.h>\n#include <stddef.h>\n#include <string.h>\n"
    before = macros(standard, tmp_path / "without.c")
    after = macros(f'{standard}#include "{header}"\n', tmp_path / "with.c")
    assert before <= after
    leaked = after - before - {"BADMM_KERNELS_VERSION", "BADMM_KERNELS_ABI"}
    assert leaked
    assert all(re.fullmatch(r"BADMM_[A-Z_]+_H", name) for name in leaked), leaked


def definitions(text: str) -> list[str]:
    """The functions that a header defines."""
    return re.findall(r"^BADMM_INLINE [\w ]+ (\w+)\(", text, flags=re.MULTILINE)


@pytest.mark.parametrize("header", HEADERS[1:])
def test_every_function_is_prefixed_and_explained(header: str) -> None:
    text = (INCLUDE / header).read_text(encoding="utf-8")
    assert text.isascii()
    names = definitions(text)
    assert len(names) > 5 or header == "badmm/full_gaussian.h"  # its functions are those of whole matrices
    assert all(name.startswith("badmm_") for name in names)
    explained = [definitions(part) for part in text.split("/* ")[1:]]
    for group in (g for g in explained if g):
        assert len({name.removesuffix("_f32").removesuffix("_f64") for name in group}) == 1, group
    assert [name for group in explained for name in group] == names
    assert max(len(line) for line in text.splitlines()) <= 120


def test_c_and_fortran_have_the_same_functions() -> None:
    c = {name for header in HEADERS[1:] for name in definitions((INCLUDE / header).read_text(encoding="utf-8"))}
    text = (INCLUDE / "badmm_kernels.f90").read_text(encoding="utf-8")
    casts = {name for name in c if re.fullmatch(r"badmm_(from_)?bits_f(32|64)", name)}  # Fortran has transfer()
    assert len(casts) == 4
    assert set(re.findall(r'name="(\w+)"', text)) == c - casts
    assert max(len(line) for line in text.splitlines()) <= 132


def prototypes(text: str) -> dict[str, list[bool]]:
    """For every function of a header, whether each of its arguments is passed by reference."""
    found = re.findall(r"^BADMM_INLINE [\w ]+ (\w+)\(([^)]*)\)", text, flags=re.MULTILINE)
    return {name: ["*" in argument for argument in arguments.split(",")] for name, arguments in found}


def interfaces(text: str) -> dict[str, list[bool]]:
    """The same of the Fortran interface: an argument is passed by reference unless it has the attribute `value`."""
    joined = re.sub(r"&\s*\n\s*", "", text)
    found = {}
    for arguments, name, body in re.findall(
        r"(?:function|subroutine) \w+\(([^)]*)\) bind\(c, name=\"(\w+)\"\)(.*?)end (?:function|subroutine)",
        joined,
        re.S,
    ):
        declared = {n: attributes for attributes, n in re.findall(r"^ *(.*) :: (\w+)", body, flags=re.MULTILINE)}
        found[name] = ["value" not in re.split(r"\W+", declared[a.strip()]) for a in arguments.split(",")]
    return found


def test_fortran_passes_every_argument_as_c_takes_it() -> None:
    """By value or by reference; the attribute is what keeps a number from being read as an address."""
    c: dict[str, list[bool]] = {}
    for header in HEADERS[1:]:
        c |= prototypes((INCLUDE / header).read_text(encoding="utf-8"))
    fortran = interfaces((INCLUDE / "badmm_kernels.f90").read_text(encoding="utf-8"))
    assert len(fortran) > 100
    assert {name: c[name] for name in fortran} == fortran
