"""The IVON kernels as a caller meets them: a client's step, the normals' law, other array libraries, rows, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import badmm_kernels
import badmm_kernels.cpu.ivon as cpu
from badmm_kernels.cpu import threads
from derive.ir.evaluate import Evaluator
from derive.ir.nodes import Int
from derive.lower import noise
from validation.checks import ivon as checks_ivon
from validation.oracles.optimizers import ivon as oracles_ivon

HYPER = {"ess": 400.0, "lr": 0.05, "beta1": 0.9, "beta2": 0.98}
DTYPES = ("float32", "float64")


@pytest.fixture(scope="module")
def ns() -> Any:
    return badmm_kernels.load("ivon")


def start(count: int, dtype: str = "float64", seed: int = 0) -> tuple[Any, ...]:
    """(gradient, mean, precision, momentum)."""
    rng = np.random.default_rng(seed)
    return tuple(
        a.astype(dtype)
        for a in (rng.normal(size=count), rng.normal(size=count), rng.uniform(0.2, 2.0, count), np.zeros(count))
    )


# ---- the step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.3])
def test_the_step_is_the_clients_with_prior_and_duals(ns: Any, clip: float | None) -> None:
    """Forty steps in h and delta, as arXiv:2506.13150 has them, against forty in s and the cavity."""
    count, ess, lr, beta1, beta2 = 500, *HYPER.values()
    rng = np.random.default_rng(1)
    g, m, s, v = start(count)
    delta, m_g = rng.uniform(0.05, 0.5, count), rng.normal(size=count)
    eta_xi, eta_s = rng.normal(size=count) * 0.1, rng.uniform(-0.04, 0.1, count)
    h, mean, momentum = s - delta, m.copy(), v.copy()
    cavity = (eta_xi + delta * m_g, eta_s + delta)
    for t in range(1, 41):
        eps = ns.noise(3, t, out=np.empty(count))
        theta = mean + eps / np.sqrt(ess * (h + delta))
        g = np.tanh(theta) + 0.3 * theta
        (sampled,) = ns.sample(m, s, ess, seed=3, step=t)
        m, s, v = ns.update(
            np.tanh(sampled) + 0.3 * sampled, m, s, v, cavity, **HYPER, debias=1 - beta1**t, clip=clip, seed=3, step=t
        )
        f = ess * g * (theta - mean) * (h + delta) + eta_s
        momentum = beta1 * momentum + (1 - beta1) * g
        h = beta2 * h + (1 - beta2) * f + 0.5 * (1 - beta2) ** 2 * (h - f) ** 2 / (h + delta)
        direction = (momentum / (1 - beta1**t) - eta_xi + eta_s * mean + delta * (mean - m_g)) / (h + delta)
        mean = mean - lr * (direction if clip is None else np.clip(direction, -clip, clip))
    np.testing.assert_allclose(m, mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(s, h + delta, rtol=1e-11)
    np.testing.assert_allclose(v, momentum, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_gradient_makes_the_precision_non_positive(ns: Any, dtype: str) -> None:
    _, m, s, v = start(4000, dtype)
    g = (np.random.default_rng(2).normal(size=4000) * 1e3).astype(dtype)
    for t in range(20):
        new = ns.update(g, m, s, v, (0.0, 1e-3), **{**HYPER, "beta2": 0.5, "lr": 0.0}, seed=1, step=t)[1]
        assert (new > 0).all()
        assert (new >= 0.499 * s).all()
        s = new


def test_one_accumulated_sample_is_the_plain_step(ns: Any) -> None:
    g, m, s, v = start(700)
    eps = ns.noise(1, 1, out=np.empty(700))
    plain = ns.update(g, m, s, v, (0.1, 0.2), **HYPER, noise=eps)
    totals = ns.accumulate(g, np.zeros(700), np.zeros(700), noise=eps)
    for ours, theirs in zip(ns.update_averaged(*totals, m, s, v, (0.1, 0.2), 1, **HYPER), plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-15)


def test_squared_gradients_are_not_multiplied_by_the_sample_size(ns: Any) -> None:
    """f = g^2 in units of the mean loss: at a stationary precision s = g^2 + c_S nothing changes."""
    g, m, _, v = start(300)
    totals = ns.accumulate_squares(g, np.zeros(300), np.zeros(300))
    hyper = {k: x for k, x in HYPER.items() if k != "ess"}
    new = ns.update_averaged_squares(*totals, m, g**2 + 0.1, v, (0.0, 0.1), 1, **hyper)[1]
    np.testing.assert_allclose(new, g**2 + 0.1, rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_validation_finds_nothing(ns: Any, dtype: str) -> None:
    missed = [c.name for c in checks_ivon.checks(ns, "ivon", dtype, count=60) if not c.passed]
    assert missed == []


# ---- the normals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("counter", "key", "words"), oracles_ivon.KNOWN_ANSWERS)
def test_philox_gives_its_published_words(counter: Any, key: Any, words: Any) -> None:
    assert oracles_ivon.philox(counter, key) == words
    lines = noise.StraightLine()
    out = noise.philox(lines, tuple(Int(c, "word") for c in counter), tuple(Int(k, "word") for k in key))
    evaluator, env = Evaluator(()), dict[str, Any]()
    evaluator.run(tuple(lines.body), env)
    assert tuple(evaluator.expr(e, env).value for e in out) == words


@pytest.mark.parametrize("dtype", DTYPES)
def test_coordinates_beyond_32_bits_have_normals_of_their_own(dtype: str) -> None:
    """Coordinates past 2^34 use the upper word of the block: the generated loop is called for a tile there."""
    loop = cpu._normals_f32 if dtype == "float32" else cpu._normals_f64
    first, out = 1 << 36, np.empty(128, dtype)
    loop(np.uint64(9), np.uint64(4), first, first + 128, out)
    expected = np.array([float(oracles_ivon.normal(9, 4, first + i, dtype)) for i in range(128)])
    np.testing.assert_allclose(out, expected, rtol=4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", DTYPES)
def test_normals_have_the_normal_law(ns: Any, dtype: str) -> None:
    """Moments, Kolmogorov-Smirnov and tails of 4e6 normals at a fixed seed; bounds are 4.5 standard errors."""
    count = 1 << 22
    x = ns.noise(2024, 0, out=np.empty(count, dtype)).astype(np.float64)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((x**power).mean() - mean) < 4.5 * np.sqrt(variance / count), power
    assert stats.kstest(x[::4], "norm").pvalue > 1e-3
    for z in (2.0, 3.0, 4.0, 4.5):
        for tail in ((x > z).sum(), (x < -z).sum()):
            assert abs(tail - count * stats.norm.sf(z)) < 4.5 * np.sqrt(count * stats.norm.sf(z))
    bound = np.sqrt(2 * (32 if dtype == "float32" else 64) * np.log(2))
    assert np.abs(x).max() < bound
    assert np.isfinite(x).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_normals_at_different_addresses_are_independent(ns: Any, dtype: str) -> None:
    """Correlations of values, squares and signs between seeds, steps, neighbours, words of a block, and lanes."""
    count = 1 << 18

    def at(seed: int, step: int) -> Any:
        return ns.noise(seed, step, out=np.empty(count, dtype)).astype(np.float64)

    base = at(1, 1)
    others = [at(1, 2), at(2, 1), at(1 + 2**32, 1), at(1, 1 + 2**32), at(1, 2**63), at(2**63, 1)]
    others += [np.roll(base, k) for k in (1, 2, 31, 32, 33, 64, 96, 128)]
    for other in others:
        for f in (lambda x: x, lambda x: x**2 - 1, np.sign):
            a, b = f(base), f(other)
            assert abs((a * b).mean()) < 4.5 * np.sqrt((a**2).mean() * (b**2).mean() / count)


# ---- arrays, rows, threads -------------------------------------------------------------------------------------------


def test_results_come_in_the_callers_library_and_memory(ns: Any) -> None:
    g, m, s, v = (torch.from_numpy(a) for a in start(50, "float32"))
    theta, kept = torch.empty(50), torch.empty(50)
    out = (m, s, v, theta)
    returned = ns.update_sample(g, m, s, v, (0.0, 0.1), **HYPER, seed=1, step=1, next_step=2, next_noise=kept, out=out)
    assert all(a is b for a, b in zip(returned, out, strict=True))
    fresh = ns.sample(m, s, 400.0, noise=kept)[0]
    assert isinstance(fresh, torch.Tensor) and torch.equal(fresh, theta)
    drawn = torch.empty(50)
    assert ns.noise(1, 2, out=drawn) is drawn and torch.equal(drawn, kept)


def test_read_only_inputs_are_read(ns: Any) -> None:
    g, m, s, v = start(50)
    expected = ns.update(g, m, s, v, (0.0, 0.1), **HYPER, seed=1, step=1)
    for a in (g, m, s, v):
        a.flags.writeable = False
    for ours, theirs in zip(ns.update(g, m, s, v, (0.0, 0.1), **HYPER, seed=1, step=1), expected, strict=True):
        assert (ours == theirs).all()


def test_a_client_alone_draws_what_it_draws_among_others(ns: Any) -> None:
    _, m, s, _ = (a.reshape(4, 250) for a in start(1000))
    seeds, ess = [7, 8, 9, 2**64 - 1], np.array([1.0, 2.0, 3.0, 4.0])
    (together,) = ns.sample(m, s, ess, seed=seeds, step=5)
    for k in range(4):
        assert (ns.sample(m[k], s[k], float(ess[k]), seed=seeds[k], step=5)[0] == together[k]).all()


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1,), (1, 5), (5, 1), (2, 3, 4)])
def test_any_shape(ns: Any, shape: tuple[int, ...]) -> None:
    g, m, s, v = (a.reshape(shape) for a in start(int(np.prod(shape))))
    results = ns.update_sample(g, m, s, v, (0.0, 0.1), **HYPER, seed=1, step=1, next_step=2)
    assert all(r.shape == shape for r in results)


def test_threads_do_not_change_results(ns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    g, m, s, v = start(200_001, "float32")
    monkeypatch.setattr("badmm_kernels.cpu.sweep.GRAIN", 1000)
    before = badmm_kernels.get_num_threads()
    try:
        results = []
        for count in (1, 2, 7):
            threads.set_num_threads(count)
            results.append(ns.update_sample(g, m, s, v, (0.0, 0.1), **HYPER, seed=1, step=1, next_step=2))
    finally:
        threads.set_num_threads(before)
    for other in results[1:]:
        assert all((a == b).all() for a, b in zip(other, results[0], strict=True))


# ---- errors ----------------------------------------------------------------------------------------------------------


def step(**changes: Any) -> Callable[[Any], Any]:
    """A call of update that is right but for the changes."""

    def call(ns: Any) -> Any:
        g, m, s, v = start(6)
        keywords = {"gradient": g, "mean": m, "precision": s, "momentum": v, "cavity": (0.0, 0.1), **HYPER}
        keywords |= {"seed": 1, "step": 1}
        return ns.update(**(keywords | changes))

    return call


def with_value(argument: str, value: float, dtype: str = "float64", **changes: Any) -> Callable[[Any], Any]:
    """The same with one element of an array changed."""

    def call(ns: Any) -> Any:
        arrays = dict(zip(("gradient", "mean", "precision", "momentum"), start(6, dtype), strict=True))
        arrays |= {"noise": np.ones(6, dtype)}
        arrays[argument][4] = value
        return ns.update(**arrays, cavity=(0.0, 0.1), **HYPER, **changes)

    return call


def in_place(ns: Any) -> Any:
    g, m, s, v = start(6)
    s[4] = -0.3
    return ns.update(g, m, s, v, (0.0, 0.1), **HYPER, seed=1, step=1, out=(m, s, v))


def shared_noise(ns: Any) -> Any:
    g, m, s, v = start(6)
    return ns.update_sample(g, m, s, v, (0.0, 0.1), **HYPER, seed=1, step=1, next_step=2, next_noise=g)


ERRORS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "negative precision": (with_value("precision", -0.3), ("precision", "positive", "-0.3", "index 4")),
    "precision of zero": (with_value("precision", 0.0), ("precision", "positive", "0.0", "index 4")),
    "infinite precision": (with_value("precision", np.inf), ("precision", "finite", "inf", "index 4")),
    "NaN in the gradient": (with_value("gradient", np.nan), ("gradient", "finite", "nan", "index 4")),
    "NaN under a clip": (with_value("gradient", np.nan, clip=1.0), ("gradient", "finite", "nan", "index 4")),
    "infinite gradient under a clip": (with_value("gradient", np.inf, clip=1.0), ("gradient", "finite", "inf")),
    "NaN in the noise": (with_value("noise", np.nan), ("noise", "finite", "nan", "index 4")),
    "infinite mean": (with_value("mean", -np.inf), ("mean", "finite", "-inf", "index 4")),
    "infinite cavity": (step(cavity=(np.full(6, np.inf), 0.1), clip=1.0), ("cavity.precision_mean", "finite", "inf")),
    "overflow": (with_value("gradient", 3e38, "float32"), ("precision", "finite", "float32", "index 4")),
    "negative precision, in place": (in_place, ("precision", "index 4", "overwritten")),
    "negative ess": (step(ess=-1.0), ("ess", "positive finite number", "-1.0")),
    "beta1 above one": (step(beta1=1.5), ("beta1", "[0, 1]", "1.5")),
    "negative lr": (step(lr=-0.1), ("lr", ">= 0", "-0.1")),
    "debias of zero": (step(debias=0.0), ("debias", "(0, 1]", "0.0")),
    "clip of zero": (step(clip=0.0), ("clip", "positive number or None", "0.0")),
    "text for a scalar": (step(lr="fast"), ("lr", "number", "str")),
    "a scalar for each coordinate": (step(lr=np.ones(6)), ("lr", "one per row", "(6,)")),
    "no normals": (step(step=None), ("noise", "an array where step is None", "None")),
    "two kinds of normals": (step(noise=np.zeros(6)), ("noise", "None beside a step", "an array")),
    "no seed": (step(seed=None), ("seed", "integer", "None")),
    "fractional seed": (step(seed=0.5), ("seed", "integer of 64 bits", "float")),
    "negative step": (step(step=-1), ("step", "0 to 2**64 - 1", "-1")),
    "one cavity": (step(cavity=(0.1,)), ("cavity", "tuple of 2", "1 of them")),
    "cavity of the wrong shape": (step(cavity=(0.0, np.zeros(5))), ("cavity.precision", "(6,)", "(5,)")),
    "cavity of the wrong type": (step(cavity=(0.0, np.zeros(6, "f4"))), ("cavity.precision", "float64", "float32")),
    "infinite number for the cavity": (step(cavity=(np.inf, 0.1)), ("cavity.precision_mean", "finite number", "inf")),
    "float16": (step(gradient=np.zeros(6, np.float16)), ("gradient", "float32 or float64", "float16")),
    "momentum of the wrong shape": (step(momentum=np.zeros(5)), ("momentum", "(6,)", "(5,)")),
    "out of two": (step(out=(np.zeros(6), np.zeros(6))), ("out", "tuple of 3", "2 of them")),
    "out with strides": (step(out=tuple(np.zeros(12)[::2] for _ in range(3))), ("out[0]", "C-contiguous")),
    "noise in the gradient's memory": (shared_noise, ("next_noise", "memory of its own", "gradient")),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_argument_expectation_and_value(ns: Any, name: str) -> None:
    call, words = ERRORS[name]
    with pytest.raises((ValueError, TypeError)) as caught:
        call(ns)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 33, 1001])
def test_the_next_sample_may_take_the_gradients_place(ns: Any, dtype: str, count: int) -> None:
    expected = ns.update_sample(*start(count, dtype), (0.0, 0.1), **HYPER, seed=1, step=1, next_step=2)
    g, m, s, v = start(count, dtype)
    result = ns.update_sample(g, m, s, v, (0.0, 0.1), **HYPER, seed=1, step=1, next_step=2, out=(m, s, v, g))
    assert result[3] is g
    assert [a.tobytes() for a in result] == [a.tobytes() for a in expected]


def test_a_sample_out_of_range_is_named_after_the_state(ns: Any) -> None:
    g, m, s, v = start(6, "float32")
    noise, vast = np.ones(6, "f4"), np.zeros(6, "f4")
    vast[4] = 3e38
    hyper = HYPER | {"ess": 0.01}
    with pytest.raises(
        ValueError, match=r"update_sample: expected finite, .* new sample of inf at index 4, overwritten"
    ):
        ns.update_sample(g, m, s, v, (0.0, 0.1), **hyper, noise=noise, next_noise=vast, out=(m, s, v, g))


def test_out_may_not_be_another_slots_memory(ns: Any) -> None:
    g, m, s, v = start(6)
    with pytest.raises(
        ValueError, match=r"out\[0\]: expected memory of its own or exactly an input's of the same slot"
    ):
        ns.update(g, m, s, v, (0.0, 0.1), **HYPER, seed=1, step=1, out=(s, m, v))
