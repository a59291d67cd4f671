"""What `badmm.glm.fit` returns: coefficients with their uncertainty, and everything that a report of them needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from badmm.checks import Array, positive_number
from badmm.glm.coordinates import Reparametrisation
from badmm.glm.design import Design
from badmm.glm.estimates import Estimate
from badmm.glm.tables import Summary
from badmm.rounds.history import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Fitted:
    """The estimate θ in its coordinates, and what the sites summed up."""

    theta: Estimate
    coordinates: Reparametrisation
    dispersion: float
    deviance: float
    null_deviance: float
    log_likelihood: float
    parameters: int
    """Those that AIC counts."""
    residual_freedom: float

    @property
    def solved(self) -> Result:
        """The run that ended in it."""
        return self.theta.solved

    @property
    def params(self) -> Array:
        """Coefficients (d,) of the columns in their units."""
        return self.coordinates.coefficients(self.theta.mean)

    @cached_property
    def covariance(self) -> Array:
        """Their covariance (d, d)."""
        return self.coordinates.covariance(self.theta.covariance)

    def predictor(self, X: Array) -> tuple[Array, Array]:
        """Means (n, W) and scale matrices (n, W, W) of the predictors; a column far from 0 does not cancel."""
        Z = self.coordinates.rows(X)
        center = self.coordinates.predictor(Z, self.theta.mean).reshape(len(Z), -1)
        return center, self.coordinates.predictor_covariance(Z, self.theta.scale)

    @property
    def errors(self) -> Array:
        """Standard errors √(φ V_jj) or posterior standard deviations (d,)."""
        return np.sqrt(np.diag(self.covariance))

    def reach(self, level: float) -> Array:
        """Half the width (d,) of a central interval of this level."""
        quantile = self.theta.quantile(_inside(level))
        return quantile * np.sqrt(np.diag(self.coordinates.covariance(self.theta.scale)))


@dataclass(frozen=True)
class SiteCount:
    """Rows used and left out for a missing value, and events (binary responses and counts: Σ w y)."""

    used: int
    left_out: int
    events: float | None


class GLMResult:
    """A fitted model. `params`, `bse`, `pvalues` are series by term, named as statsmodels names them."""

    def __init__(
        self,
        design: Design,
        fitted: Fitted,
        counts: Mapping[str, SiteCount],
        notes: tuple[str, ...],
        estimate: str,
        alone: Callable[[str], Fitted | None],
    ) -> None:
        self.design, self.family, self.fitted, self.counts = design, design.family, fitted, dict(counts)
        self.notes, self.estimate, self._alone = notes, estimate, alone
        self.converged, self.rounds = fitted.solved.converged, fitted.solved.rounds

    @property
    def terms(self) -> tuple[str, ...]:
        """The coefficients' names."""
        return self.family.coefficients(self.design.terms)

    def _by_term(self, values: Array) -> pd.Series:
        return pd.Series(values, index=list(self.terms))

    @property
    def params(self) -> pd.Series:
        """Estimates."""
        return self._by_term(self.fitted.params)

    @property
    def bse(self) -> pd.Series:
        """Standard errors; posterior standard deviations where the estimate is the posterior."""
        return self._by_term(self.fitted.errors)

    @property
    def zvalues(self) -> pd.Series:
        """Estimates over standard errors."""
        return self.params / self.bse

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided P(|z| ≥ |estimate / standard error|)."""
        return self._by_term(2.0 * self._below(-np.abs(self.zvalues.to_numpy())))

    @property
    def probability_positive(self) -> pd.Series:
        """The posterior probability that a coefficient is positive."""
        return self._by_term(self._below(self.zvalues.to_numpy()))

    def _below(self, z: Array) -> Array:
        """P of a coefficient to lie less than z standard errors above its estimate."""
        theta = self.fitted.theta
        return theta.below(z * np.sqrt(theta.inflation))

    def cov_params(self) -> pd.DataFrame:
        """The covariance of the coefficients."""
        return pd.DataFrame(self.fitted.covariance, index=list(self.terms), columns=list(self.terms))

    def conf_int(self, level: float = 0.95) -> pd.DataFrame:
        """The central interval of that level by normal or Student-t quantiles, columns `lower` and `upper`."""
        reach = self._by_term(self.fitted.reach(level))
        return pd.DataFrame({"lower": self.params - reach, "upper": self.params + reach})

    @property
    def aic(self) -> float:
        """−2 log likelihood + 2 × the number of parameters."""
        return -2.0 * self.fitted.log_likelihood + 2.0 * self.fitted.parameters

    @property
    def deviance(self) -> float:
        """The residual deviance."""
        return self.fitted.deviance

    @property
    def null_deviance(self) -> float:
        """The deviance of the intercept alone."""
        return self.fitted.null_deviance

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """A row per term: estimate, error, z, p or P(> 0), interval, and the ratio with its interval."""
        table = pd.DataFrame({"estimate": self.params, "std_error": self.bse, "z": self.zvalues})
        if self.estimate == "posterior":
            table = table.rename(columns={"std_error": "sd"}).drop(columns="z")
            table["p_positive"] = self.probability_positive
        else:
            table["p"] = self.pvalues
        table = table.join(self.conf_int(level))
        if self.family.ratio is not None:
            name = self.family.ratio.replace(" ", "_")
            with np.errstate(over="ignore"):
                table[name] = np.exp(table["estimate"])
                table[f"{name}_lower"], table[f"{name}_upper"] = np.exp(table["lower"]), np.exp(table["upper"])
        table.index.name = "term"
        return table

    def site_frame(self) -> pd.DataFrame:
        """A row per site: rows used, rows left out, events."""
        table = pd.DataFrame({site: vars(count) for site, count in self.counts.items()}).T
        table.index.name = "site"
        return table

    def by_site(self, level: float = 0.95) -> pd.DataFrame:
        """A row per site and term of each site's own fit, missing where its rows do not determine one."""
        parts = {}
        for site in self.counts:
            found = self._alone(site)
            nothing = np.full(len(self.terms), np.nan)
            estimate = nothing if found is None else found.params
            reach = nothing if found is None else found.reach(level)
            columns = {"estimate": estimate, "lower": estimate - reach, "upper": estimate + reach}
            parts[site] = pd.DataFrame(columns, index=pd.Index(self.terms, name="term"))
        return pd.concat(parts, names=["site"])

    def predict(self, data: Any, level: float = 0.95) -> pd.DataFrame:
        """E[y] of new rows, with the interval of the mean, by the position of the row; by level where y has several.

        The interval is that of the predictor, mapped by the link. Rows with a missing value have none. Raises
        `ValueError` naming a column that is missing or has an unknown level.
        """
        X, offset, kept = self.design.new_rows(data)
        center, covariance = self.fitted.predictor(X)
        reach = self.fitted.theta.quantile(_inside(level))
        bounds = self.family.bounds(center + offset[:, None], covariance, reach)
        names = ("mean", "lower", "upper")
        if bounds[0].ndim == 1:
            found = pd.DataFrame(dict(zip(names, bounds, strict=True)), index=kept)
        else:
            by_level = [pd.DataFrame(values, index=kept, columns=list(self.design.levels)) for values in bounds]
            found = pd.concat(by_level, axis=1, keys=names).swaplevel(axis=1)
            found = found[[(one, name) for one in self.design.levels for name in names]]
        return found.reindex(range(len(data)))

    def summary(self, level: float = 0.95) -> Summary:
        """The whole report: `print` it, or take its `text`, `html`, `latex` or `markdown`."""
        return Summary(self._title(), self._facts(), self.to_frame(level), self.site_frame(), self._remarks())

    def _title(self) -> str:
        return f"{self.family.name} regression ({self.family.link} link) over {len(self.counts)} sites"

    def _facts(self) -> dict[str, str]:
        fitted = self.fitted
        modelled = self.family.modelled(self.design.responses[0], self.design.levels)
        found = {"dispersion": f"{fitted.dispersion:.6g}"}
        if self.family.dispersion is not None:
            found["dispersion"] += f" ({self.family.dispersion})"
        return {
            "formula": self.design.formula + modelled,
            "estimate": "posterior mean and sd" if self.estimate == "posterior" else "mode and curvature",
            "rows used": f"{sum(count.used for count in self.counts.values())}",
            "rows left out": f"{sum(count.left_out for count in self.counts.values())}",
            "residual df": f"{fitted.residual_freedom:g}",
            "deviance": f"{fitted.deviance:.6g}",
            "null deviance": f"{fitted.null_deviance:.6g}",
            "log-likelihood": f"{fitted.log_likelihood:.6g}",
            "AIC": f"{self.aic:.6g}",
            **found,
            "rounds": f"{self.rounds} ({'converged' if self.converged else 'NOT CONVERGED'})",
        }

    def _remarks(self) -> list[str]:
        ended = [] if self.converged else [f"not converged: {fitted_reason(self.fitted)}; do not use these numbers"]
        return [*ended, *self.notes]

    def __str__(self) -> str:
        return self.summary().text

    def _repr_html_(self) -> str:
        return self.summary().html

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Plain numbers and text: coefficients, covariance, facts, sites, notes."""
        table = self.to_frame(level).reset_index()
        return {
            "title": self._title(),
            "facts": self._facts(),
            "coefficients": table.to_dict(orient="records"),
            "covariance": self.fitted.covariance.tolist(),
            "sites": {site: vars(count) for site, count in self.counts.items()},
            "notes": self._remarks(),
            "converged": self.converged,
        }

    def to_json(self, path: str | Path | None = None, level: float = 0.95) -> str:
        """`to_dict` as JSON, written to a file too where a path is given."""
        text = json.dumps(self.to_dict(level), indent=2, default=float)
        if path is not None:
            _written(Path(path), text + "\n")
        return text

    def plot(self, terms: list[str] | None = None, level: float = 0.95) -> list[Axes]:
        """A forest plot per term: every site's own estimate and the pooled one. Needs Matplotlib."""
        from badmm.glm.plots import forest

        return forest(self, terms, level)


def fitted_reason(fitted: Fitted) -> str:
    """Why the rounds ended."""
    return fitted.solved.reason


def _inside(level: float) -> float:
    inside = positive_number(level, "level", 1.0)
    if inside >= 1:
        raise ValueError(f"level: expected a number in (0, 1), got {level!r}")
    return inside


def _written(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
