"""A loss of any coefficients of a family's statistics."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from badmm.likelihoods import ConjugateLoss

from ..likelihood import Rate


def cases() -> Iterator[Rate]:
    """Under an inverse gamma and a beta, both statistics and one of them."""
    both = ConjugateLoss({"1/theta": [1.75], "log(theta)": [2.5]}, 0.75)
    yield Rate("inverse gamma", both, [lambda t: 1.75 / t + 2.5 * mpmath.log(t) + 0.75], "inverse_gamma")
    one = ConjugateLoss({"log(1 - theta)": [-3.25]})
    yield Rate("beta", one, [lambda t: -3.25 * mpmath.log1p(-t)], "beta")
