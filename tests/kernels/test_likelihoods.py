"""Kernels of likelihoods: expectations against quadrature at any deviation, rows and weights, threads, refusals."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
import pytest

import badmm_kernels
from badmm_kernels.cpu.quadrature import LEAST_WIDTH, tables

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(3)
RESPONSES: dict[str, Callable[[int], np.ndarray]] = {
    "binary": lambda n: RNG.integers(0, 2, n).astype(float),
    "count": lambda n: RNG.poisson(2.0, n).astype(float),
    "real": lambda n: RNG.normal(size=n),
    "positive": lambda n: RNG.gamma(2.0, 1.0, n),
}
TABULATED = ("cloglog", "logistic", "negative_binomial", "probit", "student_t")


def rows(name: str, n: int) -> tuple[tuple[np.ndarray, ...], dict[str, float]]:
    responses, parameters = badmm_kernels.LIKELIHOODS[name]
    data = tuple(RESPONSES[support](n) for _, support in responses)
    return data, {parameter: 0.8 + 0.6 * k for k, (parameter, _) in enumerate(parameters)}


def softplus_moments(center: float, deviation: float, label: int) -> list[float]:
    """By tanh-sinh quadrature between marks."""
    sign = 1 - 2 * label
    with mp.workdps(20):
        p, s = mp.mpf(center) * sign, mp.mpf(deviation)
        marks = {p + k * s for k in (-13, -6, -3, -1, 0, 1, 3, 6, 13)}
        marks |= {mp.mpf(k) for k in (-60, -30, -12, -5, -2, 0, 2, 5, 12, 30, 60)}
        ends = sorted(m for m in marks if p - 13 * s <= m <= p + 13 * s)
        sigmoid = lambda a: 1 / (1 + mp.exp(-a))  # noqa: E731
        parts = [lambda a: mp.log1p(mp.exp(a)), sigmoid, lambda a: sigmoid(a) * sigmoid(-a)]
        found = [mp.quad(lambda a, f=f: f(a) * mp.npdf(a, p, s), ends, maxdegree=7) for f in parts]
    return [float(found[0]), sign * float(found[1]), float(found[2])]


@pytest.mark.parametrize("deviation", [1e-6, 1e-3, 0.09, 0.12, 0.3, 1.0, 3.0, 30.0, 1e3])
def test_logistic_expectations_are_exact_to_1e13_at_any_deviation(deviation: float) -> None:
    centers = np.array([0.0, -0.7, 2.5, -12.0, 40.0])
    labels = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    ns = badmm_kernels.load_likelihood("logistic")
    found = ns.expected_loss(centers, np.full(5, deviation**2), labels)
    for i, (center, label) in enumerate(zip(centers, labels, strict=True)):
        for ours, exact in zip(
            (part[i] for part in found), softplus_moments(center, deviation, int(label)), strict=True
        ):
            assert abs(ours - exact) <= 1e-13 * max(1.0, abs(exact))


@pytest.mark.parametrize("name", TABULATED)
def test_tables_and_nodes_agree_where_both_reach(name: str) -> None:
    """Every row of the tabulated rule against the same loss integrated node by node."""
    ns = badmm_kernels.load_likelihood(name)
    (kernel,) = (k for k in vars(ns).values() if type(k).__name__ == "ExpectationKernel")
    profile, place, distance = kernel.profiles[0]
    grids = tables(profile, place, distance)
    assert len(grids.nodes) == len(grids.value) == len(grids.slope) == len(grids.curvature)
    n = 400
    center = place + 3 * distance * RNG.normal(size=n)
    spread = np.hypot(center - place, distance) * 10 ** RNG.uniform(math.log10(LEAST_WIDTH) - 0.5, 1.5, n)
    one_by_one = np.array([ns._quadrature_0(c, s) for c, s in zip(center, spread, strict=True)]).T
    # a loss whose coefficient is 1 and whose argument is the predictor itself
    data = {"cloglog": 1.0, "logistic": 0.0, "negative_binomial": 0.0, "probit": 0.0, "student_t": 0.0}
    parameters = {"negative_binomial": {"dispersion": 1.0}, "student_t": {"degrees_of_freedom": 1.0, "scale": 1.0}}
    sign = {"cloglog": -1.0, "probit": -1.0}.get(name, 1.0)
    found = ns.expected_loss(center, spread**2, np.full(n, data[name]), **parameters.get(name, {}))
    for ours, other in zip(found, one_by_one, strict=True):
        assert sign * ours == pytest.approx(other, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("name", badmm_kernels.LIKELIHOODS)
def test_slopes_are_derivatives_of_one_another(name: str) -> None:
    n, h = 40, 1e-5
    (data, parameters), center = rows(name, n), RNG.normal(size=n)
    ns = badmm_kernels.load_likelihood(name)
    for variance in (0.04, 1.3):
        v = np.full(n, variance)
        up, down = (ns.expected_loss(center + step, v, *data, **parameters) for step in (h, -h))
        middle = ns.expected_loss(center, v, *data, **parameters)
        assert (up[0] - down[0]) / (2 * h) == pytest.approx(middle[1], rel=1e-6, abs=1e-7)
        assert (up[1] - down[1]) / (2 * h) == pytest.approx(middle[2], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", badmm_kernels.LIKELIHOODS)
def test_a_known_predictor_has_the_loss_itself(name: str) -> None:
    n = 30
    (data, parameters), center = rows(name, n), RNG.normal(size=n)
    ns = badmm_kernels.load_likelihood(name)
    at = ns.loss(center, *data, **parameters)
    for variance in (0.0, 1e-24):
        found = ns.expected_loss(center, np.full(n, variance), *data, **parameters)
        for ours, exact in zip(found, at, strict=True):
            assert ours == pytest.approx(exact, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("name", badmm_kernels.LIKELIHOODS)
def test_weights_and_offsets_of_rows(name: str) -> None:
    n = 25
    (data, parameters), center = rows(name, n), RNG.normal(size=n)
    ns, v = badmm_kernels.load_likelihood(name), np.full(n, 0.5)
    weight, offset = RNG.uniform(0, 2, n), RNG.normal(size=n)
    weight[3] = 0.0
    for call, inputs in ((ns.expected_loss, (v,)), (ns.loss, ())):
        plain = call(center + offset, *inputs, *data, **parameters)
        found = call(center, *inputs, *data, **parameters, weight=weight, offset=offset)
        for ours, part in zip(found, plain, strict=True):
            assert ours == pytest.approx(weight * part, rel=1e-14, abs=1e-300)
    assert ns.constant(*data, weight=weight, **parameters) == pytest.approx(weight * ns.constant(*data, **parameters))


def test_a_row_of_weight_zero_adds_nothing_where_its_loss_overflows() -> None:
    ns = badmm_kernels.load_likelihood("poisson")
    found = ns.expected_loss(np.array([900.0, 900.0]), np.ones(2), np.ones(2), weight=np.array([0.0, 1.0]))
    assert [part[0] for part in found] == [0.0, 0.0, 0.0] and np.isinf(found[0][1])


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    n = 20_000
    ns = badmm_kernels.load_likelihood("logistic")
    center, variance, y = RNG.normal(size=n), RNG.uniform(0.01, 9, n), RNG.integers(0, 2, n).astype(float)
    before = badmm_kernels.get_num_threads()
    try:
        badmm_kernels.set_num_threads(1)
        one = ns.expected_loss(center, variance, y)
        badmm_kernels.set_num_threads(2)
        two = ns.expected_loss(center, variance, y)
    finally:
        badmm_kernels.set_num_threads(before)
    assert all((a == b).all() for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda ns: ns.expected_loss(np.ones(3), np.ones(2), np.ones(3)),
            r"variance: expected shape \(3,\), got \(2,\)",
        ),
        (lambda ns: ns.loss(np.ones(3, np.float32), np.ones(3)), "predictor: expected a float64 array"),
        (lambda ns: ns.loss(np.ones(3), np.ones(3), weight=np.ones((3, 1))), "weight: expected a float64 array"),
        (lambda ns: ns.loss(np.ones(3), np.ones(3), out=(np.empty(2),) * 3), r"out\[0\]: expected a contiguous"),
        (lambda _: badmm_kernels.load_likelihood("cauchy"), "name: expected one of cloglog, .*, got 'cauchy'"),
        (
            lambda _: badmm_kernels.load_likelihood("gamma").loss(np.ones(1), np.ones(1), shape=-1.0),
            "shape: expected a positive number, got -1.0",
        ),
    ],
)
def test_what_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(badmm_kernels.load_likelihood("logistic"))


def test_a_million_rows_take_less_than_100_mb_beyond_their_data() -> None:
    code = """
import resource, numpy as np, badmm_kernels
ns = badmm_kernels.load_likelihood("logistic")
n = 1_000_000
center, variance, y = np.zeros(n), np.ones(n), np.zeros(n)
ns.expected_loss(center[:10], variance[:10], y[:10])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ns.expected_loss(center, variance, y)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert float(done.stdout) < 100
