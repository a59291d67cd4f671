"""The C header, compiled for the host, behind the interface of `badmm_kernels.load`: same functions, same argument
checks,
loops and scalar functions from the header. The validation's checks run on it as they do on the Numba kernels."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import shutil
import subprocess
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import badmm_kernels
from badmm_kernels.cpu.runtime import ClientSumKernel, MapKernel, ReductionKernel
from badmm_kernels.face import arrays as ar
from tests.kernels.representative import REPRESENTATIVE

INCLUDE = Path(badmm_kernels.__file__).parent / "include"
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
PLAIN = ("-std=c99", "-O2")
CONTRACTED = ("-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast")
TYPES = {"f32": "float", "f64": "double"}
C_TYPES = {"f32": ctypes.c_float, "f64": ctypes.c_double}
BOUND = {"positive": "0", "negative": "0", "real": "-INFINITY"}
Record = MapKernel | ReductionKernel | ClientSumKernel


def missing(compiler: str) -> str:
    """Why a compiler cannot be used here, or nothing."""
    return "" if shutil.which(compiler) else f"no {compiler} on this machine"


# ---- C loops over arrays, one a kernel and precision, from the records that drive the Numba loops --------------------


def outside(precision: str, value: str, domain: str) -> str:
    """The header's domain test of one value."""
    return f"outside |= badmm_outside_{precision}({'-' if domain == 'negative' else ''}{value}, {BOUND[domain]});"


def map_loop(prefix: str, kernel: MapKernel, precision: str) -> str:
    """Rows [row_lo, row_hi), columns [lo, hi) of flattened arrays; 0 if all was in the domain."""
    t = TYPES[precision]
    inputs = range(len(kernel.operands))
    outputs = range(len(kernel.results))
    parameters = [f"const {t} *x{k}, int64_t step{k}" for k in inputs]
    parameters += [f"double s{k}" for k in range(len(kernel.scalars))] + [f"{t} *y{k}" for k in outputs]
    given = [f"a{k}" for k in inputs] + [f"s{k}" for k in range(len(kernel.scalars))]
    call = f"badmm_{prefix}_{kernel.name}_{precision}"
    if len(kernel.results) == 1:
        run = [f"{t} r0 = {call}({', '.join(given)});"]
    else:
        run = [f"{t} r{k};" for k in outputs] + [f"{call}({', '.join(given + [f'&r{k}' for k in outputs])});"]
    tests = [outside(precision, f"a{k}", d) for k, (_, d) in enumerate(kernel.operands) if d != "real"]
    tests += [outside(precision, f"r{k}", d) for k, d in enumerate(kernel.results)]
    body = [f"const {t} a{k} = x{k}[row * step{k} + i];" for k in inputs]
    body += [*run, *tests, *(f"y{k}[row * width + i] = r{k};" for k in outputs)]
    return f"""
int loop_{prefix}_{kernel.name}_{precision}(int64_t row_lo, int64_t row_hi, int64_t lo, int64_t hi, int64_t width,
                                            {", ".join(parameters)}) {{
    int outside = 0;
    for (int64_t row = row_lo; row < row_hi; ++row)
        for (int64_t i = lo; i < hi; ++i) {{
            {" ".join(body)}
        }}
    return outside;
}}"""


def reduction_loop(prefix: str, kernel: ReductionKernel, precision: str) -> str:
    """The sum of the terms of columns [lo, hi), a value a row; in parts, so that rounding does not pile up."""
    t = TYPES[precision]
    inputs = range(len(kernel.operands))
    parameters = [f"const {t} *x{k}, int64_t step{k}" for k in inputs]
    parameters += [f"double s{k}" for k in range(len(kernel.scalars))]
    given = [f"a{k}" for k in inputs] + [f"s{k}" for k in range(len(kernel.scalars))]
    body = [f"const double a{k} = (double)x{k}[row * step{k} + i];" for k in inputs]
    body += [outside("f64", f"a{k}", d) for k, (_, d) in enumerate(kernel.operands)]
    return f"""
int loop_{prefix}_{kernel.name}_{precision}(int64_t row_lo, int64_t row_hi, int64_t lo, int64_t hi, int64_t width,
                                            {", ".join(parameters)}, double *partial) {{
    int outside = 0;
    (void)width;
    for (int64_t row = row_lo; row < row_hi; ++row) {{
        double total = 0, part = 0;
        for (int64_t i = lo; i < hi; ++i) {{
            {" ".join(body)}
            part += badmm_{prefix}_{kernel.name}_term({", ".join(given)});
            if (i % 128 == 127) {{ total += part; part = 0; }}
        }}
        partial[row] = total + part;
    }}
    return outside;
}}"""


