"""A sweep without the checks of a public call: the same numbers bit for bit, the same domain errors."""

from typing import Any

import numpy as np
import pytest

import badmm_kernels

NS: Any = badmm_kernels.load("ivon")
SCALARS = (50.0, 0.1, 0.9, 0.99, 0.5, 0.3)


def arrays(dtype: Any, count: int = 70_001) -> list[Any]:
    rng = np.random.default_rng(0)
    gradient, mean, momentum, noise, shift = (rng.normal(size=count).astype(dtype) for _ in range(5))
    precision, cavity = (rng.uniform(0.5, 2.0, count).astype(dtype) for _ in range(2))
    return [gradient, mean, precision, momentum, noise, shift, cavity]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("numbers", [True, False])
def test_it_gives_what_a_public_call_gives(dtype: Any, numbers: bool) -> None:
    gradient, mean, precision, momentum, noise, shift, cavity = arrays(dtype)
    prior = (0.0, 0.01) if numbers else (shift, cavity)
    expected = NS.update(gradient, mean, precision, momentum, prior, *SCALARS, noise=noise)
    state, sweep = (mean, precision, momentum), NS._UPDATE
    sources = sweep.sources((gradient, *state, *prior), noise)
    sweep.trusted(sources, sweep.coefficients(SCALARS, mean.dtype, 1)[1], state)
    for ours, public in zip(state, expected, strict=True):
        np.testing.assert_array_equal(ours, public)
    theta, sample = np.empty_like(mean), NS._SAMPLE
    sample.trusted(sample.sources((mean, precision), noise), sample.coefficients((50.0,), mean.dtype, 1)[1], (theta,))
    np.testing.assert_array_equal(theta, NS.sample(mean, precision, 50.0, noise=noise)[0])


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, np.nan, "gradient: expected finite, got nan at index 7"),
        (4, np.inf, "noise: expected finite, got inf at index 7"),
        (2, -1.0, "precision: expected finite, .* at index 7, overwritten"),
    ],
)
def test_its_domain_errors_are_those_of_a_public_call(place: int, value: float, words: str) -> None:
    given = arrays(np.float64, 300)
    given[place][7] = value
    gradient, mean, precision, momentum, noise, *_ = given
    state, sweep = (mean, precision, momentum), NS._UPDATE
    sources = sweep.sources((gradient, *state, 0.0, 0.01), noise)
    with pytest.raises(ValueError, match=words):
        sweep.trusted(sources, sweep.coefficients(SCALARS, mean.dtype, 1)[1], state)
