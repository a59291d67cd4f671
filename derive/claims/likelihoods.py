"""Claims about one likelihood: that its kernels are what follows from f(a; y, …)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import product
from typing import Any

import mpmath as mp
import sympy as sp

from ..calculus.likelihood import Likelihood
from ..calculus.losses import loss_of
from ..calculus.special import define
from ..ir.evaluate import Evaluator
from ..ir.nodes import LossModule, Map
from ..lower.likelihoods import build_loss
from .claim import Claim, ClaimError

DIGITS = 30
PREDICTORS = (-30.0, -6.0, -0.4, 0.9, 5.0, 30.0)
RESPONSES: dict[str, tuple[float, ...]] = {"binary": (0, 1), "count": (3,), "real": (0.7,), "positive": (1.7,)}
PARAMETERS = (1.3, 0.8)
MEANS_AND_DEVIATIONS = ((0.3, 1e-6), (-1.2, 1e-2), (0.7, 0.3), (2.0, 1.0), (-3.0, 3.0), (1.0, 30.0), (-20.0, 1e3))
LITERALS = mp.mpf(10) ** -14
QUADRATURE = mp.mpf(10) ** -13
BRACKETS = (-300, -60, -30, -12, -5, -2, 0, 2, 5, 12, 30, 60, 300)
DEVIATIONS = (-13, -6, -3, -1, 0, 1, 3, 6, 13)


def _cdf(x: Any) -> Any:
    return _cdf_with(x, mp.mp.prec)


@lru_cache(1 << 15)
def _cdf_with(x: Any, _precision: int) -> Any:
    """Φ(x), which three integrals ask for at the same nodes."""
    return mp.erfc(-x / mp.sqrt(2)) / 2


def _mills(x: Any) -> Any:
    return mp.npdf(x) / _cdf(x)


# by mpmath, whose exponents have no end: what the functions of losses are where a definition would cancel to 0
EXACT: dict[str, Callable[[Any], Any]] = {
    "log1p": mp.log1p,
    "softplus": lambda x: max(x, 0) + mp.log1p(mp.exp(-abs(x))),
    "logistic": lambda x: 1 / (1 + mp.exp(-x)),
    "log_normal_cdf": lambda x: mp.log(_cdf(x)) if x < 0 else mp.log1p(-_cdf(-x)),
    "mills": _mills,
    "mills_excess": lambda x: x + _mills(x),
    "log_one_minus_exp": lambda u: mp.log(-mp.expm1(-u)) if u < 1 else mp.log1p(-mp.exp(-u)),
    "log_event": lambda x: mp.log(-mp.expm1(-mp.exp(x))) if x < 1 else mp.log1p(-mp.exp(-mp.exp(x))),
    "bernoulli": lambda u: u / mp.expm1(u) if u < 700 else mp.mpf(0),
    "bernoulli_slope": lambda u: _bernoulli_slope(u),
}


def _bernoulli_slope(u: Any) -> Any:
    if u > 700:
        return mp.mpf(0)
    with mp.workdps(3 * DIGITS):
        e = mp.expm1(u)
        return u * (e - u * (e + 1)) / e**2


class Row:
    """One choice of responses and parameters, and f and its derivatives there."""

    def __init__(self, likelihood: Likelihood, responses: Sequence[float]) -> None:
        loss = loss_of(likelihood)
        symbols = [*(r.symbol for r in likelihood.responses), *(p.symbol for p in likelihood.parameters)]
        values = [*responses, *PARAMETERS[: len(likelihood.parameters)]]
        table = {s: sp.Float(v, DIGITS) if v % 1 else sp.Integer(v) for s, v in zip(symbols, values, strict=True)}
        self.constants = {str(s): mp.mpf(v) for s, v in zip(symbols, values, strict=True)}
        self.constants |= {"weight": mp.mpf(1), "offset": mp.mpf(0)}
        self.exact: list[Callable[[Any], Any]] = [
            sp.lambdify(loss.a, loss.restored(loss.stable(k)).subs(table), [EXACT, "mpmath"]) for k in range(3)
        ]
        self.functions: list[Callable[[Any], Any]] = [
            sp.lambdify(loss.a, define(e.subs(table)), "mpmath") for e in loss.derivatives
        ]
        self.kinks = _kinks(likelihood, table)


def _kinks(likelihood: Likelihood, table: dict[sp.Symbol, Any]) -> list[float]:
    """Where pieces of f meet."""
    conditions = {c for piece in likelihood.loss.atoms(sp.Piecewise) for _, c in piece.args if c != sp.true}
    found: list[float] = []
    for condition in conditions:
        found += [float(r) for r in sp.solve(sp.Eq(condition.lhs, condition.rhs).subs(table), likelihood.predictor)]
    return found


def rows(likelihood: Likelihood) -> Iterator[Row]:
    """Every combination of labels, one value of the other responses."""
    for responses in product(*(RESPONSES[r.support] for r in likelihood.responses)):
        yield Row(likelihood, responses)


def compare(kernel: Map, got: Sequence[Any], expected: Sequence[Any], tolerance: Any, at: str) -> None:
    """Raise where a result is off by more than the tolerance of the larger of 1 and its size."""
    for number, (ours, exact) in enumerate(zip(got, expected, strict=True)):
        miss = abs(ours - exact)
        if not miss <= tolerance * max(1, abs(exact)):
            raise ClaimError(f"{kernel.name}: result {number} misses by {mp.nstr(miss, 5)} at {at}")


def stable_forms(likelihood: Likelihood, module: LossModule) -> str:
    """f, f′, f″ as lowered, plus the constant, equal the stated loss and its derivatives on both tails."""
    evaluator, count = Evaluator(module.functions), 0
    loss, offset, _ = module.kernels
    for row in rows(likelihood):
        with mp.workdps(DIGITS):
            (constant,) = evaluator.kernel(offset, dict(row.constants))
            for a in PREDICTORS:
                point = {**row.constants, loss.operands[0].variable: mp.mpf(a)}
                got = evaluator.kernel(loss, point)
                with mp.workdps(DIGITS * 40):
                    expected = [f(mp.mpf(a)) for f in row.functions]
                exact = [f(mp.mpf(a)) for f in row.exact]
                for ours in (got, exact):
                    compare(loss, [ours[0] + constant, *ours[1:]], expected, LITERALS, f"a = {a}")
                count += 1
    return f"mpmath, {DIGITS} digits at {count} points, |a| to 30"


def expectations(likelihood: Likelihood, module: LossModule) -> str:
    """E[f], E[f′], E[f″] as lowered equal tanh-sinh quadrature of the loss, at sd 1e-6 to 1e3."""
    evaluator, kernel, count = Evaluator(module.functions), module.kernels[2], 0
    with mp.workdps(DIGITS):
        for number, row in enumerate(rows(likelihood)):
            # another label takes the same path through the same nodes
            for mean, deviation in MEANS_AND_DEVIATIONS[:: 1 if number == 0 else 3]:
                p, s = mp.mpf(mean), mp.mpf(deviation)
                if deviation > 5 and _grows_exponentially(likelihood):
                    continue  # its expectation is exp(s²/2): proved symbolically, beyond what quadrature holds
                point = {**row.constants, kernel.operands[0].variable: p, "variance": s * s}
                got = evaluator.kernel(kernel, point)
                expected = expected_values(row.exact, p, s, row.kinks)
                compare(kernel, got, expected, QUADRATURE, f"mean {mean}, sd {deviation}")
                count += 1
    return f"mpmath quadrature, {DIGITS} digits at {count} points"


def _grows_exponentially(likelihood: Likelihood) -> bool:
    return sp.oo in loss_of(likelihood).growth or loss_of(likelihood).closed.has(sp.exp)


def expected_values(functions: Sequence[Callable[[Any], Any]], p: Any, s: Any, kinks: Sequence[float]) -> list[Any]:
    """E f under N(p, s²) of each function; all are integrated at the same nodes, whose weights are computed once."""
    low, high = p + DEVIATIONS[0] * s, p + DEVIATIONS[-1] * s
    marks = {p + k * s for k in DEVIATIONS} | {mp.mpf(k) for k in (*BRACKETS, *kinks)}
    inside = sorted(m for m in marks if low <= m <= high)
    scale = 1 / (s * mp.sqrt(2 * mp.pi))

    @lru_cache(None)
    def weight(a: Any) -> Any:
        return scale * mp.exp(-(((a - p) / s) ** 2) / 2)

    return [mp.quad(lambda a, f=f: f(a) * weight(a), inside, maxdegree=5) for f in functions]


def convexity(likelihood: Likelihood, module: LossModule) -> str:
    """f″ as lowered is nowhere negative where the kernels say so, and somewhere where they do not."""
    evaluator, least, loss = Evaluator(module.functions), mp.inf, module.kernels[0]
    for row in rows(likelihood):
        for k in range(-40, 41):
            point = {**row.constants, loss.operands[0].variable: mp.mpf(k) / 4}
            least = min(least, evaluator.kernel(loss, point)[2])
    convex = dict(module.facts)["CONVEX"]
    if convex != (least >= -LITERALS):
        raise ClaimError(f"stated {'convex' if convex else 'not convex'}, the least curvature is {mp.nstr(least, 5)}")
    return f"least curvature {'0 or more' if convex else 'negative'} on a grid of predictors"


def claims(likelihood: Likelihood) -> Iterator[Claim]:
    """The claims about a likelihood's kernels."""
    module = build_loss(likelihood)
    name, f = module.prefix, sp.latex(likelihood.loss)
    source = f"derive/likelihoods/{likelihood.name}.py"
    yield Claim(
        "loss", name, rf"f={f},\ f',\ f''", partial(stable_forms, likelihood, module), source,
        (f"{name}.loss", f"{name}.constant"),
    )  # fmt: skip
    yield Claim(
        "expectations", name, r"E[f],\ E[f'],\ E[f''],\ a\sim N(p,v)", partial(expectations, likelihood, module),
        source, (f"{name}.expected_loss",),
    )  # fmt: skip
    yield Claim("convexity", name, r"\text{sign of } f''", partial(convexity, likelihood, module), source)