def client_sum_loop(prefix: str, kernel: ClientSumKernel, precision: str) -> str:
    """The sum over the leading axis in double, columns [lo, hi)."""
    t = TYPES[precision]
    inputs = range(len(kernel.operands))
    scalars = [f"s{k}" for k in range(len(kernel.scalars))]
    given = [f"(double)x{k}[client * width + i]" for k in inputs] + scalars
    parameters = [f"const {t} *x{k}" for k in inputs] + [f"double {s}" for s in scalars]
    return f"""
int loop_{prefix}_{kernel.name}_{precision}(int64_t clients, int64_t lo, int64_t hi, int64_t width,
                                            {", ".join(parameters)}, const double *tile, {t} *y0) {{
    int outside = 0;
    (void)tile;
    for (int64_t i = lo; i < hi; ++i) {{
        double total = 0;
        for (int64_t client = 0; client < clients; ++client)
            total += badmm_{prefix}_{kernel.name}_term({", ".join(given)});
        y0[i] = ({t})total;
        {outside(precision, "y0[i]", "real")}
    }}
    return outside;
}}"""


LINES = "round"  # the header of the lines of a round, the same for every family


def records(family: str) -> Iterator[tuple[str, str, Record]]:
    """The elementwise kernels of a family's namespace: name of the record, header that has the function, record."""
    for name, value in vars(badmm_kernels.load(family)).items():
        if isinstance(value, Record):
            yield name, family if name.startswith("_") else LINES, value


def includes(families: Sequence[str]) -> str:
    """The headers of some families, and of a round's lines."""
    return "".join(f'#include "badmm/{name}.h"\n' for name in (*families, LINES))


def loops(families: Sequence[str]) -> str:
    """A C file with the loops of some families."""
    writers: dict[type, Callable[[str, Any, str], str]]
    writers = {MapKernel: map_loop, ReductionKernel: reduction_loop, ClientSumKernel: client_sum_loop}
    kernels = {(prefix, kernel.name): kernel for family in families for _, prefix, kernel in records(family)}
    found = [writers[type(k)](prefix, k, precision) for (prefix, _), k in kernels.items() for precision in TYPES]
    return f"#include <math.h>\n#include <stdint.h>\n{includes(families)}{''.join(found)}\n"


def shared_object(
    texts: Sequence[str], compiler: str, flags: Sequence[str], include: Path = INCLUDE, sources: Sequence[str] = ()
) -> ctypes.CDLL:
    """C texts, and files of the include folder, compiled into a shared object and loaded."""
    with tempfile.TemporaryDirectory() as folder:
        library, own = Path(folder) / "loops.so", [Path(folder) / f"{number}.c" for number, _ in enumerate(texts)]
        for path, text in zip(own, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        command = [compiler, *flags, "-fPIC", "-shared", f"-I{include}", "-o", str(library)]
        done = run([*command, *own, *(include / name for name in sources), "-lm"])
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library))


@cache
def compiled(
    compiler: str = "gcc",
    flags: tuple[str, ...] = (*PLAIN, *STRICT),
    families: tuple[str, ...] = REPRESENTATIVE,
    include: Path = INCLUDE,
) -> ctypes.CDLL:
    """The loops over the headers' inline functions, and the functions of these headers with external linkage: what
    badmm_kernels.c makes of all headers."""
    external = f"#define BADMM_EXTERNAL\n{includes(families)}"
    return shared_object((loops(families), external), compiler, flags, include)


# ---- the namespace ---------------------------------------------------------------------------------------------------


