"""Priors on coefficients, each a normal distribution around 0: flat, weakly informative, or by precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from badmm.checks import Array, non_negative_number
from badmm.glm.design import INTERCEPT

FLAT = 1e-8
"""The precision of a flat prior where a column has unit scale: that of 10⁻⁸ rows of a linear regression, or so."""
WEAK = 2.5
"""The weak prior's standard deviation where a column has unit scale (Gelman et al., Ann. Appl. Stat. 2008)."""
Prior = None | str | float | Mapping[str, float]


def precisions(terms: Sequence[str], scale: Array, prior: Prior, intercept: float | None) -> Array:
    """Precisions (d,) of the coefficients of columns in units of `scale` (d,): θ_j scale_j has unit scale.

    prior: None (flat), "weak" (a standard deviation of 2.5 scales), a precision for all terms but the intercept, or a
    mapping from terms to precisions with the others flat; precisions are in the units of the columns. The intercept
    has its own, flat where it is None. Raises `ValueError` naming the term.
    """
    out = np.full(len(terms), FLAT)
    for j, term in enumerate(terms):
        given = _of_term(term, prior, intercept)
        if given == "weak":
            out[j] = WEAK**-2
        elif given is not None:
            out[j] = max(FLAT, float(given) / scale[j] ** 2)
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
