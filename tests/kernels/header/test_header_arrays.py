"""The array functions of the C header: the kernels' values, and the place and index of what is outside its domain."""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from badmm_kernels.cpu.runtime import ClientSumKernel, MapKernel, ReductionKernel
from tests.kernels.header.test_header import needs
from tests.kernels.header_backend import INCLUDE, PLAIN, STRICT, records, run, shared_object
from tests.kernels.representative import FACTORISING

pytestmark = needs("gcc")
COUNT, CLIENTS = 700, 3  # more than one block of 512
SCALARS = {"positive": 1.7, "fraction": 0.6, "count": 5.0}
DTYPES = {"f32": np.float32, "f64": np.float64}


@cache
def library(*flags: str) -> ctypes.CDLL:
    """badmm_kernels.c as a shared object, which gcc makes without a warning."""
    return shared_object((), "gcc", (*PLAIN, *STRICT, *flags), INCLUDE, ("badmm_kernels.c",))


def call(name: str, *arguments: Any, lib: ctypes.CDLL | None = None) -> tuple[int, int]:
    """(return value, *at) of an array function: sizes, arrays and doubles in order, `at` is added."""
    at = ctypes.c_size_t(0)
    passed = [
        ctypes.c_size_t(a) if isinstance(a, int) else ctypes.c_double(a) if isinstance(a, float) else a.ctypes
        for a in arguments
    ]
    place = (lib or library())[name](*(a.data_as(ctypes.c_void_p) if hasattr(a, "data_as") else a for a in passed),
                                     ctypes.byref(at))  # fmt: skip
    return place, at.value


def values(domain: str, seed: int, dtype: Any = np.float64, count: int = COUNT) -> np.ndarray[Any, Any]:
    """Numbers of a domain."""
    drawn = np.random.default_rng(seed).uniform(0.5, 2.0, count)
    signed = {"positive": drawn, "negative": -drawn}
    return signed.get(domain, drawn * np.where(np.arange(count) % 2, 1, -1)).astype(dtype)


def inputs(kernel: Any, dtype: Any = np.float64) -> list[np.ndarray[Any, Any]]:
    """Arrays in the domains of a kernel's operands."""
    return [values(domain, k, dtype) for k, (_, domain) in enumerate(kernel.operands)]


def maps() -> list[Any]:
    found = {}
    for family in FACTORISING:
        for _, prefix, kernel in records(family):
            if isinstance(kernel, MapKernel) and kernel.name != "natural_from_expectation":
                found[f"{prefix}.{kernel.name}"] = pytest.param(prefix, kernel, id=f"{prefix}.{kernel.name}")
    return [*found.values()]


@pytest.mark.parametrize("precision", ["f64", "f32"])
@pytest.mark.parametrize(("prefix", "kernel"), maps())
def test_a_map_equals_its_scalar_function_and_names_what_is_outside(prefix: str, kernel: Any, precision: str) -> None:
    dtype = DTYPES[precision]
    given = inputs(kernel, dtype)
    scalars = [SCALARS[domain] for _, domain in kernel.scalars]
    outs = [np.empty(COUNT, dtype) for _ in kernel.results]
    name = f"badmm_{prefix}_{kernel.name}_array_{precision}"
    assert call(name, COUNT, *given, *scalars, *outs) == (0, 0)
    scalar = library()[f"badmm_{prefix}_{kernel.name}_{precision}"]
    real = ctypes.c_float if precision == "f32" else ctypes.c_double
    for i in (0, 511, 512, COUNT - 1):
        arguments = [real(float(a[i])) for a in given] + [ctypes.c_double(s) for s in scalars]
        if len(outs) == 1:
            scalar.restype = real
            expected = [scalar(*arguments)]
        else:
            held = [real() for _ in outs]
            scalar.restype = None
            scalar(*arguments, *(ctypes.byref(h) for h in held))
            expected = [h.value for h in held]
        assert [float(o[i]) for o in outs] == expected
    used = [k for k, a in enumerate(given) if _changes(name, given, scalars, outs, k)]
    for k in used:
        spoiled = [a.copy() for a in given]
        spoiled[k][513] = np.nan
        place, at = call(name, COUNT, *spoiled, *scalars, *outs)
        assert place in (k + 2, *range(len(given) + len(scalars) + 2, len(given) + len(scalars) + len(outs) + 2))
        assert at == 513
    for k, (_, domain) in enumerate(kernel.scalars):
        bad = [-1.0 if j == k else s for j, s in enumerate(scalars)]
        assert call(name, COUNT, *given, *bad, *outs) == (2 + len(given) + k, 0), domain