class _PublicScalars:
    """The header forms the uniforms itself: a loop is given the public scalars, once they are checked."""

    def numbers(self, scalars: Sequence[Any], dtype: np.dtype[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        values, _ = super().numbers(scalars, dtype)  # type: ignore[misc]
        return values, values


class HeaderMap(_PublicScalars, MapKernel):
    """A map whose loop is the header's."""


class HeaderReduction(_PublicScalars, ReductionKernel):
    """A reduction whose terms are the header's."""


class HeaderClientSum(_PublicScalars, ClientSumKernel):
    """A client sum whose terms are the header's."""


HEADER: dict[type, Any] = {
    MapKernel: HeaderMap,
    ReductionKernel: HeaderReduction,
    ClientSumKernel: HeaderClientSum,
}


def loop_function(function: Any) -> Callable[..., int]:
    """A compiled loop, called with arrays and numbers as a Numba loop is."""

    def converted(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return ctypes.c_void_p(ar.address(value))
        return ctypes.c_double(value) if isinstance(value, float) else ctypes.c_int64(value)

    return lambda *arguments: int(function(*[converted(a) for a in arguments]))


def scalar_function(library: ctypes.CDLL, name: str, precision: str, kernel: MapKernel) -> Callable[..., Any]:
    """The header's function of one coordinate, called as the Numba one is: a number, or a tuple of several."""
    function, kind = library[name], C_TYPES[precision]
    count = len(kernel.results)
    arguments = [kind] * len(kernel.operands) + [ctypes.c_double] * len(kernel.scalars)
    if count == 1:
        function.argtypes, function.restype = arguments, kind
        return function
    function.argtypes, function.restype = arguments + [ctypes.POINTER(kind)] * count, None

    def call(*values: float) -> tuple[float, ...]:
        results = [kind() for _ in range(count)]
        function(*values, *map(ctypes.byref, results))
        return tuple(r.value for r in results)

    return call


def special_function(library: ctypes.CDLL, name: str, arity: int) -> Any:
    """A shared function, double to double."""
    function = library[f"badmm_{name}"]
    function.argtypes, function.restype = [ctypes.c_double] * arity, ctypes.c_double
    return function


def namespace(family: str, library: ctypes.CDLL) -> types.ModuleType:
    """A copy of the family's CPU module in which the header does the arithmetic."""
    original = badmm_kernels.load(family)
    copy = types.ModuleType(f"header_{family}")
    copy.__dict__.update(vars(original))
    for name, prefix, kernel in records(family):
        fields = {f.name: getattr(kernel, f.name) for f in dataclasses.fields(kernel)}
        for field, precision in (("single", "f32"), ("double", "f64")):
            fields[field] = loop_function(library[f"loop_{prefix}_{kernel.name}_{precision}"])
            if isinstance(kernel, MapKernel):
                own = f"{kernel.name}_{precision}"
                setattr(copy, own, scalar_function(library, f"badmm_{prefix}_{own}", precision, kernel))
        setattr(copy, name, HEADER[type(kernel)](**fields))
    for name, value in vars(original).items():
        if isinstance(value, types.FunctionType) and value.__module__ == original.__name__:
            moved = types.FunctionType(value.__code__, copy.__dict__, name, value.__defaults__)
            moved.__kwdefaults__ = value.__kwdefaults__
            setattr(copy, name, moved)
        elif name in original.__all__ and hasattr(value, "py_func"):
            setattr(copy, name, special_function(library, name, value.py_func.__code__.co_argcount))
    return copy


def loader(compiler: str, flags: tuple[str, ...]) -> Callable[..., types.ModuleType]:
    """`badmm_kernels.load` for the header as one compiler builds it."""

    def load(family: str, device: str = "cpu") -> types.ModuleType:
        return namespace(family, compiled(compiler, (*flags, *STRICT)))

    return load


def copied_headers(folder: Path) -> Path:
    """The headers in a folder where they may be changed."""
    target = folder / "include"
    shutil.copytree(INCLUDE, target)
    return target


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """A command's outcome, its output as text; the compilers speak English."""
    environment = os.environ | {"LC_ALL": "C"}
    return subprocess.run([str(w) for w in command], capture_output=True, text=True, env=environment, **options)
