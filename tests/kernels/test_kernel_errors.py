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
        (lambda ns: ns.natural_from_standard(x, ones[:3]), ValueError, "precision: expected shape (4,), got (3,)"),
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
        (
            lambda ns: ns.natural_from_standard(np.ones(8)[::2], ones),
            ValueError,
            "mean: expected a C-contiguous array, got strides (16,) for shape (4,)",
        ),
        (
            lambda ns: ns.natural_from_standard(x, ones, out=(x.copy(),)),
            ValueError,
            "out: expected a tuple of 2 arrays, got 1 of them",
        ),
        (
            lambda ns: ns.natural_from_standard(x, ones, out=(read_only(4), x.copy())),
            ValueError,
            "out[0]: expected a writable array, got a read-only one",
        ),
        (
            lambda ns: ns.natural_from_standard(x, ones, out=(np.empty(5), x.copy())),
            ValueError,
            "out[0]: expected shape (4,), got (5,)",
        ),
        (
            lambda ns: ns.natural_from_standard(x, ones, out=(np.empty(8)[::2], x.copy())),
            ValueError,
            "out[0]: expected a C-contiguous array, got strides (16,) for shape (4,)",
        ),
        (
            lambda ns: ns.natural_from_standard(x * 1e10, ones * 1e308),
            ValueError,
            "natural_from_standard: result 0 overflows float64 (got -inf at index 0)",
        ),
        (
            lambda ns: ns.dual_update((x,), (x, x), (x, x), 1.0, 1.0),
            ValueError,
            "dual: expected a tuple of 2 arrays (precision_mean, precision), got 1 of them",
        ),
        (
            lambda ns: ns.dual_update((x, x), (x, x), (x, x), 0.0, 1.0),
            ValueError,
            "rho: expected a positive finite number, got 0.0",
        ),
        (
            lambda ns: ns.dual_update((x, x), (x, x), (x, x), 1.0, 1.5),
            ValueError,
            "damping: expected a number in (0, 1], got 1.5",
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
            lambda ns: ns.round_update(*((x, x),) * 3, 0.5, 1.0, 0.5, 2, out=((x, x),)),
            ValueError,
            "out: expected a tuple of 2 tuples of 2 arrays, got 1 of them",
        ),
        (
            lambda ns: ns.round_update(*((x, x),) * 3, 0.5, 1.0, 0.5, 2, out=((x, x), x)),
            ValueError,
            "out[1]: expected a tuple of 2 arrays, got ndarray",
        ),
        (
            lambda ns: ns.natural_from_standard(*[np.ones(5)[:4]] * 2, out=(b := np.ones(4), b)),
            ValueError,
            "out[1]: expected memory of its own or exactly an input's of the same slot, got an overlap with out[0]",
        ),
        (
            lambda ns: ns.server_total((np.ones((0, 4)),) * 2, (np.ones((0, 4)),) * 2, 0.5),
            ValueError,
            "natural_client.precision_mean: expected a leading client axis of at least one client, got (0, 4)",
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
            "half_negative_second_moment: expected a point of the family's expectation domain, got "
            "mean = -1.0, half_negative_second_moment = -0.5 at index 0",
        ),
        (
            lambda ns: ns.client_map((np.ones((2, 4)),) * 2, (np.ones((3, 4)),) * 2, (np.ones((3, 4)),) * 2, 1.0),
            ValueError,
            "dual.precision_mean: expected shape (2, 4) or, shared by all clients, (4,), got (3, 4)",
        ),
    ],
)
def test_bad_calls_name_argument_expectation_and_value(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call(badmm_kernels.load("diagonal_gaussian"))
    assert str(caught.value) == message


r2 = np.ones((2, 4))
f32 = np.ones(4, np.float32)


def sample(ns: Any, mean: Any = ones, precision: Any = ones, ess: Any = 2.0, **given: Any) -> Any:
    return ns.sample(mean, precision, ess, **({"noise": mean} | given))


def update(ns: Any, cavity: Any = (0.0, 0.1), like: Any = ones, **given: Any) -> Any:
    scalars = {"ess": 1.0, "lr": 0.1, "beta1": 0.9, "beta2": 0.9, "noise": like}
    return ns.update(like, like, like, like, cavity, **(scalars | given))


NUMBER_OR_ARRAY = "cavity.precision_mean: expected a number, or an array of shape"


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        # normals, their seed and their counters
        (lambda ns: sample(ns, noise=None), ValueError, "noise: expected an array where step is None, got None"),
        (
            lambda ns: update(ns, seed=1, step=3),
            ValueError,
            "noise: expected None beside a step to draw at, got an array",
        ),
        (
            lambda ns: sample(ns, noise=None, step=1),
            ValueError,
            "seed: expected an integer beside a step to draw at, got None",
        ),
        (
            lambda ns: sample(ns, noise=None, step=1, seed=1.5),
            TypeError,
            "seed: expected an integer of 64 bits, or one per row, got float",
        ),
        (
            lambda ns: sample(ns, noise=None, step=1, seed=True),
            TypeError,
            "seed: expected an integer of 64 bits, got bool",
        ),
        (
            lambda ns: sample(ns, r2, r2, noise=None, step=1, seed=[3, 1.5]),
            TypeError,
            "seed: expected an integer of 64 bits, got float",
        ),
        (
            lambda ns: sample(ns, noise=None, step=-1, seed=1),
            ValueError,
            "step: expected an integer from 0 to 2**64 - 1, got -1",
        ),
        (
            lambda ns: sample(ns, r2, r2, noise=None, step=[1, 2**64], seed=1),
            ValueError,
            "step: expected an integer from 0 to 2**64 - 1, got 18446744073709551616",
        ),
        (
            lambda ns: sample(ns, noise=None, step=1, seed=[1, 2]),
            ValueError,
            "seed: expected an integer of 64 bits, or an array of shape (1,), one per row, got (2,)",
        ),
        (lambda ns: sample(ns, noise=f32), TypeError, "noise: expected dtype float64 like mean, got float32"),
        (
            lambda ns: sample(ns, noise=np.ones(8)[::2]),
            ValueError,
            "noise: expected a C-contiguous array, got strides (16,) for shape (4,)",
        ),
        (lambda ns: sample(ns, noise=np.ones(5)), ValueError, "noise: expected shape (4,), got (5,)"),
        (lambda ns: sample(ns, seed=1, step=1, noise=np.ones(5)), ValueError, "noise: expected shape (4,), got (5,)"),
        (
            lambda ns: sample(ns, seed=1, step=1, noise=f32),
            TypeError,
            "noise: expected dtype float64, got float32",
        ),
        (
            lambda ns: sample(ns, seed=1, step=1, noise=ones),
            ValueError,
            "noise: expected memory of its own, got an overlap with mean",
        ),
        # scalars
        (lambda ns: sample(ns, ess="x"), TypeError, "ess: expected a number, or one per row, got str"),
        (lambda ns: sample(ns, r2, r2, ess=[1.0, "x"]), TypeError, "ess: expected a number, got str"),
        (lambda ns: sample(ns, r2, r2, ess=[1.0, True]), TypeError, "ess: expected a number, got bool"),
        (
            lambda ns: sample(ns, r2, r2, ess=[1.0, -2.0]),
            ValueError,
            "ess: expected a positive finite number, got -2.0 at row 1",
        ),
        (
            lambda ns: sample(ns, r2, r2, ess=np.ones(3)),
            ValueError,
            "ess: expected a number, or an array of shape (2,), one per row, got (3,)",
        ),
        (lambda ns: sample(ns, ess=0), ValueError, "ess: expected a positive finite number, got 0"),
        (lambda ns: sample(ns, ess=np.inf), ValueError, "ess: expected a positive finite number, got inf"),
        (lambda ns: update(ns, lr=-0.5), ValueError, "lr: expected a finite number >= 0, got -0.5"),
        (lambda ns: update(ns, lr=np.inf), ValueError, "lr: expected a finite number >= 0, got inf"),
        (lambda ns: update(ns, beta1=1.5), ValueError, "beta1: expected a number in [0, 1], got 1.5"),
        (lambda ns: update(ns, beta2=-0.5), ValueError, "beta2: expected a number in [0, 1], got -0.5"),
        (lambda ns: update(ns, debias=0.0), ValueError, "debias: expected a number in (0, 1], got 0.0"),
        (lambda ns: update(ns, debias=1.5), ValueError, "debias: expected a number in (0, 1], got 1.5"),
        (lambda ns: update(ns, clip=0.0), ValueError, "clip: expected a positive number or None, got 0.0"),
        (lambda ns: update(ns, clip=np.nan), ValueError, "clip: expected a positive number or None, got nan"),
        (
            lambda ns: sample(ns, f32, f32, ess=1e-100),
            ValueError,
            "ess: expected a coefficient that float32 can hold, got 1e+50",
        ),
        # operands that may be numbers
        (
            lambda ns: update(ns, (np.inf, 0.1)),
            ValueError,
            "cavity.precision_mean: expected a finite number that float64 can hold, got inf",
        ),
        (
            lambda ns: update(ns, (1e39, 0.1), f32),
            ValueError,
            "cavity.precision_mean: expected a finite number that float32 can hold, got 1e+39",
        ),
        (lambda ns: update(ns, (ones[:3], 0.1)), ValueError, f"{NUMBER_OR_ARRAY} (4,), got (3,)"),
        (
            lambda ns: update(ns, (np.ones((1, 4)), 0.1), r2),
            ValueError,
            f"{NUMBER_OR_ARRAY} (2, 4), (4,) or (2, 1), got (1, 4)",
        ),
        (
            lambda ns: update(ns, (f32, 0.1)),
            TypeError,
            "cavity.precision_mean: expected dtype float64 like gradient, got float32",
        ),
        (
            lambda ns: update(ns, (np.ones(8)[::2], 0.1)),
            ValueError,
            "cavity.precision_mean: expected a C-contiguous array, got strides (16,) for shape (4,)",
        ),
        # results
        (
            lambda ns: sample(ns, ones * 1e308, ones * 1e-300, 1e-300, noise=ones * 1e10),
            ValueError,
            "sample: expected finite, with a result that float64 can hold, got a new sample of inf at index 0",
        ),
    ],
)
def test_bad_calls_of_an_optimizer_name_argument_expectation_and_value(
    call: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        call(badmm_kernels.load("ivon"))
    assert str(caught.value) == message


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
