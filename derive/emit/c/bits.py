"""The bits of a real, and the real with some bits, in C."""

from __future__ import annotations

from collections.abc import Iterator

from . import interface as ci
from .printer import BITS, TYPE, comment

INTRINSIC = {
    ("bits", "f64"): "BADMM_CAST(unsigned long long, __double_as_longlong(value))",
    ("bits", "f32"): "__float_as_uint(value)",
    ("from_bits", "f64"): "__longlong_as_double(BADMM_CAST(long long, value))",
    ("from_bits", "f32"): "__uint_as_float(value)",
}


def functions() -> Iterator[str]:
    """Both functions in both precisions."""
    for name, text in (("bits", "The bits of a number."), ("from_bits", "The number with these bits.")):
        yield f"{comment([text])}\n" + "\n\n".join(_function(name, p) for p in ci.PRECISIONS)


def _function(name: str, precision: str) -> str:
    """One of them; device code has functions of its own for it."""
    taken, given = TYPE[precision], BITS[precision]
    if name == "from_bits":
        taken, given = given, taken
    return f"""BADMM_INLINE {given} badmm_{name}_{precision}({taken} value)
{{
#if defined(__CUDA_ARCH__)
    return {INTRINSIC[name, precision]};
#else
    {given} result;
    memcpy(&result, &value, sizeof result);
    return result;
#endif
}}"""
