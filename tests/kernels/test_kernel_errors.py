"""Bad calls of the kernels: each error names the argument, what was expected and what came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import badmm_kernels
from badmm_kernels.cpu.linalg import NearSingularWarning


def read_only(shape: int) -> Any:
    array = np.empty(shape)
    array.flags.writeable = False
    return array


x, ones = np.linspace(-1.0, 1.0, 4), np.ones(4)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda ns: ns.natural_from_standard(x, ones[:3]), ValueError, r"precision: expected shape \(4,\), got \(3,\)"),
        (
            lambda ns: ns.natural_from_standard(x, -ones),
            ValueError,
            "precision: expected positive, got -1.0 at index 0",
        ),
        (
            lambda ns: ns.natural_from_standard(x * np.nan, ones),
            ValueError,
            "mean: expected finite, got nan at index 0",
        ),
        (
            lambda ns: ns.natural_from_standard(x.astype(np.float16), ones),
            TypeError,
            "mean: expected dtype float32 or float64, got float16",
        ),
        (
            lambda ns: ns.natural_from_standard(x, ones.astype(np.float32)),
            TypeError,
            "precision: expected dtype float64 like mean, got float32",
        ),
        (
            lambda ns: ns.natural_from_standard([1.0], ones),
            TypeError,
            "mean: expected an array of float32 or float64, got list",
        ),
        (lambda ns: ns.natural_from_standard(np.ones(8)[::2], ones), ValueError, "mean: expected a C-contiguous array"),
        (
            lambda ns: ns.natural_from_standard(x, ones, out=(x.copy(),)),
            ValueError,
            "out: expected a tuple of 2 arrays, got 1",
        ),
        (
            lambda ns: ns.natural_from_standard(x, ones, out=(read_only(4), x.copy())),
            ValueError,
            r"out\[0\]: expected a writable array",
        ),
        (
            lambda ns: ns.natural_from_standard(x, ones, out=(np.empty(5), x.copy())),
            ValueError,
            r"out\[0\]: expected shape \(4,\), got \(5,\)",
        ),
        (
            lambda ns: ns.natural_from_standard(x, ones, out=(np.empty(8)[::2], x.copy())),
            ValueError,
            r"out\[0\]: expected a C-contiguous",
        ),
        (lambda ns: ns.natural_from_standard(x * 1e10, ones * 1e308), ValueError, "result 0 overflows float64"),
        (
            lambda ns: ns.dual_update((x,), (x, x), (x, x), 1.0, 1.0),
            ValueError,
            r"dual: expected a tuple of 2 arrays \(precision_mean, precision\), got 1",
        ),
        (
            lambda ns: ns.dual_update((x, x), (x, x), (x, x), 0.0, 1.0),
            ValueError,
            "rho: expected a positive finite number, got 0.0",
        ),
        (
            lambda ns: ns.dual_update((x, x), (x, x), (x, x), 1.0, 1.5),
            ValueError,
            r"damping: expected a number in \(0, 1\], got 1.5",
        ),
        (
            lambda ns: ns.server_contribution((x, x), (x, x), 0.5, 2.5),
            ValueError,
            "num_clients: expected a positive integer, got 2.5",
        ),
        (lambda ns: ns.dual_update((x, x), (x, x), (x, x), "0.5", 1.0), TypeError, "rho: expected a number, got str"),
        (lambda ns: ns.dual_update((x, x), (x, x), (x, x), True, 1.0), TypeError, "rho: expected a number, got bool"),
        (
            lambda ns: ns.dual_update(*(((x.astype(np.float32),) * 2,) * 3), 1e-60, 1.0),
            ValueError,
            "rho, damping: expected a coefficient that float32 can hold, got 1e-60",
        ),
        (lambda ns: ns.server_contribution((x, x), (x, x), "a", 2), TypeError, "alpha: expected a number, got str"),
        (
            lambda ns: ns.server_total((np.ones((0, 4)),) * 2, (np.ones((0, 4)),) * 2, 0.5),
            ValueError,
            "at least one client",
        ),
        (
            lambda ns: ns.kl((x, ones), (x, ones * np.inf)),
            ValueError,
            "natural_p.precision: expected finite, got inf at index 0",
        ),
        (lambda ns: ns.entropy(x, ones, axis=1), ValueError, "axis: expected None or -1, got 1"),
        (
            lambda ns: ns.natural_from_expectation(x, -0.5 * x * x),
            ValueError,
            "expected a point of the family's expectation domain",
        ),
        (
            lambda ns: ns.client_map((np.ones((2, 4)),) * 2, (np.ones((3, 4)),) * 2, (np.ones((3, 4)),) * 2, 1.0),
            ValueError,
            r"expected shape",
        ),
    ],
)
def test_bad_calls_name_argument_expectation_and_value(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(badmm_kernels.load("diagonal_gaussian"))


def test_full_gaussian_refuses_what_is_not_a_precision() -> None:
    ns = badmm_kernels.load("full_gaussian")
    identity = np.eye(3)
    with pytest.raises(
        ValueError, match="precision: expected a positive definite matrix, got a leading minor of order 1"
    ):
        ns.natural_from_standard(np.ones(3), -identity)
    skew = identity.copy()
    skew[0, 2] = 0.5
    with pytest.raises(ValueError, match=r"precision: expected a symmetric matrix, got 0.5 and 0.0 at index \(0, 2\)"):
        ns.standard_from_natural(np.ones(3), skew)
    stack = np.stack([identity, np.diag([1.0, -1.0, 1.0])])
    with pytest.raises(ValueError, match=r"natural_q.precision\[1\]: expected a positive definite matrix"):
        ns.kl((np.ones((2, 3)), stack), (np.ones(3), identity))
    with pytest.raises(ValueError, match=r"m m\^T positive definite"):
        ns.natural_from_expectation(np.ones(3), -0.1 * identity)
    with pytest.raises(ValueError, match=r"expected_hessian: expected shape"):
        ns.natural_gradient(np.ones(3), np.ones(3), np.ones((3, 2)))
    ns.standard_from_natural(np.ones(3), np.diag([1.0, 1e-17, 1.0]))  # a matter of units
    nearly = np.eye(3)
    nearly[0, 1] = nearly[1, 0] = 1.0 - 2.0**-53
    with pytest.warns(NearSingularWarning, match="precision: nearly singular, reciprocal condition number"):
        ns.standard_from_natural(np.ones(3), nearly)


def test_load_names_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"family: expected one of bernoulli, beta, .*, got 'cauchy'"):
        badmm_kernels.load("cauchy")
    with pytest.raises(ValueError, match="device: expected 'cpu' or 'gpu', got 'tpu'"):
        badmm_kernels.load("gamma", device="tpu")
    with pytest.raises(ValueError, match="count: expected a positive integer, got 0"):
        badmm_kernels.set_num_threads(0)
