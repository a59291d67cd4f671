"""Rules for Gaussian expectations of an analytic function, as IR.

g is analytic but for singularities, the nearest at m₀ ± ic. With σ = s/√(c² + (p − m₀)²) the posterior's width in
units of the distance from its centre to them:

* σ < 0.03: Gauss–Hermite with n nodes, whose error is about n! σ²ⁿ: six have 4e-16, four where σ < 0.012 have 1e-14.
* σ < 0.11: the trapezoidal rule on nodes on z, a = p + sz, step 23/32, |z| ≤ 7.9; the error exp(−2π²/step²) is 3e-17.
* otherwise: the same on nodes t, a = m₀ + c sinh t, so that they are as far apart as the singularities are from them:
  a hundred nodes reach from s = 0.3c to s = 1000c. A contour t + iτ meets no singularity and no growth of the
  Gaussian for τ < π/4; with growth exp(tan²τ/(2σ²(1 − tan²τ))) the step 2πτ/(36 + …) has an error of e⁻³⁶ (Trefethen
  & Weideman, The exponentially convergent trapezoidal rule, SIAM Review 2014, section 5). STEP and BEND fit its
  maximum over τ.
"""

from __future__ import annotations

import math

import mpmath as mp

from ..ir.names import replaced
from ..ir.nodes import Expr, If, Let, Lit, Loop, Op, Quadrature, Stmt, Var

HERMITE = ((4, 0.012), (6, 0.03))
"""Nodes and the widths below which they are enough."""
NARROW = 0.11
NARROW_STEP = 23 / 32
NARROW_NODES = 23
STEP, BEND = 0.66, 0.16
REACH = 8.3  # standard deviations: φ is 1e-16 of its peak there
MOST = 4096


def _op(name: str, *args: Expr | str | float) -> Op:
    parts = tuple(Var(a) if isinstance(a, str) else Lit(repr(float(a))) if isinstance(a, int | float) else a
                  for a in args)  # fmt: skip
    return Op(name, parts)


def statements(q: Quadrature, prefix: str) -> tuple[Stmt, ...]:
    """The rule as a loop over nodes; local names begin with `prefix`."""

    def own(name: str) -> str:
        return f"{prefix}{name}"

    totals = [own(f"sum{k}") for k in range(3)]
    z, x, w, t = own("z"), own("x"), own("w"), own("t")
    names = {q.argument: Var(x)} | {s.name: Var(own(s.name)) for s in q.body if isinstance(s, Let)}
    inside = [Let(own(s.name), replaced(s.value, names)) for s in q.body if isinstance(s, Let)]
    inside += [Let(total, _op("fma", w, replaced(value, names), total))
               for total, value in zip(totals, q.values, strict=True)]  # fmt: skip
    weight = _op("exp", _op("mul", _op("mul", -0.5, z), z))
    narrow: tuple[Stmt, ...] = (
        Let(z, Lit(repr(-NARROW_STEP * (NARROW_NODES - 1) / 2))),
        Loop(
            NARROW_NODES,
            _op("lt", REACH, z),
            (
                Let(x, _op("fma", q.spread, z, q.center)),
                Let(w, weight),
                *inside,
                Let(z, _op("add", z, NARROW_STEP)),
            ),
        ),
        Let(own("unit"), Lit(repr(NARROW_STEP / math.sqrt(2 * math.pi)))),
    )
    bent = _op("div", own("width"), BEND)
    step = _op("div", _op("mul", STEP, own("width")), _op("sqrt", _op("fma", bent, bent, 1.0)))
    e = own("e")
    wide: tuple[Stmt, ...] = (
        Let(own("step"), step),
        *_area_sine(t, _op("div", _op("fma", -REACH, q.spread, own("offset")), q.distance), own("low")),
        *_area_sine(own("end"), _op("div", _op("fma", REACH, q.spread, own("offset")), q.distance), own("high")),
        Loop(
            MOST,
            _op("lt", own("end"), t),
            (
                Let(e, _op("exp", t)),
                Let(own("back"), _op("div", 1.0, e)),
                Let(x, _op("fma", q.distance / 2, _op("sub", e, own("back")), q.place)),
                Let(z, _op("div", _op("sub", x, q.center), q.spread)),
                Let(w, _op("mul", weight, _op("add", e, own("back")))),
                *inside,
                Let(t, _op("add", t, own("step"))),
            ),
        ),
        Let(own("unit"), _op("div", _op("mul", q.distance / math.sqrt(8 * math.pi), own("step")), q.spread)),
    )
    chosen = If(_op("lt", own("width"), NARROW), narrow, wide)
    for count, limit in reversed(HERMITE):
        few = [
            stmt
            for node, share in _hermite(count)
            for stmt in (Let(x, _op("fma", q.spread, node, q.center)), Let(w, Lit(repr(share))), *inside)
        ]
        chosen = If(_op("lt", own("width"), limit), (*few, Let(own("unit"), Lit("1.0"))), (chosen,))
    return (
        Let(own("offset"), _op("sub", q.center, q.place)),
        Let(own("width"), _op("div", q.spread, _op("sqrt", _op("fma", own("offset"), own("offset"), q.distance**2)))),
        *(Let(total, Lit("0.0")) for total in totals),
        *(Let(n, Lit("0.0")) for n in (z, x, w, t, own("unit"), e, own("back"), own("step"), own("end"))),
        *(Let(n, Lit("0.0")) for n in (own("low"), own("high"))),
        *(Let(s.name, Lit("0.0")) for s in inside[: len(q.body)]),
        chosen,
        *(Let(n, _op("mul", total, own("unit"))) for n, total in zip(q.results, totals, strict=True)),
    )


def _hermite(count: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights n!/(n He_{n−1})² of a standard normal: exact for polynomials of degree 2n − 1."""
    with mp.workdps(40):
        before, last = [mp.mpf(1)], [mp.mpf(1), mp.mpf(0)]
        for k in range(1, count):
            shifted = [*last, mp.mpf(0)]
            before, last = last, [a - k * b for a, b in zip(shifted, [mp.mpf(0), mp.mpf(0), *before], strict=True)]
        roots = sorted(mp.re(root) for root in mp.polyroots(last, maxsteps=200, extraprec=200))
        shares = [mp.factorial(count) / (count * mp.polyval(before, root)) ** 2 for root in roots]
        return tuple((float(root), float(share)) for root, share in zip(roots, shares, strict=True))


def _area_sine(name: str, value: Expr, size: str) -> tuple[Stmt, ...]:
    """name = asinh(value)."""
    magnitude = _op("abs", size)
    logarithm = _op("log", _op("add", magnitude, _op("sqrt", _op("fma", size, size, 1.0))))
    return (
        Let(size, value),
        Let(name, logarithm),
        Let(name, _op("select", _op("lt", size, 0.0), _op("neg", name), name)),
    )
