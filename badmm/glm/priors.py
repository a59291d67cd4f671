"""Priors on coefficients, each a normal distribution around 0: flat, weakly informative, or by precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from badmm.checks import Array, non_negative_number
from badmm.glm.coordinates import INTERCEPT

WEAK = 2.5
"""The weak prior's standard deviation where column and predictor have unit scale: Gelman et al., Ann. Appl. Stat. 2008.

A Gaussian response's predictor has the response's scale."""
Prior = None | str | float | Mapping[str, float]


def precisions(terms: Sequence[str], scale: Array, unit: float, prior: Prior, intercept: float | None) -> Array:
    """Precisions (d,) of the coefficients, 0 where the prior is flat; columns have the standard deviations scale (d,).

    prior: None (flat), "weak" (a standard deviation of 2.5 units of the predictor per standard deviation of a column),
    a precision for all terms but the intercept, or a mapping from terms to precisions with the others flat. The
    intercept has its own, flat where it is None. Raises `ValueError` naming the term.
    """
    named = isinstance(prior, Mapping) and INTERCEPT in prior
    if intercept is not None and (named or INTERCEPT not in terms):
        why = f"beside prior[{INTERCEPT!r}]" if named else "for a formula without an intercept"
        raise ValueError(f"prior_intercept: expected none {why}, got {intercept!r:.80}")
    out = np.zeros(len(terms))
    for j, term in enumerate(terms):
        given = _of_term(term, prior, intercept)
        if given is not None:
            out[j] = (scale[j] / (WEAK * unit)) ** 2 if given == "weak" else float(given)
    unknown = set(prior) - set(terms) if isinstance(prior, Mapping) else set()
    if unknown:
        raise ValueError(f"prior: expected the terms {', '.join(terms):.160}, got {min(unknown)!r}")
    return out


def _of_term(term: str, prior: Any, intercept: Any) -> Any:
    if term == INTERCEPT and not (isinstance(prior, Mapping) and term in prior):
        return None if intercept is None else non_negative_number(intercept, "prior_intercept")
    if prior is None or prior == "weak":
        return prior
    if isinstance(prior, Mapping):
        return None if term not in prior else non_negative_number(prior[term], f"prior[{term!r}]")
    if isinstance(prior, str) or not isinstance(prior, Real):
        raise ValueError(f'prior: expected None, "weak", a precision or a mapping from terms, got {prior!r:.80}')
    return non_negative_number(prior, "prior")
