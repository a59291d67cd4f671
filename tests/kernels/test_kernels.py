"""The kernels as a caller meets them: invariants, threads, other array libraries, user's own compiled code, errors."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from numba import njit

import badmm_kernels
from badmm_kernels.cpu import threads
from badmm_kernels.cpu.diagonal_gaussian import dual_update_f32, dual_update_f64, natural_gradient_f64
from badmm_kernels.cpu.gamma import (
    digamma,
    expectation_from_natural_f64,
    lgamma,
    stirling_remainder,
    stirling_remainder_1,
)

ELEMENTWISE = ("diagonal_gaussian", "gamma", "isotropic_gaussian")
DTYPES = (np.float32, np.float64)


def keywords(family: str) -> dict[str, float]:
    return {"precision": 1.7} if family == "isotropic_gaussian" else {}


def standard(family: str, shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    mean, first, second = rng.normal(size=shape), rng.uniform(0.2, 5.0, shape), rng.uniform(0.2, 5.0, shape)
    chosen = {"diagonal_gaussian": (mean, first), "gamma": (first, second), "isotropic_gaussian": (mean,)}[family]
    return tuple(a.astype(dtype) for a in chosen)


@pytest.fixture(autouse=True)
def restore_threads() -> Any:
    before = badmm_kernels.get_num_threads()
    yield
    badmm_kernels.set_num_threads(before)


positive = st.floats(1e-3, 1e3)
finite = st.floats(-1e3, 1e3)


@given(finite, positive, finite, positive)
def test_gaussian_kl_is_a_divergence(m: float, s: float, n: float, t: float) -> None:
    ns = badmm_kernels.load("diagonal_gaussian")
    q, p = (ns.natural_from_standard(np.array([a]), np.array([b])) for a, b in ((m, s), (n, t)))
    assert ns.kl(q, p) >= 0.0
    assert ns.kl(q, q) == 0.0


@pytest.mark.parametrize("shape", [1e20, 1e160, 1e300])
def test_gamma_kl_of_shapes_far_apart_is_finite(shape: float) -> None:
    """KL(Gamma(1, 1) ‖ Gamma(a, 1)) = ln Γ(a) + γ (a − 1), which is a (ln a − 1 + γ) to all digits."""
    q, p = ((np.array([a]), np.array([1.0])) for a in (1.0, shape))
    expected = shape * (np.log(shape) - 1.0 + np.euler_gamma)
    assert badmm_kernels.load("gamma").kl(q, p) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("x", [2.0**-1022, 5e-308, 1e-300])
def test_the_remainder_of_stirlings_formula_reaches_the_least_normal_number(x: float) -> None:
    """R(x) = −ln x + O(x ln x), R′(x) = −1/x + O(ln x)."""
    assert stirling_remainder(x) == pytest.approx(-np.log(x), rel=1e-14)
    assert stirling_remainder_1(x) == pytest.approx(-1.0 / x, rel=1e-14)


@given(st.floats(1e-4, 1e8), st.floats(1e-6, 1e6), st.floats(1e-4, 1e8), st.floats(1e-6, 1e6))
def test_gamma_kl_is_a_divergence(a: float, b: float, c: float, d: float) -> None:
    ns = badmm_kernels.load("gamma")
    q, p = ((np.array([x]), np.array([y])) for x, y in ((a, b), (c, d)))
    assert ns.kl(q, p) >= 0.0
    assert ns.kl(q, q) == 0.0


@given(st.floats(1e-4, 1e8), st.floats(1e-6, 1e6))
def test_gamma_inverse_map_returns(shape: float, rate: float) -> None:
    ns = badmm_kernels.load("gamma")
    mu = ns.expectation_from_natural(np.array([shape]), np.array([rate]))
    again = ns.expectation_from_natural(*ns.natural_from_expectation(*mu))
    for x, y in zip(mu, again, strict=True):
        assert abs(x - y).item() <= 1e-13 * max(1.0, abs(x).item())


@pytest.mark.parametrize("family", ELEMENTWISE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_threads(family: str, dtype: Any) -> None:
    ns, kw = badmm_kernels.load(family), keywords(family)
    lam = ns.natural_from_standard(*standard(family, (3 * threads.GRAIN + 17,), dtype), **kw)
    results = []
    for count in (1, 2, 3):
        badmm_kernels.set_num_threads(count)
        results.append((ns.expectation_from_natural(*lam, **kw), ns.entropy(*lam, **kw), ns.log_partition(*lam, **kw)))
    for other in results[1:]:
        assert other[1:] == results[0][1:]
        assert all((x == y).all() for x, y in zip(other[0], results[0][0], strict=True))


@pytest.mark.parametrize("family", ELEMENTWISE)
def test_client_axis_is_a_loop_over_clients(family: str) -> None:
    ns, kw = badmm_kernels.load(family), keywords(family)
    stack, one = standard(family, (4, 9)), standard(family, (9,), seed=1)
    lam, shared = ns.natural_from_standard(*stack, **kw), ns.natural_from_standard(*one, **kw)
    rows = ns.kl(lam, shared, axis=-1, **kw)
    assert rows.shape == (4,)
    for k in range(4):
        row = tuple(np.ascontiguousarray(x[k]) for x in lam)
        assert ns.kl(row, shared, **kw) == pytest.approx(rows[k], rel=1e-15)
        dual = ns.dual_update(row, shared, row, 0.3, 0.7)
        whole = ns.dual_update(lam, shared, lam, 0.3, 0.7)
        assert all((a == b[k]).all() for a, b in zip(dual, whole, strict=True))
    total = ns.server_total(lam, lam, 0.25)
    parts = [
        ns.server_contribution(
            tuple(np.ascontiguousarray(x[k]) for x in lam), tuple(np.ascontiguousarray(x[k]) for x in lam), 0.25, 4
        )
        for k in range(4)
    ]
    for slot, value in enumerate(total):
        np.testing.assert_allclose(value, sum(p[slot] for p in parts), rtol=1e-14, atol=1e-14)


def test_full_gaussian_stack_is_a_loop_over_matrices() -> None:
    ns = badmm_kernels.load("full_gaussian")
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 5, 9))
    natural = (rng.normal(size=(3, 5)), np.ascontiguousarray(root @ root.swapaxes(1, 2)))
    mean, precision = ns.standard_from_natural(*natural)
    assert mean.shape == (3, 5) and precision.shape == (3, 5, 5)
    for k in range(3):
        one = ns.standard_from_natural(natural[0][k], natural[1][k])
        assert (one[0] == mean[k]).all()
    assert ns.entropy(*natural, axis=-1).shape == (3,)
    assert ns.entropy(*natural) == pytest.approx(ns.entropy(*natural, axis=-1).sum(), rel=1e-15)


@njit
def _round_of_one(eta: Any, lam_g: Any, lam_k: Any, rho: float) -> Any:
    out = np.empty_like(eta)
    for i in range(eta.size):
        out[i] = dual_update_f64(eta[i], lam_g[i], lam_k[i], rho, 1.0)
    return out


def test_scalar_functions_in_a_users_own_compiled_code() -> None:
    rng = np.random.default_rng(0)
    eta, lam_g, lam_k = rng.normal(size=(3, 50))
    ns = badmm_kernels.load("isotropic_gaussian")
    assert (_round_of_one(eta, lam_g, lam_k, 0.4) == ns.dual_update((eta,), (lam_g,), (lam_k,), 0.4, 1.0)[0]).all()
    assert dual_update_f32(np.float32(1), np.float32(2), np.float32(3), 0.5, 1.0) == np.float32(0.5)
    assert natural_gradient_f64(2.0, 3.0, 4.0) == (-5.0, -4.0)
    assert expectation_from_natural_f64(2.0, 1.0)[1] == -2.0
    assert digamma(1.0) == pytest.approx(-0.5772156649015329, rel=1e-15) and lgamma(1.0) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_in_torch_out_without_a_copy(dtype: torch.dtype) -> None:
    ns = badmm_kernels.load("diagonal_gaussian")
    mean, precision = torch.tensor([1.0, -2.0], dtype=dtype), torch.tensor([2.0, 4.0], dtype=dtype)
    result = ns.natural_from_standard(mean, precision)
    assert all(isinstance(r, torch.Tensor) and r.dtype == dtype for r in result)
    out = (torch.empty_like(mean), torch.empty_like(mean))
    returned = ns.natural_from_standard(mean, precision, out=out)
    assert returned[0] is out[0]
    assert torch.equal(out[0], mean * precision)
    assert isinstance(ns.kl(result, result, axis=-1), torch.Tensor) and ns.kl(result, result) == 0.0
    with pytest.raises(TypeError, match="mean: expected a tensor that does not require a gradient"):
        ns.natural_from_standard(mean.clone().requires_grad_(), precision)
    with pytest.raises(TypeError, match=r"mean: expected dtype float32 or float64, got torch\.bfloat16"):
        ns.natural_from_standard(mean.to(torch.bfloat16), precision)


def test_slots_are_checked_together_before_any_is_written() -> None:
    ns, full = badmm_kernels.load("diagonal_gaussian"), badmm_kernels.load("full_gaussian")
    a, b, c = np.ones(4), np.full(4, 2.0), np.full(4, 3.0)
    fresh = np.zeros(4)
    for out in ((b, fresh), (fresh, fresh), (fresh, np.zeros(5))):
        with pytest.raises(ValueError, match=r"out\[[01]\]: expected"):
            ns.dual_update((a, b), (c, c), (c, a), 0.5, 1.0, out=out)
    assert (fresh == 0).all() and (b == 2).all()
    with pytest.raises(ValueError, match=r"dual.precision: expected the shape of a slot beside \(5,\), got \(3, 3\)"):
        full.dual_update((np.ones(5), np.eye(3)), (np.ones(5), np.eye(3)), (np.ones(5), np.eye(3)), 0.5, 1.0)
    buffer = np.zeros(9)
    with pytest.raises(ValueError, match=r"out\[1\]: expected memory of its own, got an overlap with out\[0\]"):
        full.standard_from_natural(np.ones(3), np.eye(3), out=(buffer[:3], buffer.reshape(3, 3)))
    with pytest.raises(ValueError, match="at least one coordinate"):
        full.entropy(np.ones(0), np.ones((0, 0)))


def test_reduction_along_the_last_axis_of_more_axes() -> None:
    ns = badmm_kernels.load("diagonal_gaussian")
    rng = np.random.default_rng(0)
    q = (rng.normal(size=(2, 3, 4)), rng.uniform(1, 2, (2, 3, 4)))
    p = (rng.normal(size=(3, 4)), rng.uniform(1, 2, (3, 4)))
    rows = ns.kl(q, p, axis=-1)
    assert rows.shape == (2, 3)
    one = ns.kl(tuple(x[1, 2] for x in q), tuple(x[2] for x in p))
    assert rows[1, 2] == pytest.approx(one, rel=1e-15)


@pytest.mark.parametrize("threads_used", [1, 2])
def test_in_place_domain_error_names_what_was_given(threads_used: int) -> None:
    badmm_kernels.set_num_threads(threads_used)
    ns = badmm_kernels.load("diagonal_gaussian")
    mu1, mu2 = np.zeros(200_000), np.full(200_000, -5.0)
    mu1[150_001], mu2[150_001] = 1.0, -0.1
    with pytest.raises(ValueError, match=r"mean = 1.0, half_negative_second_moment = -0.1 at index 150001"):
        ns.natural_from_expectation(mu1, mu2, out=(mu1, mu2))
    mean, precision = np.full(3, 1e10), np.array([1.0, 1.0, 1e308])
    with pytest.raises(ValueError, match=r"result 0 overflows float64 \(got inf at index 2\)"):
        ns.natural_from_standard(mean, precision, out=(mean, precision))
    dual, lam = (np.ones(9), np.ones(9)), (np.ones(9), np.ones(9))
    dual[1][6] = np.nan
    with pytest.raises(ValueError, match=r"dual.precision: expected finite, .*, got nan at index 6 \(overwritten\)"):
        ns.dual_update(dual, lam, lam, 1.0, 1.0, out=dual)
    lam[0][2] = np.inf
    with pytest.raises(ValueError, match=r"natural_global.precision_mean: expected finite, got inf at index 2"):
        ns.dual_update(dual, lam, (np.ones(9), np.ones(9)), 1.0, 1.0, out=dual)
    stack, shared = np.ones((3, 4)), np.ones(4)
    stack[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"natural_client.precision_mean: expected finite, got nan at index \(2, 1\)"):
        ns.dual_update((np.ones((3, 4)),) * 2, (shared, shared), (stack, np.ones((3, 4))), 1.0, 1.0)


def test_threads_may_change_while_kernels_run() -> None:
    ns = badmm_kernels.load("diagonal_gaussian")
    array, stop, errors = np.ones(1 << 18), threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            try:
                ns.natural_from_standard(array, array)
            except Exception as error:
                errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for count in (1, 2, 3) * 30:
        badmm_kernels.set_num_threads(count)
    stop.set()
    for worker in workers:
        worker.join()
    assert errors == []


@pytest.mark.parametrize("family", ELEMENTWISE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fused_round_is_the_two_calls_in_place_as_well(family: str, dtype: Any) -> None:
    ns, kw = badmm_kernels.load(family), keywords(family)
    lam, shared = (
        ns.natural_from_standard(*standard(family, shape, dtype, seed), **kw)
        for seed, shape in enumerate([(4, 9), (9,)])
    )
    dual = tuple(x[::-1].copy() for x in lam)
    new = ns.dual_update(dual, shared, lam, 0.3, 0.7)
    share = ns.server_contribution(lam, new, 0.4, 4)

    def same(got: Any) -> bool:
        return all((a == b).all() for a, b in zip((*got[0], *got[1]), (*new, *share), strict=True))

    assert same(ns.round_update(dual, shared, lam, 0.3, 0.7, 0.4, 4))
    buffer = tuple(np.empty_like(x) for x in lam)
    for inputs in ("dual", "both"):
        eta, client = (tuple(x.copy() for x in slots) for slots in (dual, lam))
        out = (eta, client if inputs == "both" else buffer)
        returned = ns.round_update(eta, shared, client, 0.3, 0.7, 0.4, 4, out=out)
        assert returned[0][0] is eta[0] and same(out) and same(returned)


def test_the_fused_round_refuses_what_it_cannot_write() -> None:
    ns = badmm_kernels.load("isotropic_gaussian")
    x, y = np.ones(4), np.zeros(4)

    def run(out: Any) -> Any:
        return ns.round_update((x,), (x,), (x,), 0.5, 1.0, 0.5, 2, out=out)

    with pytest.raises(ValueError, match=r"out: expected a tuple of 2 tuples of 1 arrays, got 1 of them"):
        run(((y,),))
    with pytest.raises(ValueError, match=r"out\[1\]: expected a tuple of 1 arrays, got ndarray"):
        run(((y,), y))
    with pytest.raises(ValueError, match=r"out\[1\]\[0\]: expected memory of its own .* overlap with out\[0\]\[0\]"):
        run(((y,), (y,)))
    bad, client = np.array([1.0, 2.0, np.nan, 4.0]), np.ones(4)
    with pytest.raises(
        ValueError, match=r"dual.precision_mean: expected finite, .*, got nan at index 2 \(overwritten\)"
    ):
        ns.round_update((bad,), (x,), (client,), 0.5, 1.0, 0.5, 2, out=((bad,), (client,)))
    huge = np.full(4, 1e308)
    with pytest.raises(ValueError, match=r"round_update: result 0 overflows float64 \(got inf at index 0\)"):
        ns.round_update((huge,), (huge,), (-huge,), 2.0, 1.0, 0.5, 2)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3, 4)])
def test_unusual_shapes(shape: tuple[int, ...]) -> None:
    ns = badmm_kernels.load("diagonal_gaussian")
    mean, precision = np.full(shape, 2.0), np.full(shape, 3.0)
    xi, s = ns.natural_from_standard(mean, precision)
    assert xi.shape == s.shape == shape
    assert ns.entropy(xi, s) == pytest.approx(mean.size * (1.4189385332046727 - 0.5 * np.log(3.0)), abs=1e-14)


def test_out_may_be_an_input_of_the_same_slot_but_overlap_no_other_way() -> None:
    ns = badmm_kernels.load("diagonal_gaussian")
    mean, precision = standard("diagonal_gaussian", (100,))
    expected = ns.natural_from_standard(mean, precision)
    a, b = mean.copy(), precision.copy()
    ns.natural_from_standard(a, b, out=(a, b))
    assert (a == expected[0]).all() and (b == expected[1]).all()
    buffer = np.ones(101)
    with pytest.raises(
        ValueError,
        match=r"out\[0\]: expected memory of its own or exactly an input's of the same slot, got an overlap with mean",
    ):
        ns.natural_from_standard(buffer[:100], precision, out=(buffer[1:], np.empty(100)))
    same = np.empty(100)
    with pytest.raises(ValueError, match=r"out\[1\]: .* overlap with out\[0\]"):
        ns.natural_from_standard(mean, precision, out=(same, same))


def test_import_is_light() -> None:
    heavy = "('sympy', 'torch', 'cupy', 'numba', 'scipy')"
    code = f"import sys, badmm_kernels; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_threads_survive_a_fork() -> None:
    code = """
import os, numpy as np, badmm_kernels
badmm_kernels.set_num_threads(2)
ns = badmm_kernels.load("diagonal_gaussian")
x = np.ones(1 << 18)
ns.natural_from_standard(x, x)
pid = os.fork()
if pid == 0:
    ns.natural_from_standard(x, x)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True, timeout=120)
