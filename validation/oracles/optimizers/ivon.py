"""The IVON step and its normals, written plainly from the papers in mpmath: nothing here is derived or generated.

The generator is Philox 4x32-10 as Salmon et al. (SC 2011) state it; the normals are Box and Muller's. The step is
the papers', in h and delta, so that it shares no line with the kernels, which hold s = h + delta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mpmath
import numpy as np

from ...ulps import rounded

LOW = 0xFFFFFFFF
LANES = 32
# Known answers published with Random123 (kat_vectors): counter, key, words.
KNOWN_ANSWERS = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((LOW, LOW, LOW, LOW), (LOW, LOW), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, ...]:
    """Four words of Philox 4x32-10."""
    a, b, c, d = counter
    k, l = key
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (right >> 32) ^ b ^ k, right & LOW, (left >> 32) ^ d ^ l, left & LOW
        k, l = (k + 0x9E3779B9) & LOW, (l + 0xBB67AE85) & LOW
    return a, b, c, d


def normal(seed: int, step: int, coordinate: int, dtype: str) -> Any:
    """The exact normal at an address: Box and Muller's of the generator's words, the uniform rounded as documented."""
    width, count = (32, 4) if dtype == "float32" else (64, 2)
    tile, inside = divmod(coordinate, count * LANES)
    number, lane = divmod(inside, LANES)
    block = tile * LANES + lane
    words = philox((block & LOW, block >> 32, step & LOW, step >> 32), (seed & LOW, seed >> 32))
    if count == 2:
        words = (words[0] << 32 | words[1], words[2] << 32 | words[3])
    a, b = words[number // 2 * 2], words[number // 2 * 2 + 1]
    kind = np.dtype(dtype).type
    whole = mpmath.mpf(float(kind(a >> 1)))
    uniform = mpmath.mpf(float(kind(float(whole * mpmath.mpf(2) ** (1 - width) + mpmath.mpf(2) ** -width))))
    radius = mpmath.sqrt(-2 * mpmath.log(uniform))
    fraction = (b << 2) % 2**width
    fraction -= 2**width if fraction >> (width - 1) else 0
    angle = 2 * mpmath.pi * (mpmath.mpf(fraction) + 2) / mpmath.mpf(2) ** (width + 2)
    along, across = mpmath.cos(angle) * (-1 if b >> (width - 1) else 1), mpmath.sin(angle)
    if b >> (width - 2) & 1:
        along, across = across, along
    return radius * (along if number % 2 == 0 else across)


def coefficients(scalars: Mapping[str, float], dtype: str) -> dict[str, Any]:
    """The kernels' convention: what depends on scalars alone is formed in float64 and rounded once."""
    ess, beta1, beta2 = scalars["ess"], scalars["beta1"], scalars["beta2"]
    formed = {
        "root": float(np.sqrt(ess)),
        "inverse": 1.0 / float(np.sqrt(ess)),
        "keep": beta1,
        "enter": 1.0 - beta1,
        "gain": 1.0 - beta2,
        "rate": scalars["lr"],
        "unbias": 1.0 / scalars["debias"],
        "share": 1.0 / scalars.get("samples", 1.0),
    }
    return {name: rounded(value, dtype) for name, value in formed.items()} | {"clip": scalars.get("clip")}


def step_terms(
    point: Mapping[str, Any], c: Mapping[str, Any], price: Any, squared: bool = False
) -> dict[str, list[Any]]:
    """Every result of one coordinate as its terms; `price` is the mean of gradient*noise, or of gradient^2."""
    s, m, v, g = point["s"], point["m"], point["v"], point["g"]
    delta = point["c_S"]  # one split of s into h + delta; the result does not depend on it
    h = s - delta
    estimate = price if squared else c["root"] * price * mpmath.sqrt(s)
    gain = c["gain"]
    new = h - gain * h + gain * estimate + (gain * (h - estimate)) ** 2 / (2 * s) + delta
    slope = 1 + abs(gain * (estimate - h)) / s  # how much a rounding of the estimate weighs in the square
    momentum = [c["keep"] * v, c["enter"] * g]
    whole = (c["unbias"] * mpmath.fsum(momentum) - point["c_xi"] + delta * m) / new
    clip = c["clip"]
    limited = whole if clip is None else min(max(whole, -clip), clip)
    mean = m - c["rate"] * limited
    weight = 0 if limited != whole else c["rate"] / new
    scales = [weight * abs(t) for t in (c["unbias"] * momentum[0], c["unbias"] * momentum[1], point["c_xi"], delta * m)]
    # errors of the new precision reach the mean through the quotient
    scales.append(weight * abs(whole) * slope * max(s, abs(gain * estimate), gain * abs(delta), gain * s))
    return {
        "momentum": momentum,
        "precision": with_scales(new, [s, *(slope * gain * x for x in (estimate, delta, s))]),
        "mean": with_scales(mean, [m, c["rate"] * limited, *scales]),
    }


def with_scales(value: Any, scales: Sequence[Any]) -> list[Any]:
    """Terms that sum to a value and whose largest is the largest of the scales (or the value)."""
    top = max(abs(x) for x in (*scales, value))
    return [value - top, top]
