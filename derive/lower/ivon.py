"""The IVON step as sweeps: the derived lines, lowered, with the momentum, the clip and the normals around them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import sympy as sp

from ..ir.nodes import Expr, Let, Lit, Normal, Op, Operand, OptimizerModule, Result, Scalar, Stmt, Sweep, Var
from ..updates import ivon
from . import noise
from .expressions import lower

PAPER = "Shen et al., arXiv:2402.17641, algorithm 1"
PRIOR = "Möllenhoff et al., arXiv:2506.13150, IVON-ADMM"
FILES = ("updates/ivon.py", "lower/ivon.py", "lower/noise.py")

root_ess, inverse_root_ess, gain, keep, enter, unbias, rate, share = sp.symbols(
    "root_ess inverse_root_ess gain keep enter unbias rate share", real=True
)
v, momentum, curvature, direction = sp.symbols("v momentum curvature direction", real=True)
g, m, s, eps, c_s, w = ivon.g, ivon.m, ivon.s, ivon.eps, ivon.c_s, ivon.w

SCALARS = {
    "ess": Scalar("ess", "ess", "positive"),
    "lr": Scalar("lr", "lr", "nonnegative"),
    "beta1": Scalar("beta1", "beta_1", "unit"),
    "beta2": Scalar("beta2", "beta_2", "unit"),
    "debias": Scalar("debias", "debias", "fraction"),
    "clip": Scalar("clip", "clip", "radius"),
    "samples": Scalar("samples", "samples", "count"),
}
UNIFORMS: dict[str, tuple[str, Expr]] = {
    "root_ess": ("ess", Op("sqrt", (Var("ess"),))),
    "inverse_root_ess": ("ess", Op("div", (Lit("1.0"), Op("sqrt", (Var("ess"),))))),
    "gain": ("beta2", Op("sub", (Lit("1.0"), Var("beta_2")))),
    "keep": ("beta1", Var("beta_1")),
    "enter": ("beta1", Op("sub", (Lit("1.0"), Var("beta_1")))),
    "unbias": ("debias", Op("div", (Lit("1.0"), Var("debias")))),
    "rate": ("lr", Var("lr")),
    "radius": ("clip", Var("clip")),
    "share": ("samples", Op("div", (Lit("1.0"), Var("samples")))),
}
OPERANDS = {
    "gradient": Operand("gradient", "g", "real"),
    "mean": Operand("mean", "m", "real"),
    "precision": Operand("precision", "s", "positive"),
    "momentum": Operand("momentum", "v", "real"),
    "total_gradient": Operand("total_gradient", "total_g", "real"),
    "total_price": Operand("total_price", "total_q", "real"),
    "total_square": Operand("total_square", "total_q", "real"),
}
CAVITY = (
    Operand("cavity.precision_mean", "c_xi", "real", scalar=True),
    Operand("cavity.precision", "c_S", "real", scalar=True),
)
DRAWN = Normal("noise", "eps", "step", kept=True)
GIVEN = Normal("noise", "eps", "step", kept=False)
NEXT = Normal("next_noise", "eps_next", "next_step", kept=True)


def lines(*named: tuple[str, sp.Expr]) -> list[Stmt]:
    """One statement an expression, lowered with explicit fma."""
    body: list[Stmt] = []
    for name, expr in named:
        statements, (value,) = lower([expr], prefix=f"{name}_", share=False)
        body += [*statements, Let(name, value)]
    return body


def clipped(value: Expr, radius: Expr) -> list[Stmt]:
    """`direction` = value within ±radius; a NaN stays one, as neither comparison holds."""
    whole, capped = Var("whole"), Var("capped")
    least = Op("neg", (radius,))
    return [
        Let("whole", value),
        Let("capped", Op("select", (Op("lt", (radius, whole)), radius, whole))),
        Let("direction", Op("select", (Op("lt", (capped, least)), least, capped))),
    ]


def precision_body(estimate: sp.Expr) -> list[Stmt]:
    """The new precision from the estimate of f + δ."""
    retracted = s + w * (1 + w / (2 * s))  # claimed to be the derived retraction; the fma keeps a small w's digits
    return lines(("curvature", estimate), ("w", gain * (curvature - s)), ("s_new", retracted))


def slope(of: sp.Expr) -> Expr:
    """The slope of the client's objective in the mean, from the mean loss's gradient."""
    _, (value,) = lower([sp.expand(ivon.kernel_step().direction * s).subs(g, of)], share=False)
    return value


def step_body(estimate: sp.Expr) -> list[Stmt]:
    """The new momentum, precision and mean from g and the estimate of f + δ."""
    return [
        *precision_body(estimate),
        *lines(("momentum", keep * v + enter * g)),
        *clipped(Op("div", (slope(momentum * unbias), Var("s_new"))), Var("radius")),
        *lines(("m_new", m - rate * direction)),
    ]


def sampled(mean: str, precision: str, normal: str) -> Expr:
    """θ of a mean, a precision over ess and a standard normal."""
    over = Op("div", (Var("inverse_root_ess"), Op("sqrt", (Var(precision),))))
    return Op("fma", (Var(normal), over, Var(mean)))


STATE = (
    Result("mean", Var("m_new"), "real", "mean"),
    Result("precision", Var("s_new"), "positive", "precision"),
    Result("momentum", Var("momentum"), "real", "momentum"),
)
STATE_OPERANDS = (OPERANDS["mean"], OPERANDS["precision"], OPERANDS["momentum"], *CAVITY)
MEMBER_OPERANDS = (OPERANDS["mean"], OPERANDS["precision"], *CAVITY)
HYPER = ("ess", "lr", "beta1", "beta2", "debias", "clip")
STEP_UNIFORMS = ("root_ess", "keep", "enter", "gain", "unbias", "rate", "radius")
PRECISION_HYPER = ("ess", "beta2")
PRECISION_UNIFORMS = ("root_ess", "gain")
PRICE = g * eps * sp.sqrt(s) * root_ess + c_s
PRECISION_FORMULA = (
    "f + delta = gradient*noise*sqrt(ess*s) + c_S, w = (1 - beta2)*(f + delta - s), s' = s + w + w^2/(2 s), "
)
SLOPE = "slope gradient + c_S*m - c_xi"
PRECISION_TEXT = "The IVON step of the precision, and the objective's slope in the mean"
FORMULA = PRECISION_FORMULA + "v' = beta1*v + (1 - beta1)*gradient, m' = m - lr*clip((v'/debias + c_S*m - c_xi)/s')"
SAMPLE_FORMULA = "m + noise/sqrt(ess*s)"


def sweep(
    name: str,
    operands: tuple[Operand, ...],
    normals: tuple[Normal, ...],
    scalars: tuple[str, ...],
    uniforms: tuple[str, ...],
    body: list[Stmt],
    results: tuple[Result, ...],
    texts: tuple[str, str, str],
) -> Sweep:
    """A sweep from the tables above."""
    formed = tuple((u, UNIFORMS[u][1]) for u in uniforms)
    return Sweep(name, operands, tuple(SCALARS[n] for n in scalars), formed, tuple(body), normals, results, *texts)


def sampling() -> Sweep:
    """θ alone."""
    return sweep(
        "sample",
        (OPERANDS["mean"], OPERANDS["precision"]),
        (DRAWN,),
        ("ess",),
        ("inverse_root_ess",),
        [],
        (Result("sample", sampled("m", "s", "eps"), "real", "mean"),),
        ("One sample of the posterior.", SAMPLE_FORMULA, PAPER),
    )


def updates() -> list[Sweep]:
    """The step of one sample, alone and with the next sample."""
    operands = (OPERANDS["gradient"], *STATE_OPERANDS)
    source = f"{PAPER}; {PRIOR}"
    return [
        sweep(
            "update", operands, (GIVEN,), HYPER, STEP_UNIFORMS, step_body(PRICE), STATE,
            ("The IVON step from one sample's gradient.", FORMULA, source),
        ),
        sweep(
            "update_sample", operands, (GIVEN, NEXT), HYPER, (*STEP_UNIFORMS, "inverse_root_ess"), step_body(PRICE),
            (*STATE, Result("sample", sampled("m_new", "s_new", "eps_next"), "real", "gradient")),
            ("The IVON step and the next sample, in one pass.", f"{FORMULA}, sample m' + noise'/sqrt(ess*s')", source),
        ),
        sweep(
            "update_precision", (OPERANDS["gradient"], *MEMBER_OPERANDS), (GIVEN,), PRECISION_HYPER, PRECISION_UNIFORMS,
            precision_body(PRICE), precision_and_slope("gradient", g),
            (f"{PRECISION_TEXT}.", PRECISION_FORMULA + SLOPE, source),
        ),
    ]  # fmt: skip


def precision_and_slope(replaced: str, gradient: sp.Expr) -> tuple[Result, Result]:
    """The new precision, and the slope for a gradient of the mean loss, in the memory of `replaced`."""
    return STATE[1], Result("slope", slope(gradient), "real", replaced)


def averages() -> list[Sweep]:
    """Several samples a step: running sums, and the step of their averages."""
    total_g, total_q = OPERANDS["total_gradient"], sp.Symbol("total_q", real=True)
    mean_g = share * sp.Symbol("total_g", real=True)
    mean_price = share * total_q * sp.sqrt(s) * root_ess + c_s
    sums = (Result("total_gradient", Op("add", (Var("total_g"), Var("g"))), "real", "total_gradient"),)
    found = []
    for suffix, quantity, added, curvature_of, normals in (
        ("", "total_price", eps, mean_price, (GIVEN,)),
        ("_squares", "total_square", g, share * total_q + c_s, ()),
    ):
        estimate = "gradient*noise" if normals else "gradient^2"
        scaled = "sqrt(ess*s)" if normals else "1"
        operand = OPERANDS[quantity]
        (product,) = lower([total_q + g * added], share=False)[1]
        found.append(
            sweep(
                f"accumulate{suffix}",
                (OPERANDS["gradient"], total_g, operand),
                normals,
                (),
                (),
                [],
                (*sums, Result(quantity, product, "real", quantity)),
                (
                    "Add one sample's gradient to the sums of a step.",
                    f"total_gradient + gradient, {quantity} + {estimate}",
                    PAPER,
                ),
            )
        )
        uniforms = tuple(u for u in STEP_UNIFORMS if normals or u != "root_ess")
        hyper = tuple(h for h in HYPER if normals or h != "ess")
        found.append(
            sweep(
                f"update_averaged{suffix}",
                (total_g, operand, *STATE_OPERANDS),
                (),
                ("samples", *hyper),
                ("share", *uniforms),
                [*lines(("g", mean_g)), *step_body(curvature_of)],
                STATE,
                (
                    f"The IVON step from the sums of several samples, with the mean of {estimate} for its curvature.",
                    f"update with gradient = total_gradient/samples, f + delta = {quantity}/samples*{scaled} + c_S",
                    f"{PAPER}; {PRIOR}",
                ),
            )
        )
    found.append(
        sweep(
            "update_precision_averaged",
            (OPERANDS["total_gradient"], OPERANDS["total_price"], *MEMBER_OPERANDS),
            (),
            ("samples", *PRECISION_HYPER),
            ("share", *PRECISION_UNIFORMS),
            precision_body(mean_price),
            precision_and_slope("total_gradient", mean_g),
            (
                f"{PRECISION_TEXT}, from sums of samples.",
                "update_precision with gradient = total_gradient/samples, "
                "f + delta = total_price/samples*sqrt(ess*s) + c_S",
                f"{PAPER}; {PRIOR}",
            ),
        )
    )
    return found


@cache
def optimizer() -> OptimizerModule:
    """The namespace `ivon`."""
    folder = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in FILES)).hexdigest()[:16]
    return OptimizerModule(
        "ivon",
        "improved variational online Newton, with prior and duals",
        f"{PAPER}; {PRIOR}",
        digest,
        (),
        (sampling(), *updates(), *averages()),
        FILES,
        noise.generator(),
    )
