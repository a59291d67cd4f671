"""Kinds of fault at the places where data and settings come in, and where each is tested.

solvable clients    sites without events, unscaled columns, weak priors, losses that are not convex:
                    clients/test_hard_problems, here
what is a number    dates, complex numbers, masks, text, columns by name, long messages:
                    test_checks, rounds/test_bad_input
file reading        byte-order marks, blank lines, encodings, identifiers:
                    data/test_files, glm/test_messy_input, experiments/test_fit
rows and sites      rows without a site, a hold-out that empties a site:
                    data/test_files, experiments/test_problems, glm/test_input
keys                those that have no effect or overrule others: experiments/test_config, glm/test_messy_input
numerical zeros     constant columns, columns far from zero: experiments/test_problems, glm/test_units, here
sizes from data     labels and identifiers of any size: test_checks, experiments/test_problems, here
resuming            other data, another configuration, a damaged history:
                    experiments/test_run_folder, experiments/test_store
surroundings        terminals, caches: experiments/test_problems, kernels/test_cache
what GLMs need      weights, offsets, exposures, a prior of the intercept's own:
                    likelihoods/test_weights_and_offsets, glm/test_result, experiments/test_problems
convergence         coordinates behind a precise one, mixing that stalls: rounds/test_policy, here
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from badmm import Gaussian, solve
from badmm.likelihoods import CloglogRegression, LogisticRegression, NegativeBinomialRegression, PoissonRegression

RNG = np.random.default_rng(17)
N, K = 80, 4
AGE, DOSE = RNG.uniform(20, 80, N), RNG.normal(size=N)
EVENTS = (RNG.random(N) < 1 / (1 + np.exp(-DOSE))).astype(int)
PARTS = np.array_split(np.arange(N), K)
QUIET = np.where(np.arange(N) < N // K, 0, EVENTS)
"""No event at the first site."""


def pooled_distance(make: Any, X: np.ndarray, prior: Gaussian, family: str = "full_gaussian", **options: Any) -> float:
    """The largest distance of a coefficient from that of all rows at one site, in posterior standard deviations."""
    parts = [make(X[part], part) for part in PARTS]
    apart, whole = (
        solve(clients, family=family, prior=prior, tol=tol, **options)
        for clients, tol in ((parts, 1e-5), ([make(X, np.arange(N))], 1e-9))
    )
    assert apart.converged and whole.converged, (apart.reason, whole.reason)
    away = (apart.posterior.mean - whole.posterior.mean) / np.sqrt(whole.posterior.variance)
    return float(np.abs(away).max())


QUIET_SITES: dict[str, Any] = {
    "poisson": lambda X, rows: PoissonRegression(X, QUIET[rows]),
    "cloglog": lambda X, rows: CloglogRegression(X, QUIET[rows]),
    "negative binomial": lambda X, rows: NegativeBinomialRegression(X, QUIET[rows], 2.0),
    "logistic": lambda X, rows: LogisticRegression(X, QUIET[rows]),
}


@pytest.mark.parametrize(("name", "expectation"), [*((name, "delta") for name in QUIET_SITES), ("logistic", "auto")])
def test_a_site_without_events_and_raw_columns_is_solved(name: str, expectation: str) -> None:
    """Ages as they are, a dose in millionths, and a prior that lets both go anywhere near what they can be."""
    X = np.column_stack([np.ones(N), AGE, 1e6 * DOSE])
    prior = Gaussian(np.zeros(3), np.array([1e-2, 1e-1, 1e10]))
    assert pooled_distance(QUIET_SITES[name], X, prior, expectation=expectation) < 1e-3


FIXED: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "a coefficient that the prior fixes": (np.ones(3), np.array([1.0, 1e12, 1.0])),
    "a column in millionths": (np.array([1.0, 1.0, 1e6]), np.array([1.0, 1.0, 1.0])),
    "a column in millions": (np.array([1.0, 1e-6, 1.0]), np.array([1.0, 1e-12, 1.0])),
    "units twelve orders apart": (np.array([1.0, 1e-6, 1e6]), np.array([1.0, 1e-9, 1e9])),
}


@pytest.mark.parametrize("family", ["full_gaussian", "diagonal_gaussian"])
@pytest.mark.parametrize("name", FIXED)
def test_no_coefficient_hides_behind_a_precise_one(name: str, family: str) -> None:
    """Who has converged is near the pooled solution in every coefficient's own standard deviation."""
    unit, precision = FIXED[name]
    X = np.column_stack([np.ones(N), (AGE - 50) / 20, DOSE]) * unit
    order = np.argsort(DOSE)  # sites that differ as much as they can

    def make(rows: np.ndarray, part: np.ndarray) -> LogisticRegression:
        return LogisticRegression(X[order[part]], EVENTS[order[part]])

    assert pooled_distance(make, X, Gaussian(np.zeros(3), precision), family, expectation="delta") < 1e-3


@pytest.mark.parametrize("value", [0.1, 14.62, 1e8 + 0.1])
def test_a_column_may_be_constant_at_a_site(value: float) -> None:
    """The rows of that site count as they would among all."""
    pytest.importorskip("formulaic", reason="needs the extra glm")
    from badmm.glm import fit

    frame = pd.DataFrame({"y": EVENTS, "x": np.where(np.arange(N) < N // K, value, value + DOSE)})
    apart = fit("y ~ x", {str(k): frame.iloc[part] for k, part in enumerate(PARTS)}, family="binomial")
    whole = fit("y ~ x", {"all": frame}, family="binomial")
    np.testing.assert_allclose(apart.to_frame()["estimate"], whole.to_frame()["estimate"], rtol=1e-5)


@pytest.mark.parametrize("labels", [(5, 10**15, -3), (60000, 60001, 60002), (2**62, 2**62 + 1, 0)])
def test_labels_are_levels_whatever_their_size(labels: tuple[int, ...]) -> None:
    """Nothing is as large as a label: neither of a response nor of a term."""
    pytest.importorskip("formulaic", reason="needs the extra glm")
    from badmm.glm import fit

    codes = np.array(labels)[np.arange(N) % 3]
    frame = pd.DataFrame({"y": EVENTS, "x": DOSE, "code": codes, "kind": codes.astype(str)})
    sites = {10**12 + k: frame.iloc[part] for k, part in enumerate(PARTS)}
    small = frame.assign(code=np.array(list("abc"))[np.argsort(np.argsort(labels))][np.arange(N) % 3])
    found = fit("y ~ x + C(code)", {str(k): site for k, site in sites.items()}, family="binomial")
    wanted = fit("y ~ x + C(code)", {"all": small}, family="binomial")
    np.testing.assert_allclose(found.to_frame()["estimate"], wanted.to_frame()["estimate"], atol=1e-6)
