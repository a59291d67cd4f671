"""`badmm.glm.fit`: the pooled generalized linear model from sites that keep their rows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from badmm.checks import Array, ClientError, UnfinishedRunError
from badmm.families.distributions import Gaussian
from badmm.glm.coordinates import INTERCEPT, Reparametrisation, spread
from badmm.glm.design import Design, SiteRows
from badmm.glm.families import ResponseFamily, response_family
from badmm.glm.mode import posterior_mode
from badmm.glm.priors import Prior, precisions
from badmm.glm.result import Fitted, GLMResult, SiteCount
from badmm.glm.separation import separated, site_notes
from badmm.rounds.history import Result
from badmm.solve import solve

Estimate = Literal["map", "posterior"]
_SET_HERE = {"clients", "family", "prior", "expectation", "tol", "rounds", "start", "duals", "state"}
OPTIONS = frozenset(inspect.signature(solve).parameters) - _SET_HERE
"""Of `badmm.solve`, what `fit` passes on."""
SETTLED = 1e-10
"""Relative change of the dispersion at which it is found."""
DISPERSIONS = 100
"""Steps of the dispersion; it needs two under a flat prior, a few more under another."""
ROUNDING = 8 * np.finfo(float).eps
"""Residuals relative to the responses that rounding leaves of an exact fit."""


def fit(
    formula: str,
    sites: Mapping[str, Any],
    family: str = "binomial",
    *,
    prior: Prior = None,
    prior_intercept: float | None = None,
    offset: str | None = None,
    weights: str | None = None,
    exposure: str | None = None,
    estimate: Estimate = "map",
    missing: str = "drop",
    tol: float = 1e-9,
    rounds: int = 200,
    **options: Any,
) -> GLMResult:
    """Fit one model to the rows of all sites, which send sums and natural parameters but no row.

    formula: "response ~ terms", by formulaic. sites: data frames by name (pandas, polars, whatever narwhals reads). The
    kinds of the columns and the levels of the categorical ones are agreed on first. family: "gaussian", "binomial" or
    "poisson", with its canonical link. prior: None (flat), "weak", a precision, or precisions by term
    (`badmm.glm.priors`); the intercept's own is `prior_intercept`, flat by default. offset: a term added to the
    predictor; exposure: a column whose logarithm is; weights: a column that counts rows. estimate: "map", the mode with
    the curvature there, which under a flat prior is the pooled maximum likelihood fit with its standard errors, or
    "posterior", the variational posterior. missing: "drop" leaves rows with missing values out and counts them,
    "error" refuses them. tol, rounds and further options are those of `badmm.solve`.

    Raises `ValueError` that names the argument, or the site and the column.
    """
    if estimate not in ("map", "posterior"):
        raise ValueError(f'estimate: expected "map" or "posterior", got {estimate!r:.80}')
    unknown = set(options) - OPTIONS
    if unknown:
        raise ValueError(f"{min(unknown)}: expected one of the options {', '.join(sorted(OPTIONS))}")
    kind = response_family(family)
    design = Design(formula, kind, offset, weights, exposure, missing)
    rows = design.rows(sites)
    used = {site: part for site, part in rows.items() if part.weights.sum() > 0}
    problem = _Problem(kind, design.terms, used, prior, prior_intercept, estimate, tol, rounds, options)
    fitted = problem.fitted()
    counts = {site: SiteCount(part.used, part.left_out, _events(kind, part)) for site, part in rows.items()}
    notes = [
        *(f"site {site!r}: no row to use" for site in rows if site not in used),
        *separated(kind, design.terms, problem.scale, used, fitted),
        *site_notes(kind, design.terms, used),
    ]
    return GLMResult(design, kind, fitted, counts, tuple(notes), estimate, problem.alone)


def _events(family: ResponseFamily, part: SiteRows) -> float | None:
    return None if family.name == "gaussian" else float(part.weights @ part.y)


@dataclass
class _Problem:
    """The pooled problem in columns of unit scale."""

    family: ResponseFamily
    terms: tuple[str, ...]
    sites: dict[str, SiteRows]
    prior: Prior
    intercept: float | None
    estimate: Estimate
    tol: float
    rounds: int
    options: dict[str, Any]

    def __post_init__(self) -> None:
        parts = list(self.sites.values())
        found = spread(self.terms, parts)
        self.scale, self.unit = found.scale, 1.0 if self.family.known_dispersion else _spread(self.sites)
        self.precision = precisions(self.terms, found.scale, self.unit**0.5, self.prior, self.intercept)
        self.coordinates = Reparametrisation.of(self.terms, parts, self.precision, found, "formula")

    def fitted(self) -> Fitted:
        """Coefficients, covariance and dispersion of all sites."""
        return self._fit(self.sites, self.coordinates)

    def alone(self, site: str) -> Fitted | None:
        """The same of one site's rows under the same prior; None where they do not determine the coefficients."""
        part = {site: self.sites[site]} if site in self.sites else {}
        try:
            parts = list(part.values())
            found = spread(self.terms, parts)
            coordinates = Reparametrisation.of(self.terms, parts, self.precision, found, "formula")
            fitted = self._fit(part, coordinates)
            return None if separated(self.family, self.terms, self.scale, part, fitted) else fitted
        except (ValueError, RuntimeError):
            return None

    def _fit(self, sites: dict[str, SiteRows], coordinates: Reparametrisation) -> Fitted:
        total = sum(float(part.weights.sum()) for part in sites.values())
        free = total - len(self.terms)
        dispersion = self.unit
        if not self.family.known_dispersion and free <= 0:
            raise ValueError(f"sites: expected more rows than the {len(self.terms)} terms, got {total:g}")
        least = _least_dispersion(sites)
        for _ in range(DISPERSIONS):
            result = self._solve(sites, coordinates, dispersion, self.estimate)
            posterior = _gaussian(result)
            means = self._means(sites, coordinates, posterior.mean)
            deviance = self._deviance(sites, means)
            if self.family.known_dispersion:
                break
            old, dispersion = dispersion, max(deviance / free, least)
            if abs(dispersion - old) <= SETTLED * dispersion + (least * dispersion) ** 0.5:
                break
        else:
            result = replace(result, converged=False, reason="the dispersion does not settle")
        likelihood = self._log_likelihood(sites, means, max(deviance / total, least))
        null = self._null_deviance(sites)
        return Fitted(posterior, coordinates, dispersion, deviance, null, likelihood, total, free, result)

    def _solve(
        self, sites: dict[str, SiteRows], coordinates: Reparametrisation, dispersion: float, estimate: Estimate
    ) -> Result:
        clients = [
            self.family.client(coordinates.rows(part.X), part.y, part.weights, part.offset, dispersion)
            for part in sites.values()
        ]
        prior = Gaussian(self._start(sites, coordinates), coordinates.prior(self.precision, self.unit))
        chosen: dict[str, Any] = {"tol": self.tol, "rounds": self.rounds, **self.options}
        try:
            mode = posterior_mode(clients, prior, chosen)
            if estimate == "map":
                return mode
            # duals of the mode: no client meets the wide prior alone
            return solve(clients, family="full_gaussian", prior=prior, start=mode.natural, duals=mode.duals, **chosen)
        except ClientError as error:
            raise UnfinishedRunError(f"site {list(sites)[error.client]!r}: {error.reason}") from error

    def _start(self, sites: dict[str, SiteRows], coordinates: Reparametrisation) -> Array:
        """The mean of the prior on θ: where the intercept's is flat, it is no statement but a start."""
        beta = np.zeros(len(self.terms))
        if self.terms[0] == INTERCEPT and self.precision[0] == 0:
            beta[0] = self.family.start(list(sites.values()))
        return np.asarray(np.linalg.solve(coordinates.inner, beta))

    def _means(self, sites: dict[str, SiteRows], coordinates: Reparametrisation, theta: Array) -> dict[str, Array]:
        """E[y] of every row by site."""
        return {
            site: self.family.mean(coordinates.predictor(part.X, theta) + part.offset) for site, part in sites.items()
        }

    def _deviance(self, sites: dict[str, SiteRows], means: dict[str, Array]) -> float:
        return float(sum(s.weights @ self.family.deviances(s.y, means[site]) for site, s in sites.items()))

    def _log_likelihood(self, sites: dict[str, SiteRows], means: dict[str, Array], dispersion: float) -> float:
        parts = (s.weights @ self.family.log_likelihoods(s.y, means[site], dispersion) for site, s in sites.items())
        return float(sum(parts))

    def _null_deviance(self, sites: dict[str, SiteRows]) -> float:
        """The deviance of the intercept alone, beside the offset."""
        bare = {site: replace(s, X=np.ones((s.used, 1))) for site, s in sites.items()}
        alone = replace(self, terms=(INTERCEPT,), sites=bare, prior=None, intercept=None)
        result = alone._solve(bare, alone.coordinates, self.unit, "map")
        return self._deviance(bare, self._means(bare, alone.coordinates, _gaussian(result).mean))


def _gaussian(result: Result) -> Gaussian:
    assert isinstance(result.posterior, Gaussian)
    return result.posterior


def _spread(sites: dict[str, SiteRows]) -> float:
    """The pooled variance of y − offset."""
    total = sum(s.weights.sum() for s in sites.values())
    center = sum(s.weights @ (s.y - s.offset) for s in sites.values()) / total
    found = sum(s.weights @ np.square(s.y - s.offset - center) for s in sites.values()) / total
    return float(found) if found > 0 else 1.0


def _least_dispersion(sites: dict[str, SiteRows]) -> float:
    """What rounding leaves of an exact fit."""
    total = sum(s.weights.sum() for s in sites.values())
    square = sum(s.weights @ np.square(s.y - s.offset) for s in sites.values()) / total
    return max(float(square) * ROUNDING**2, float(np.finfo(float).tiny))
