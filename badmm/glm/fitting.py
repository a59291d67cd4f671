"""`badmm.glm.fit`: the pooled generalized linear model from sites that keep their rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from badmm.checks import Array, positive_number
from badmm.families.distributions import Gaussian
from badmm.families.structures.gaussian_gamma import GaussianGamma
from badmm.glm import estimates
from badmm.glm.coordinates import INTERCEPT, Reparametrisation, spread
from badmm.glm.design import Design
from badmm.glm.estimates import Estimate
from badmm.glm.families import ResponseFamily, response_family
from badmm.glm.families.base import total
from badmm.glm.priors import Prior, precisions
from badmm.glm.result import Fitted, GLMResult, SiteCount
from badmm.glm.rows import Blocks, Of, Site, SiteRows, Sites, SpilledRows
from badmm.glm.separation import separated, site_notes
from badmm.rounds.history import Result
from badmm.solve import solve

_SET_HERE = {"clients", "family", "prior", "expectation", "tol", "rounds", "start", "duals", "state"}
OPTIONS = frozenset(inspect.signature(solve).parameters) - _SET_HERE
"""Of `badmm.solve`, what `fit` passes on."""
SETTLED = 1e-10
"""Relative change of the dispersion at which it is found."""
DISPERSIONS = 100
"""Steps of the dispersion; it needs two under a flat prior, a few more under another or by likelihood."""


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
    dispersion: float | None = None,
    estimate: Literal["map", "posterior"] = "map",
    missing: str = "drop",
    tol: float = 1e-9,
    rounds: int = 200,
    **options: Any,
) -> GLMResult:
    """Fit one model to the rows of all sites, which send sums and natural parameters but no row.

    formula: "response ~ terms", by formulaic. sites: data frames by name (pandas, polars, whatever narwhals reads), or
    `badmm.data.chunks.Chunked` files, whose rows are read in chunks, lie in a nameless temporary file as the model sees
    them, and are in memory some at a time. The kinds of the columns and the levels of the categorical ones are agreed
    on first. family: "gaussian", "binomial", "poisson", "negative_binomial" and "gamma" with the logarithm as their
    link, or "multinomial" against the
    response's first level. prior: None (flat), "weak", a precision, or precisions by term (`badmm.glm.priors`); the
    intercept's own is `prior_intercept`, flat by default. offset: a term added to the predictor; exposure: a column
    whose logarithm is; weights: a column that counts rows. dispersion: the noise variance φ (gaussian), the variance
    over the squared mean φ (gamma) or α of variance μ + αμ² (negative binomial); by default the first two are
    Pearson's, and α that of the largest likelihood, in turns with the coefficients.

    estimate: "map", the mode with the expected curvature there, which under a flat prior is the pooled maximum
    likelihood fit with its standard errors, or "posterior", the variational posterior given the mode's dispersion. For
    gaussian responses of unknown noise "posterior" is the exact one of coefficients and noise together, with Student-t
    intervals; precisions of the prior are then relative to the noise's, which has the density 1/τ. missing: "drop"
    leaves rows with missing values out and counts them, "error" refuses them. tol, rounds and further options are those
    of `badmm.solve`.

    Raises `ValueError` that names the argument, or the site and the column.
    """
    if estimate not in ("map", "posterior"):
        raise ValueError(f'estimate: expected "map" or "posterior", got {estimate!r:.80}')
    unknown = set(options) - OPTIONS
    if unknown:
        raise ValueError(f"{min(unknown)}: expected one of the options {', '.join(sorted(OPTIONS))}")
    if estimate == "map" and options.get("temperature", 1.0) != 1.0:
        raise ValueError(f'temperature: expected none for estimate "map", got {options["temperature"]!r:.80}')
    kind = response_family(family)
    if dispersion is not None:
        if kind.dispersion is None:
            raise ValueError(f"dispersion: expected none for family {kind.name!r}, got {dispersion!r:.80}")
        dispersion = positive_number(dispersion, "dispersion")
    design = Design(formula, kind, offset, weights, exposure, missing)
    rows = design.rows(sites)
    streamed = [site for site, part in rows.items() if isinstance(part, SpilledRows)]
    if streamed and estimate == "posterior" and dispersion is None and kind.conjugate is not None:
        raise ValueError(f'estimate: expected "map" or a dispersion where sites[{streamed[0]!r}] is read in chunks')
    used = {site: part for site, part in rows.items() if part.weight > 0}
    problem = _Problem(
        design.family, design.terms, used, prior, prior_intercept, dispersion, estimate, tol, rounds, options
    )
    fitted = problem.fitted()
    counts = {site: SiteCount(part.used, part.left_out, _events(kind, part)) for site, part in rows.items()}
    notes = [
        *(f"site {site!r}: no row to use" for site in rows if site not in used),
        *design.doubtful_levels(),
        *separated(design.family, design.terms, problem.scale, used, fitted),
        *site_notes(kind, design.terms, used),
    ]
    return GLMResult(design, fitted, counts, tuple(notes), estimate, problem.alone)


def _events(family: ResponseFamily, part: Site) -> float | None:
    return float(sum(block.weights @ block.y for block in part.blocks())) if family.counts_events else None


@dataclass
class _Problem:
    """The pooled problem in columns of unit scale."""

    family: ResponseFamily
    terms: tuple[str, ...]
    sites: Sites
    prior: Prior
    intercept: float | None
    dispersion: float | None
    estimate: str
    tol: float
    rounds: int
    options: dict[str, Any]

    def __post_init__(self) -> None:
        parts = Blocks(self.sites)
        found = spread(self.terms, parts)
        self.scale, self.unit = found.scale, 1.0 if self.joint else self.family.unit(parts)
        self.precision = precisions(self.terms, found.scale, self.unit**0.5, self.prior, self.intercept)
        self.coordinates = self._coordinates(parts)

    @property
    def joint(self) -> bool:
        """Whether the posterior is that of coefficients and noise together."""
        return self.estimate == "posterior" and self.dispersion is None and self.family.conjugate is not None

    @property
    def searched(self) -> bool:
        """Whether the dispersion is estimated."""
        return self.dispersion is None and self.family.dispersion is not None

    def _coordinates(self, parts: Blocks) -> Reparametrisation:
        found = spread(self.terms, parts)
        return Reparametrisation.of(self.terms, parts, self.precision, found, "formula", self.family.width)

    def fitted(self) -> Fitted:
        """Coefficients, covariance and dispersion of all sites."""
        return self._fit(self.sites, self.coordinates)

    def alone(self, site: str) -> Fitted | None:
        """The same of one site's rows under the same prior; None where they do not determine the coefficients."""
        part = {site: self.sites[site]} if site in self.sites else {}
        try:
            fitted = self._fit(part, self._coordinates(Blocks(part)))
            return None if separated(self.family, self.terms, self.scale, part, fitted) else fitted
        except (ValueError, RuntimeError):
            return None

    def _fit(self, sites: Sites, coordinates: Reparametrisation) -> Fitted:
        rows, parameters = total(Blocks(sites)), len(self.terms) * self.family.width
        if self.searched and rows <= parameters:
            raise ValueError(f"sites: expected more rows than the {parameters} terms, got {rows:g}")
        posed = _Posed(self, sites, coordinates, rows - parameters)
        found, dispersion = posed.estimate()
        mean = posed.mean(found.mean)
        deviance = posed.total(lambda s: self.family.deviances(s.y, mean(s), dispersion))
        density = self.family.density_dispersion(dispersion, deviance, rows) if self.searched else dispersion
        density = max(density, posed.least)
        likelihood = posed.total(lambda s: self.family.log_likelihoods(s.y, mean(s), density))
        null = self._null_deviance(sites, dispersion)
        counted = parameters + int(self.searched and self.family.by_likelihood)
        return Fitted(found, coordinates, dispersion, deviance, null, likelihood, counted, rows - parameters)

    def _null_deviance(self, sites: Sites, dispersion: float) -> float:
        """The deviance of the intercept alone, beside the offset."""
        bare = {site: s.mapped(lambda X: np.ones((len(X), 1))) for site, s in sites.items()}
        alone = replace(
            self, terms=(INTERCEPT,), sites=bare, prior=None, intercept=None, dispersion=dispersion, estimate="map"
        )
        posed = _Posed(alone, bare, alone.coordinates, 1.0)
        mean = posed.mean(estimates.at_mode(posed.mode(dispersion)).mean)
        return posed.total(lambda s: self.family.deviances(s.y, mean(s), dispersion))


