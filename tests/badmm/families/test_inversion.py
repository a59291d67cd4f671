"""Numerical inversion of densities and of counts: where panels lie, modes, moments and quantiles against scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from badmm.families.inversion import DEPTH, FEW, LEVELS, NODES, PARTS, Counting, Inversion, from_line, mode_of, panels

INFINITY = float("inf")


@pytest.mark.parametrize(("mode", "scale"), [(0.0, 1.0), (3.0, 0.01), (-40.0, 25.0)])
def test_panels_halve_towards_the_mode_and_end_where_nothing_is_left(mode: float, scale: float) -> None:
    def height(u: np.ndarray) -> np.ndarray:
        return np.asarray(-0.5 * ((u - mode) / scale) ** 2)

    edges = panels(height, mode)
    assert len(edges) == 2 * (LEVELS + 1) * PARTS + 1
    lengths = np.diff(edges)
    assert (lengths > 0).all() and edges[(len(edges) - 1) // 2] == pytest.approx(mode)
    np.testing.assert_allclose(edges - mode, -(edges - mode)[::-1], rtol=1e-9, atol=1e-12 * scale)
    reach = edges[-1] - mode
    assert height(edges[-1:])[0] < -DEPTH <= height(np.array([mode + 0.5 * reach]))[0]
    right = lengths[(LEVELS + 1) * PARTS :].reshape(LEVELS + 1, PARTS)
    np.testing.assert_allclose(right, right[:, :1] * np.ones(PARTS), rtol=1e-6)  # of one length in each halving
    np.testing.assert_allclose(right[1:, 0], reach / 2 / PARTS * 2.0 ** -np.arange(LEVELS - 1, -1, -1.0), rtol=1e-6)
    assert right[0, 0] == pytest.approx(reach * 2.0**-LEVELS / PARTS, rel=1e-6)


def test_a_height_that_does_not_fall_reaches_as_far_as_there_are_panels() -> None:
    edges = panels(lambda u: np.where(u > 0, 0.0, -(u**2)), 0.0)
    assert edges[-1] == 2.0**20 and -16.0 <= edges[0] <= -6.0


@pytest.mark.parametrize("mode", [-1400.0, -30.0, 0.0, 0.3, 5.0, 700.0])
def test_the_mode_is_found_wherever_it_is(mode: float) -> None:
    scale = max(1.0, abs(mode) / 10)
    assert mode_of(lambda u: -(((u - mode) / scale) ** 2)) == pytest.approx(mode, rel=1e-6, abs=1e-6)


def law_of(law: Any, support: tuple[float, float]) -> Inversion:
    def log_density(theta: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(law.logpdf(theta))

    return Inversion(log_density, support)


def power_law(index: float) -> Inversion:
    """The density ∝ (1 + θ)^−(index + 1), θ > 0, with E[θ] = 1/(index − 1)."""
    return Inversion(lambda theta: np.log(index) - (index + 1) * np.log1p(theta), (0.0, INFINITY))


def test_a_moment_that_does_not_exist_is_none() -> None:
    assert power_law(1.5).moment(1) == pytest.approx(2.0, rel=1e-9) and power_law(1.5).moment(2) is None
    assert power_law(0.9).moment(1) is None
    heavy = power_law(2.5)
    assert heavy.moment(2) == pytest.approx(2.0 / (1.5 * 0.5), rel=1e-8) and heavy.moment(3) is None
    assert heavy.moment(2, 1 / 1.5) == pytest.approx(2.0 / (1.5 * 0.5) - 1 / 1.5**2, rel=1e-8)
    assert law_of(stats.cauchy(0.5), (-INFINITY, INFINITY)).moment(1) is None
    light = law_of(stats.gamma(0.01, scale=2.0), (0.0, INFINITY))
    assert [light.moment(k) for k in (1, 2, 3)] == pytest.approx([0.02, 0.02 * 2.02, 0.02 * 2.02 * 4.02], rel=1e-9)


@pytest.mark.parametrize("support", [(-INFINITY, INFINITY), (0.0, INFINITY), (-INFINITY, 0.0), (-1.0, 3.0)])
def test_quantiles_invert_the_distribution_function_at_panels_ends_too(support: tuple[float, float]) -> None:
    """At every probability, whichever panel holds it; within the support; ascending."""
    laws: dict[float, Any] = {INFINITY: stats.norm(0.5, 2.0), 0.0: None, 3.0: stats.beta(2.0, 0.7, loc=-1.0, scale=4.0)}
    law = laws[support[1]]
    if support == (0.0, INFINITY):
        law = stats.gamma(0.3)
    found = law_of(law, support) if law is not None else Inversion(lambda x: stats.gamma(0.3).logpdf(-x), support)
    ends = found._below[(found._below > 1e-12) & (found._below < 1 - 1e-12)]
    probability = np.sort(np.concatenate([ends, np.linspace(1e-6, 1 - 1e-6, 41)]))
    theta = found.quantile(probability)
    assert (np.diff(theta) >= 0).all()
    back = law.cdf(theta) if law is not None else stats.gamma(0.3).sf(-theta)
    np.testing.assert_allclose(back, probability, rtol=1e-9, atol=3e-11)


def test_a_moment_that_does_not_exist_for_the_lower_tail_is_none() -> None:
    """E[θ²] of −log of a power law on the negative half line, and of its mirror image."""
    upper = power_law(1.5)
    lower = Inversion(lambda theta: np.log(1.5) - 2.5 * np.log1p(-theta), (-INFINITY, 0.0))
    assert lower.moment(1) == pytest.approx(-2.0, rel=1e-9)
    assert lower.moment(2) is None and upper.moment(2) is None
    line = law_of(stats.gumbel_r(), (-INFINITY, INFINITY))
    heavy = Inversion(lambda t: np.where(t < 0, -2.5 * np.log1p(np.abs(t)), -t), (-INFINITY, INFINITY))
    assert line.moment(2) is not None and heavy.moment(2) is None


def test_counts_are_listed_as_far_as_each_side_needs() -> None:
    found = Counting(stats.poisson(3e6).logpmf, (0.0, INFINITY))
    middle = found._mode()
    reach = {side: found._reach(middle, side) for side in (-1.0, 1.0)}
    theta, _ = found.values
    assert (middle - theta[0], theta[-1] - middle) == (reach[-1.0], reach[1.0])
    skewed = Counting(stats.binom(10_000, 1 - 1e-5).logpmf, (0.0, 10_000.0))
    theta, _ = skewed.values
    middle = skewed._mode()
    assert theta[0] == middle - skewed._reach(middle, -1.0) and theta[-1] == 10_000.0


def test_the_rule_is_exact_for_the_nodes_degree_and_the_density_one_at_the_mode() -> None:
    found = law_of(stats.norm(), (-INFINITY, INFINITY))
    assert found.density(np.array([found.mode])).tolist() == [1.0]
    u, weights = found._rule(np.array([0.0, 1.0]), np.array([1.0, 3.0]))
    assert u.shape == weights.shape == (2, len(NODES))
    assert (u[0] > 0).all() and (u[0] < 1).all() and (u[1] > 1).all() and (u[1] < 3).all()
    mass = weights.sum(axis=1) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(mass, np.diff(stats.norm.cdf([0.0, 1.0, 3.0])), rtol=1e-10)


def test_the_line_is_mapped_smoothly_onto_each_kind_of_support() -> None:
    u = np.array([-2.0, 0.0, 2.0])
    for support, wanted in (
        ((-INFINITY, INFINITY), u),
        ((1.0, INFINITY), 1.0 + np.exp(u)),
        ((-INFINITY, 1.0), 1.0 - np.exp(u)),
        ((-1.0, 3.0), -1.0 + 4.0 / (1.0 + np.exp(-u))),
    ):
        theta, slope = from_line(u, *support)
        np.testing.assert_allclose(theta, wanted, rtol=1e-14)
        assert slope.shape == u.shape


COUNTS: dict[str, tuple[Any, tuple[float, float]]] = {
    "few": (stats.binom(9, 0.3), (0.0, 9.0)),
    "as many as are listed": (stats.binom(int(FEW) - 1, 0.4), (0.0, FEW - 1)),
    "one more": (stats.binom(int(FEW), 0.4), (0.0, FEW)),
    "poisson": (stats.poisson(3.2), (0.0, INFINITY)),
    "poisson below one": (stats.poisson(0.02), (0.0, INFINITY)),
    "large poisson": (stats.poisson(3e6), (0.0, INFINITY)),
    "geometric": (stats.geom(1e-3, loc=-1), (0.0, INFINITY)),
    "negative binomial": (stats.nbinom(2.5, 2.5 / 22.5), (0.0, INFINITY)),
    "of both signs": (stats.skellam(30.0, 20.0), (-1e6, 1e6)),
    "below zero": (stats.skellam(20.0, 90.0), (-1e6, 1e6)),
    "at the upper end": (stats.binom(10_000, 1 - 1e-5), (0.0, 10_000.0)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_summed_where_they_matter(name: str) -> None:
    law, support = COUNTS[name]
    found = Counting(law.logpmf, support)
    theta, mass = found.values
    assert mass.sum() == pytest.approx(1.0, rel=1e-12) and (np.diff(theta) == 1.0).all()
    assert theta[0] >= support[0] and theta[-1] <= support[1] and len(theta) < 200_000
    assert law.cdf(theta[0] - 1) < 1e-15 and law.sf(theta[-1]) < 1e-15
    assert found.moment(0) == pytest.approx(1.0, rel=1e-12)
    assert found.moment(1) == pytest.approx(law.mean(), rel=1e-10)
    assert found.moment(2, law.mean()) == pytest.approx(law.var(), rel=1e-8)
    probability = np.array([1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
    np.testing.assert_allclose(found.quantile(probability), law.ppf(probability), rtol=1e-6)
    assert law.mean() < found.quantile(np.array([1.0]))[0] <= theta[-1]
    if support[1] - support[0] >= FEW:
        middle = found._mode()
        assert law.logpmf(middle) >= max(law.logpmf(middle - 1), law.logpmf(middle + 1))
