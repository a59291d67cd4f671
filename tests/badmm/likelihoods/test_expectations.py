"""One-dimensional Gaussian expectations against 30-digit quadrature."""

import mpmath
import numpy as np
import pytest

from badmm.likelihoods.expectations import exponential_moments, softplus_moments

# on both sides of the switch between the two grids, and far into the tails
DEVIATIONS = (0.0, 1e-3, 0.3, 1.0999, 1.1001, 3.0, 30.0, 100.0)
CENTERS = (0.0, -0.7, 2.5, -12.0, 40.0)


def reference(center: float, deviation: float) -> tuple[float, float, float]:
    with mpmath.workdps(30):
        p, s = mpmath.mpf(center), mpmath.mpf(deviation)

        def expected(f):
            if s == 0:
                return float(f(p))
            # the sigmoid turns within |a| < 40 of 0: cut there, and at the Gaussian's own scale
            marks = {-13 * s + p, 13 * s + p, p, *(p + k * s for k in (-6, -3, -1, 1, 3, 6))}
            marks |= {mpmath.mpf(k) for k in (-60, -30, -12, -5, -2, 0, 2, 5, 12, 30, 60)}
            inside = sorted(m for m in marks if -13 * s + p <= m <= 13 * s + p)
            weight = lambda a: mpmath.exp(-(((a - p) / s) ** 2) / 2) / (s * mpmath.sqrt(2 * mpmath.pi))  # noqa: E731
            return float(mpmath.quad(lambda a: f(a) * weight(a), inside, maxdegree=8))

        sigmoid = lambda a: 1 / (1 + mpmath.exp(-a))  # noqa: E731
        return (
            expected(lambda a: mpmath.log1p(mpmath.exp(a)) if a < 700 else a),
            expected(sigmoid),
            expected(lambda a: sigmoid(a) * sigmoid(-a)),
        )


@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_softplus_moments_match_quadrature_at_any_deviation(deviation: float) -> None:
    centers = np.array(CENTERS)
    found = softplus_moments(centers, np.full(len(centers), deviation**2))
    for i, center in enumerate(CENTERS):
        for ours, exact in zip((part[i] for part in found), reference(center, deviation), strict=True):
            assert abs(ours - exact) <= 3e-14 * max(1.0, abs(exact))


def test_softplus_moments_mix_narrow_and_wide_rows_in_order() -> None:
    center, variance = np.array([0.3, -1.0, 2.0, 0.3]), np.array([0.01, 9.0, 1.0, 400.0])
    together = softplus_moments(center, variance)
    for i in range(4):
        alone = softplus_moments(center[i : i + 1], variance[i : i + 1])
        assert [part[i] for part in together] == pytest.approx([part[0] for part in alone], rel=1e-15)


def test_moments_are_derivatives_of_one_another() -> None:
    center, variance, h = np.linspace(-4, 4, 9), np.full(9, 2.3), 1e-5
    up, down = softplus_moments(center + h, variance), softplus_moments(center - h, variance)
    middle = softplus_moments(center, variance)
    assert (up.value - down.value) / (2 * h) == pytest.approx(middle.slope, abs=1e-9)
    assert (up.slope - down.slope) / (2 * h) == pytest.approx(middle.curvature, abs=1e-9)


def test_exponential_moments_are_the_closed_form_and_overflow_to_infinity() -> None:
    center, variance = np.array([0.5, 800.0]), np.array([2.0, 0.0])
    found = exponential_moments(center, variance)
    assert found.value[0] == pytest.approx(np.exp(1.5), rel=1e-15)
    assert np.isinf(found.slope[1])