def _changes(name: str, given: list[Any], scalars: list[float], outs: list[Any], k: int) -> bool:
    """Whether the results depend on operand k."""
    before, moved = [np.empty_like(o) for o in outs], [np.empty_like(o) for o in outs]
    other = [a * a.dtype.type(1.25) if j == k else a for j, a in enumerate(given)]
    assert call(name, COUNT, *given, *scalars, *before)[0] == 0
    call(name, COUNT, *other, *scalars, *moved)
    return any(not np.array_equal(a, b) for a, b in zip(before, moved, strict=True))


@pytest.mark.parametrize("family", FACTORISING)
def test_the_inverse_map_returns_the_natural_parameters(family: str) -> None:
    kernels = badmm_kernels.load(family)
    by_name = {kernel.name: kernel for _, _, kernel in records(family)}
    standard = [values(d, k) for k, (_, d) in enumerate(by_name["natural_from_standard"].operands)]
    scalars = dict.fromkeys(kernels.FIXED, 1.7)
    natural = kernels.natural_from_standard(*standard, **scalars)
    mu = kernels.expectation_from_natural(*natural, **scalars)
    back = [np.empty(COUNT) for _ in mu]
    passed = [1.7 for _ in by_name["natural_from_expectation"].scalars]
    name = f"badmm_{family}_natural_from_expectation_array_f64"
    assert call(name, COUNT, *mu, *passed, *back) == (0, 0)
    for got, expected in zip(back, kernels.natural_from_expectation(*mu, **scalars), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def sums() -> list[Any]:
    return [
        pytest.param(family, kernel, id=f"{family}.{kernel.name}")
        for family in FACTORISING
        for _, _, kernel in records(family)
        if isinstance(kernel, ReductionKernel)
    ]


@pytest.mark.parametrize(("family", "kernel"), sums())
def test_a_sum_equals_the_kernels_and_names_what_is_outside(family: str, kernel: Any) -> None:
    given, scalars, out = inputs(kernel), [SCALARS[d] for _, d in kernel.scalars], np.empty(1)
    name = f"badmm_{family}_{kernel.name}_sum"
    assert call(name, COUNT, *given, *scalars, out) == (0, 0)
    expected = kernel(tuple(given), tuple(scalars), None)
    np.testing.assert_allclose(out[0], expected, rtol=1e-13)
    for k in range(len(given)):
        spoiled = [a.copy() for a in given]
        spoiled[k][600] = np.inf
        assert call(name, COUNT, *spoiled, *scalars, out) == (k + 2, 600)


def test_a_sum_over_clients_adds_in_double_and_counts_its_clients() -> None:
    kernels = badmm_kernels.load("diagonal_gaussian")
    rng = np.random.default_rng(0)
    natural, dual = rng.normal(size=(CLIENTS, COUNT)), rng.normal(size=(CLIENTS, COUNT))
    out = np.empty(COUNT)
    (record,) = (k for _, _, k in records("diagonal_gaussian") if isinstance(k, ClientSumKernel))
    name = f"badmm_round_{record.name}_over_clients"
    assert call(name, CLIENTS, COUNT, natural, dual, 0.6, out) == (0, 0)
    expected, _ = kernels.server_total((natural, natural), (dual, dual), 0.6)
    np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-13)
    dual[1, 520] = np.nan
    assert call(name, CLIENTS, COUNT, natural, dual, 0.6, out) == (6, 520)


# ---- the full Gaussian -----------------------------------------------------------------------------------------------


def spd(d: int, seed: int, apart: float = 1.0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(d, d + 3))
    return np.asarray(np.eye(d) * 2 + apart * A @ A.T)


def member(name: str, d: int, *arrays: Any, lib: ctypes.CDLL) -> int:
    """Call a function of a member of dimension d, with the work space that it asks for."""
    sized = lib[f"badmm_full_gaussian_{name}_work"]
    sized.restype = ctypes.c_size_t
    needed = sized(ctypes.c_size_t(d))
    work = np.full(needed + 1, 12345.0)
    passed = [ctypes.c_size_t(d), *(a.ctypes.data_as(ctypes.c_void_p) for a in (*arrays, work))]
    place: int = lib[f"badmm_full_gaussian_{name}"](*passed)
    assert work[needed] == 12345.0, "wrote past the work space"
    return place


def libraries() -> list[Any]:
    lapack = pytest.mark.skipif(ctypes.util.find_library("lapack") is None, reason="no LAPACK to link")
    linked = ("-DBADMM_LAPACK", "-Wl,--no-as-needed", "-llapack")
    return [pytest.param((), id="plain"), pytest.param(linked, id="lapack", marks=lapack)]