class _Posed:
    """Some sites' clients and prior in coordinates: what `badmm.solve` is called with."""

    def __init__(self, problem: _Problem, sites: Sites, coordinates: Reparametrisation, freedom: float) -> None:
        self.problem, self.family, self.coordinates, self.freedom = problem, problem.family, coordinates, freedom
        self.parts = {site: part.mapped(coordinates.rows) for site, part in sites.items()}
        self.rows = Blocks(self.parts)
        self.least = self.family.least_dispersion(self.rows)
        self.start = self._start()
        self.prior = Gaussian(self.start, coordinates.prior(problem.precision, problem.unit))
        self.chosen: dict[str, Any] = {"tol": problem.tol, "rounds": problem.rounds, **problem.options}

    def _start(self) -> Array:
        """The mean of the prior on θ: where the intercept's is flat, it is no statement but a start."""
        terms = self.problem.terms
        beta = np.zeros((len(terms), self.family.width))
        if terms[0] == INTERCEPT and self.problem.precision[0] == 0:
            beta[0] = self.family.start(self.rows)
        return self.coordinates.of_matrix(beta)

    def mean(self, theta: Array) -> Callable[[SiteRows], Array]:
        """E[y] of some rows."""
        predictor = self.coordinates.predictor
        return lambda part: self.family.mean((predictor(part.X, theta).T + part.offset).T)

    def total(self, value: Callable[[SiteRows], Array]) -> float:
        """Σ w value over all rows."""
        return float(sum(part.weights @ value(part) for part in self.rows))

    def estimate(self) -> tuple[Estimate, float]:
        """θ and the dispersion."""
        if self.problem.joint:
            found = self._joint()
            noise = found.solved.posterior
            assert isinstance(noise, GaussianGamma)
            return found, noise.noise_variance
        result, dispersion = self._settled()
        if self.problem.estimate == "posterior":
            clients = self._clients(dispersion)
            return estimates.variational(clients, self.prior, list(self.parts), result, self.chosen), dispersion
        return estimates.at_mode(result, self._information(result, dispersion)), dispersion

    def mode(self, dispersion: float, start: Any = None) -> Result:
        """The posterior mode at a dispersion."""
        chosen = self.chosen if start is None else {**self.chosen, "start": start}
        return estimates.mode(self._clients(dispersion), self.prior, list(self.parts), chosen)

    def _clients(self, dispersion: float) -> list[Any]:
        def make(s: SiteRows) -> Any:
            return self.family.client(s.X, s.y, s.weights, s.offset, dispersion)

        return [part.client(make) for part in self.parts.values()]

    def _settled(self) -> tuple[Result, float]:
        """The mode with its dispersion, each given the other."""
        dispersion = self.problem.dispersion or self.family.first_dispersion(self.rows)
        result = self.mode(dispersion)
        for _ in range(DISPERSIONS if self.problem.searched else 0):
            means = Of(self.rows, self.mean(result.posterior.mean))
            old, found = dispersion, self.family.next_dispersion(self.rows, means, dispersion, self.freedom)
            dispersion = max(found, self.least)
            if abs(dispersion - old) <= SETTLED * dispersion + (self.least * dispersion) ** 0.5:
                return result, dispersion
            result = self.mode(dispersion, result.natural)
        if not self.problem.searched:
            return result, dispersion
        return replace(result, converged=False, reason="the dispersion does not settle"), dispersion

    def _information(self, result: Result, dispersion: float) -> Array | None:
        """The prior's precision and the sites' expected curvature; None where that is the mode's own."""
        total = np.array(self.prior.precision)
        mean = self.mean(result.posterior.mean)
        for part in self.rows:
            curvature = self.family.expected_curvature(mean(part), dispersion)
            if curvature is None:
                return None
            total += (part.X.T * (part.weights * curvature)) @ part.X
        return total

    def _joint(self) -> Estimate:
        """θ with the noise; around the start, so that squares of responses far from 0 do not cancel."""
        share = self.freedom / total(self.rows)

        def make(s: SiteRows) -> Any:
            return self.family.conjugate(s.X, s.y, s.weights, s.offset + s.X @ self.start, share * s.weight)

        clients = [part.client(make) for part in self.parts.values()]
        around = Gaussian(np.zeros_like(self.start), self.prior.precision)
        found = estimates.conjugate(clients, around, self.least, list(self.parts), self.chosen)
        return replace(found, mean=found.mean + self.start)
