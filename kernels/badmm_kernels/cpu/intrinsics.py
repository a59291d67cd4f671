"""Operations that Numba lacks: an explicit fused multiply-add, loads and stores free of false aliasing, a select that
computes both values, and the bits of a number.

`load` and `store` state that an output overlaps no input, or exactly one that its own value is computed from (checked
by runtime.py before the call): every load that a store could clobber then feeds that store, so the loop vectorises in
place as well as out of place. There is no negative-index wraparound. With NUMBA_DISABLE_JIT=1 the same names are
exact Python functions.
"""

from __future__ import annotations

from fractions import Fraction
from math import isfinite
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

_OUTPUTS = 4  # alias scopes; no kernel has more outputs
UNSCOPED = 9  # the output number of a store that later loads must see


def _scopes(module: Any) -> list[Any]:
    domain = module.add_metadata(["kernels"])
    return [module.add_metadata([f"output {k}", domain]) for k in range(_OUTPUTS)]


def _element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(make_array(array_type)(context, builder, array).data, [index], inbounds=True)


@intrinsic(prefer_literal=False)
def _fma(_typing: Any, a: Any, b: Any, c: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, a, a), generate


@intrinsic
def _sum(_typing: Any, a: Any, b: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=("reassoc", "nsz"))

    return a(a, a), generate


@intrinsic
def _total_of(_typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a + b c in any order and rounding: a term of a sum that vectorises."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        product = builder.fmul(args[1], args[2], flags=("contract",))
        return builder.fadd(args[0], product, flags=("reassoc", "nsz", "contract"))

    return a(a, a, a), generate


@intrinsic
def _load(_typing: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        value = builder.load(_element(context, builder, array, *args), align=array.dtype.bitwidth // 8)
        value.set_metadata("noalias", builder.module.add_metadata(_scopes(builder.module)))
        return value

    return array.dtype(array, types.intp), generate


@intrinsic(prefer_literal=True)
def _store(_typing: Any, array: Any, index: Any, value: Any, output: Any) -> Any:
    number = output.literal_value

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        node = builder.store(
            args[2], _element(context, builder, array, args[0], args[1]), align=array.dtype.bitwidth // 8
        )
        if number == UNSCOPED:
            return context.get_dummy_value()
        scopes = _scopes(builder.module)
        node.set_metadata("alias.scope", builder.module.add_metadata([scopes[number]]))
        node.set_metadata("noalias", builder.module.add_metadata([s for k, s in enumerate(scopes) if k != number]))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype, output), generate


def _unless(inside: Any, value: Any, outside: Any) -> Any:
    """An intrinsic's signature and code: `outside` with its lowest bit set unless the value is inside.

    The flag keeps the width of `outside`: Numba's own `|` would widen it to 64 bits, and a loop over float32 would
    then compute half as many coordinates at once.
    """
    width = outside.bitwidth

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        flag = builder.zext(builder.not_(inside(builder, args[0])), ir.IntType(width))
        return builder.or_(args[1], flag)

    return outside(value, outside), generate


@intrinsic
def _nonfinite(_typing: Any, value: Any, outside: Any) -> Any:
    """`outside`, or 1 unless the value is finite."""

    def inside(builder: Any, x: Any) -> Any:
        infinity = ir.Constant(x.type, float("inf"))
        above = builder.fcmp_ordered(">", x, ir.Constant(x.type, float("-inf")))
        return builder.and_(above, builder.fcmp_ordered("<", x, infinity))

    return _unless(inside, value, outside)


@intrinsic
def _nonpositive(_typing: Any, value: Any, outside: Any) -> Any:
    """`outside`, or 1 unless the value is positive and finite: by its bits less one, as LLVM makes ten operations of
    two comparisons of the value."""
    infinity = 0x7F800000 if value.bitwidth == 32 else 0x7FF0000000000000

    def inside(builder: Any, x: Any) -> Any:
        integer = ir.IntType(value.bitwidth)
        shifted = builder.sub(builder.bitcast(x, integer), ir.Constant(integer, 1))
        return builder.icmp_unsigned("<", shifted, ir.Constant(integer, infinity - 1))

    return _unless(inside, value, outside)


@intrinsic
def _select(_typing: Any, condition: Any, a: Any, b: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(condition, a, a), generate


@intrinsic
def _bits(_typing: Any, value: Any) -> Any:
    """The representation of a number as an unsigned integer of its width."""
    kind = types.uint32 if value.bitwidth == 32 else types.uint64

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(kind.bitwidth))

    return kind(value), generate


@intrinsic
def _from_bits(_typing: Any, value: Any) -> Any:
    """The number with a representation."""
    kind = types.float32 if value.bitwidth == 32 else types.float64

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType() if kind.bitwidth == 32 else ir.DoubleType())

    return kind(value), generate


def _python_fma(a: Any, b: Any, c: Any) -> Any:
    kind = type(a)
    if not all(isfinite(x) for x in (a, b, c)):
        return kind(a * b + c)
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if kind is not np.float32:
        return kind(float(exact))
    # Rounding twice (to float64, then float32) is avoided by rounding the float64 to odd first.
    wide = float(exact)
    if Fraction(wide) != exact and not np.float64(wide).view(np.int64) & 1:
        wide = float(np.nextafter(wide, np.inf if exact > Fraction(wide) else -np.inf))
    return np.float32(wide)


def _python_bits(value: Any) -> Any:
    number = value if isinstance(value, np.float32) else np.float64(value)  # a literal is Python's
    return number.view(np.uint32 if number.itemsize == 4 else np.uint64)


def _python_store(array: Any, index: int, value: Any, _output: int) -> None:
    array[index] = value


if config.DISABLE_JIT:
    fma: Any = _python_fma
    add: Any = lambda a, b: a + b  # noqa: E731
    total_of: Any = lambda a, b, c: a + b * c  # noqa: E731
    load: Any = lambda array, index: array[index]  # noqa: E731
    store: Any = _python_store
    nonfinite: Any = lambda value, outside: outside | int(not isfinite(value))  # noqa: E731
    nonpositive: Any = lambda value, outside: outside | int(not 0 < value < np.inf)  # noqa: E731
    select: Any = lambda condition, a, b: a if condition else b  # noqa: E731
    bits: Any = _python_bits
    from_bits: Any = lambda value: value.view(np.float32 if value.itemsize == 4 else np.float64)  # noqa: E731
else:
    fma, add, load, store, nonfinite, nonpositive = _fma, _sum, _load, _store, _nonfinite, _nonpositive
    select, bits, from_bits, total_of = _select, _bits, _from_bits, _total_of
_kinds: Any = np if config.DISABLE_JIT else types
f32, f64, i32, i64, u32, u64 = (
    getattr(_kinds, name) for name in ("float32", "float64", "int32", "int64", "uint32", "uint64")
)