@pytest.mark.parametrize("flags", libraries())
@pytest.mark.parametrize("d", [1, 2, 7])
def test_the_full_gaussian_equals_the_kernels(d: int, flags: tuple[str, ...]) -> None:
    lib, kernels = library(*flags), badmm_kernels.load("full_gaussian")
    rng = np.random.default_rng(d)
    m, S, xi = rng.normal(size=d), spd(d, d), rng.normal(size=d)
    mu = kernels.expectation_from_natural(xi, S)
    H = S - 3 * np.eye(d)
    for name, given in {
        "natural_from_standard": (m, S), "standard_from_natural": (xi, S), "expectation_from_natural": (xi, S),
        "natural_from_expectation": tuple(np.ascontiguousarray(a) for a in mu), "natural_gradient": (m, xi, H),
    }.items():  # fmt: skip
        outs = np.empty(d), np.empty((d, d))
        assert member(name, d, *given, *outs, lib=lib) == 0
        for got, expected in zip(outs, getattr(kernels, name)(*given), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-13, err_msg=name)
    out = np.empty(1)
    for name in ("log_partition", "entropy"):
        assert member(name, d, xi, S, out, lib=lib) == 0
        np.testing.assert_allclose(out[0], getattr(kernels, name)(xi, S), rtol=1e-12)


@pytest.mark.parametrize("flags", libraries())
@pytest.mark.parametrize("apart", [1e-12, 1e-6, 0.1, 3.0])
def test_the_full_gaussians_divergence_keeps_its_digits(apart: float, flags: tuple[str, ...]) -> None:
    lib, kernels, d = library(*flags), badmm_kernels.load("full_gaussian"), 6
    S, change = spd(d, 0), spd(d, 1)
    xi, step = np.random.default_rng(2).normal(size=(2, d))
    p = xi + apart * step, S + apart * change
    out = np.empty(1)
    assert member("kl", d, xi, S, *p, out, lib=lib) == 0
    expected = kernels.kl((xi, S), p)
    np.testing.assert_allclose(out[0], expected, rtol=1e-3 if apart < 1e-9 else 1e-9)
    assert out[0] > 0


def test_a_matrix_that_is_not_positive_definite_is_named_by_its_place() -> None:
    d, bad = 3, np.diag([1.0, -1.0, 1.0])
    S, xi, out = spd(d, 0), np.ones(d), np.empty(1)
    assert member("kl", d, xi, S, xi, bad, out, lib=library()) == 5
    assert member("kl", d, xi, bad, xi, S, out, lib=library()) == 3
    assert member("log_partition", d, xi, np.full((d, d), np.nan), out, lib=library()) == 3


def test_an_output_may_be_an_input() -> None:
    d = 4
    kernels = badmm_kernels.load("full_gaussian")
    m, S = np.arange(1.0, 5.0), spd(d, 3)
    expected, _ = kernels.natural_from_standard(m, S)
    assert member("natural_from_standard", d, m, S, m, S, lib=library()) == 0
    np.testing.assert_allclose(m, expected, rtol=1e-13)


# ---- the library -----------------------------------------------------------------------------------------------------


@needs("cmake")
def test_cmake_builds_a_shared_library_with_a_versioned_soname(tmp_path: Path) -> None:
    text = 'cmake_minimum_required(VERSION 3.18)\nproject(own C)\nfind_package(badmm-kernels CONFIG REQUIRED)\n' \
           'add_executable(own own.c)\ntarget_link_libraries(own PRIVATE badmm::kernels_shared)\n'  # fmt: skip
    (tmp_path / "CMakeLists.txt").write_text(text)
    source = '#include "badmm/version.h"\ndouble badmm_gamma_kl_term(double, double, double, double);\n' \
             'int main(void) { return BADMM_KERNELS_ABI + (badmm_gamma_kl_term(1, -1, 1, -1) != 0); }\n'  # fmt: skip
    (tmp_path / "own.c").write_text(source)
    where = INCLUDE.parent / "cmake"
    for command in (["cmake", "-S", ".", "-B", "build", f"-Dbadmm-kernels_DIR={where}"], ["cmake", "--build", "build"]):
        done = run(command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "build" / "libbadmm_kernels.so.0").exists()
    assert run([tmp_path / "build" / "own"]).returncode == 0


def test_the_version_is_the_packages() -> None:
    text = (INCLUDE / "badmm" / "version.h").read_text(encoding="utf-8")
    assert f'#define BADMM_KERNELS_VERSION "{badmm_kernels.__version__}"' in text
    pc = (INCLUDE.parent / "pkgconfig" / "badmm-kernels.pc").read_text(encoding="utf-8")
    assert f"\nVersion: {badmm_kernels.__version__}\n" in pc


@needs("pkg-config")
def test_pkg_config_finds_the_header() -> None:
    flags = run(["env", f"PKG_CONFIG_PATH={INCLUDE.parent / 'pkgconfig'}", "pkg-config", "--cflags", "badmm-kernels"])
    assert flags.returncode == 0, flags.stderr
    folder = Path(flags.stdout.strip().removeprefix("-I"))
    assert (folder / "badmm_kernels.h").is_file()
