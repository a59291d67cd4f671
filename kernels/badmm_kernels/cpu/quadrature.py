"""Gaussian expectations of one function of one number, from tables of it: the trapezoidal rule of the generated
likelihoods with every node shared by all rows.

Nodes a = place + distance sinh(t) lie on uniform grids of t, one grid a level, so that g, g′ and g″ at them are
computed once a process; a row then costs one exponential a node, and that is a polynomial which vectorises over nodes
(`python -m benchmarks.likelihoods`). A row whose predictor is narrower or farther out than the tables reach is left
to the caller's own loop. Sums run over whole multiples of GROUP nodes, half of the surplus on either side, so that
no loop has a remainder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from badmm_kernels.cpu.intrinsics import bits, f64, fma, from_bits, i64, u64

Array = np.ndarray[Any, Any]
LEAST_WIDTH = 0.03  # posterior width over the distance to the singularity, below which a row is left to the caller
STEP, BEND = 0.66, 0.16  # as derive/lower/quadrature.py has them
FARTHEST = 8.5  # of t: predictors of up to 2400 times the distance to the singularity
LEVELS = 4  # grids an octave of steps
GROUP = 16
FIRST_BIN = int(np.float64(LEAST_WIDTH**2).view(np.uint64) >> np.uint64(50)) + 1
BINS = int(np.float64(4.0).view(np.uint64) >> np.uint64(50)) - FIRST_BIN + 1  # quarter octaves of the width's square

MAGIC = 6755399441055744.0  # 1.5 · 2⁵²: adding it rounds to a whole number, which its low bits then hold
HALF_LOG2E = math.sqrt(0.5 / math.log(2))  # exp(−z²/2) = 2^−(z · this)²
ROOT = 1 / math.sqrt(2 * math.pi)
ABOUT = 0.02  # by how much the approximate logarithm below may be wrong
# 2^r on |r| ≤ 1/2, relative error 1.4e-14: half a unit of the accuracy of a sum of a hundred nodes
P0, P1, P2, P3, P4, P5, P6, P7, P8, P9 = (
    1.0000000000000135,
    0.6931471805599462,
    0.2402265069564034,
    0.05550410866465167,
    0.009618129193934313,
    0.0013333558200794592,
    0.0001540343375125101,
    1.5252672924850737e-05,
    1.325964524488711e-06,
    1.0205905413765595e-07,
)
JIT: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


class Tables(NamedTuple):
    """Grids of one function: level by width, then by level nodes a unit of t, the place of t = 0, and the reach in
    nodes; nodes and the three functions at them times their weight."""

    levels: Array
    rates: Array
    origins: Array
    reaches: Array
    nodes: Array
    value: Array
    slope: Array
    curvature: Array


@cache
def tables(profile: Callable[[float], tuple[float, float, float]], place: float, distance: float) -> Tables:
    """The grids of a function that returns (g, g′, g″)."""
    narrowest = np.array([FIRST_BIN + k for k in range(BINS)], np.uint64) << np.uint64(50)
    widths = np.sqrt(narrowest.view(np.float64))
    needed = STEP * widths / np.sqrt(1 + (widths / BEND) ** 2)
    steps = needed[-1] * 2.0 ** (-np.arange(64) / LEVELS)
    steps = steps[: int(np.argmax(steps <= needed[0])) + 1]
    levels = np.array([int(np.argmax(steps <= h * (1 + 1e-12))) for h in needed])
    reaches = np.array([math.ceil(FARTHEST / h) for h in steps])
    counts = 2 * (reaches + GROUP) + 1
    origins = np.concatenate([[0], np.cumsum(counts)[:-1]]) + reaches + GROUP
    t = np.concatenate([np.arange(-r - GROUP, r + GROUP + 1) * h for r, h in zip(reaches, steps, strict=True)])
    weight = np.repeat(steps, counts) * np.cosh(t) * distance * ROOT
    nodes = place + distance * np.sinh(t)
    # called node by node, 4 ms for five thousand: a compiled loop over a function that it is given is not cached
    parts = np.array([profile(node) for node in nodes.tolist()]).T * weight
    return Tables(levels, 1.0 / steps, origins, reaches, nodes, *(np.ascontiguousarray(p) for p in parts))


@njit(**JIT, forceinline=True)
def bell(z: Any) -> Any:
    """2^−z² for |z| < 30; half a group of nodes beyond REACH is at |z| < 17."""
    k = fma(-z, z, MAGIC)
    r = fma(-z, z, -(k - MAGIC))
    p = fma(P9, r, P8)
    p = fma(p, r, P7)
    p = fma(p, r, P6)
    p = fma(p, r, P5)
    p = fma(p, r, P4)
    p = fma(p, r, P3)
    p = fma(p, r, P2)
    p = fma(p, r, P1)
    p = fma(p, r, P0)
    return from_bits(bits(p) + (bits(k) << u64(52)))


@njit(**JIT, forceinline=True)
def area_sine(x: Any) -> Any:
    """asinh x to within ABOUT: the exponent of |x| + √(x² + 1), and a parabola through its fraction."""
    size = abs(x)
    u = bits(size + math.sqrt(fma(size, size, 1.0)))
    exponent = f64(i64(u >> u64(52))) - 1023.0
    fraction = from_bits((u & u64(0xFFFFFFFFFFFFF)) | u64(0x3FF0000000000000)) - 1.0
    found = (exponent + fraction * fma(-0.3431, fraction, 1.3431)) * 0.6931471805599453
    return found if x > 0.0 else -found
