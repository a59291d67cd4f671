"""`badmm.glm.fit`: the pooled generalized linear model from sites that keep their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Gaussian
from badmm.glm.design import INTERCEPT, Design, SiteRows
from badmm.glm.families import ResponseFamily, response_family
from badmm.glm.mode import posterior_mode
from badmm.glm.priors import FLAT, Prior, precisions
from badmm.glm.result import Fitted, GLMResult, SiteCount
from badmm.glm.separation import separated, site_notes
from badmm.rounds.history import Result
from badmm.solve import solve

Estimate = Literal["map", "posterior"]
ALIASED = 1e-10
"""The smallest eigenvalue of the pooled Gram matrix, of unit diagonal, at which its columns count as dependent."""
SETTLED = 1e-10
"""Relative change of the dispersion at which it is found."""


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
        self.scale = _scale(self.terms, self.sites)
        self.precision = precisions(self.terms, self.scale, self.prior, self.intercept)
        flat = self.precision <= FLAT
        if flat.any():
            _check_rank(self.terms, self.scale, self.sites, self.precision)

    def fitted(self) -> Fitted:
        """Coefficients, covariance and dispersion of all sites."""
        return self._fit(self.sites)

    def alone(self, site: str) -> Fitted | None:
        """The same of one site's rows under the same prior; None where they do not determine the coefficients."""
        part = {site: self.sites[site]} if site in self.sites else {}
        try:
            if not part or separated(self.family, self.terms, self.scale, part, found := self._fit(part)):
                return None
            return found
        except (ValueError, RuntimeError):
            return None

    def _fit(self, sites: dict[str, SiteRows]) -> Fitted:
        total = sum(float(part.weights.sum()) for part in sites.values())
        free = total - len(self.terms)
        dispersion = 1.0 if self.family.known_dispersion else _spread(sites)
        while True:
            result = self._solve(sites, self.scale, self.precision, dispersion, self.estimate)
            theta = result.posterior.mean / self.scale
            deviance = self._deviance(sites, theta)
            if self.family.known_dispersion:
                break
            if free <= 0:
                raise ValueError(f"sites: expected more rows than the {len(self.terms)} terms, got {total:g}")
            old, dispersion = dispersion, max(deviance / free, np.finfo(float).tiny)
            if abs(dispersion - old) <= SETTLED * dispersion:
                break
        assert isinstance(result.posterior, Gaussian)
        covariance = result.posterior.covariance / np.outer(self.scale, self.scale)
        likelihood = self._log_likelihood(sites, theta, deviance / total)
        null = self._null_deviance(sites)
        return Fitted(theta, covariance, dispersion, deviance, null, likelihood, total, free, result)

    def _solve(
        self, sites: dict[str, SiteRows], scale: Array, precision: Array, dispersion: float, estimate: Estimate
    ) -> Result:
        clients = [
            self.family.client(part.X / scale, part.y, part.weights, part.offset, dispersion) for part in sites.values()
        ]
        prior = Gaussian(np.zeros(len(precision)), np.diag(precision))
        chosen: dict[str, Any] = {"tol": self.tol, "rounds": self.rounds, **self.options}
        mode = posterior_mode(clients, prior, chosen)
        if estimate == "map":
            return mode
        # duals of the mode: no client meets the wide prior alone
        return solve(clients, family="full_gaussian", prior=prior, start=mode.natural, duals=mode.duals, **chosen)

    def _deviance(self, sites: dict[str, SiteRows], theta: Array) -> float:
        family = self.family
        return float(
            sum(s.weights @ family.deviances(s.y, family.mean(s.X @ theta + s.offset)) for s in sites.values())
        )

    def _log_likelihood(self, sites: dict[str, SiteRows], theta: Array, dispersion: float) -> float:
        family = self.family
        return float(
            sum(
                s.weights @ family.log_likelihoods(s.y, family.mean(s.X @ theta + s.offset), dispersion)
                for s in sites.values()
            )
        )

    def _null_deviance(self, sites: dict[str, SiteRows]) -> float:
        """The deviance of the intercept alone, beside the offset."""
        one = np.ones(1)
        bare = {site: SiteRows(np.ones((s.used, 1)), s.y, s.weights, s.offset, 0, s.kept) for site, s in sites.items()}
        dispersion = 1.0 if self.family.known_dispersion else _spread(sites)
        theta = self._solve(bare, one, FLAT * one, dispersion, "map").posterior.mean
        return self._deviance(bare, theta)


def _spread(sites: dict[str, SiteRows]) -> float:
    """The pooled variance of y − offset."""
    total = sum(s.weights.sum() for s in sites.values())
    center = sum(s.weights @ (s.y - s.offset) for s in sites.values()) / total
    found = sum(s.weights @ np.square(s.y - s.offset - center) for s in sites.values()) / total
    return float(found) if found > 0 else 1.0


def _scale(terms: tuple[str, ...], sites: dict[str, SiteRows]) -> Array:
    """The pooled standard deviation of each column; the root mean square of one that is constant."""
    total = sum(s.weights.sum() for s in sites.values())
    center = sum(s.weights @ s.X for s in sites.values()) / total
    square = sum(s.weights @ np.square(s.X) for s in sites.values()) / total
    variance = sum(s.weights @ np.square(s.X - center) for s in sites.values()) / total
    constant = variance <= 1e-20 * square
    constant |= np.array([term == INTERCEPT for term in terms])
    scale = np.sqrt(np.where(constant, square, variance))
    if not (scale > 0).all():
        raise ValueError(f"formula: expected terms that are not 0 in every row, got {terms[int(np.argmin(scale))]!r}")
    return np.asarray(scale)


def _check_rank(terms: tuple[str, ...], scale: Array, sites: dict[str, SiteRows], precision: Array) -> None:
    """Raise `ValueError` naming the terms that depend on each other where no prior tells them apart."""
    gram = np.diag(np.where(precision <= FLAT, 0.0, precision))
    for s in sites.values():
        half = s.X / scale * np.sqrt(s.weights)[:, None]
        gram += half.T @ half
    unit = 1.0 / np.sqrt(np.diag(gram))
    values, vectors = np.linalg.eigh(gram * np.outer(unit, unit))
    if values[0] < ALIASED:
        involved = np.flatnonzero(np.abs(vectors[:, 0]) > 1e-3 * np.abs(vectors[:, 0]).max())
        names = ", ".join(repr(terms[j]) for j in involved)
        raise ValueError(f"formula: expected terms that do not depend on each other, got {names:.300}")
