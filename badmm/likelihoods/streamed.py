"""A client whose rows do not fit in memory: its loss is a sum over chunks of rows that are read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Gaussian
from badmm.families.family import FamilyGeometry, Natural
from badmm.likelihoods.base import Expectation, Expected, GaussianLikelihood

Chunks = Callable[[], Iterable[GaussianLikelihood]]


class Streamed(GaussianLikelihood):
    """ℓ(θ) = Σ_j ℓ_j(θ) over the likelihoods that `chunks()` yields.

    chunks: called anew for every evaluation; it reads some rows at a time and yields a likelihood of them, such as
    `LogisticRegression(X, y, weights=w)`, always in the same order. Memory holds one chunk. Losses that are conjugate,
    such as `LinearRegression`, are read once. Raises `ValueError` for chunks that are not callable, yield nothing, or
    yield something else than likelihoods of one length of θ with the same columns.
    """

    columns: tuple[str, ...] | None

    def __init__(self, chunks: Chunks) -> None:
        if not callable(chunks):
            raise ValueError(f"chunks: expected a function that yields likelihoods, got {type(chunks).__name__}")
        self._chunks = chunks
        first = next(iter(chunks()), None)
        if first is None:
            raise ValueError("chunks: expected at least one likelihood, got none")
        self.dim, self.columns = _shape(first, 0)
        self._at_mean = first.at_mean

    @property
    def at_mean(self) -> bool:
        """As the chunks."""
        return self._at_mean

    def configured(self, expectation: Expectation, seed: int = 0) -> Streamed:
        """A copy whose chunks take their expectations in this way."""
        other = super().configured(expectation, seed)
        other._at_mean = next(iter(other._parts())).at_mean
        return other

    def _parts(self) -> Iterator[GaussianLikelihood]:
        """The chunks, each checked and configured."""
        for index, part in enumerate(self._chunks()):
            found = _shape(part, index)
            if found != (self.dim, self.columns):
                raise ValueError(
                    f"chunks: expected {self.dim} parameters and the columns of the first one, "
                    f"got {found[0]} with columns {found[1]!r:.80} in chunk {index}"
                )
            yield part.configured(self._mode, self._seed)

    def _sum(self, expected: Callable[[GaussianLikelihood], Expected]) -> Expected:
        loss, gradient, hessian = 0.0, np.zeros(self.dim), np.zeros(())
        for part in self._parts():
            more = expected(part)
            loss, gradient, hessian = loss + more[0], gradient + more[1], hessian + more[2]
        return loss, gradient, hessian

    def expectations(self, posterior: Gaussian) -> Expected:
        """(E[ℓ], E[∇ℓ] (d,), E[∇²ℓ]): a vector (d,) under a vector precision, else a matrix (d, d)."""
        return self._sum(lambda part: part.expectations(posterior))

    def curvature(self, posterior: Gaussian) -> Expected:
        """As `expectations`, with the whole Hessian (d, d) under every precision."""
        return self._sum(lambda part: part.curvature(posterior))

    def growth(self, family: FamilyGeometry) -> Array | None:
        """The sum of the chunks'; None where one grows at most linearly."""
        return _total(part.growth(family) for part in self._parts())

    def constant_natural_gradient(self, family: FamilyGeometry) -> Natural | None:
        """The sum of the chunks' where none of them depends on q, else None."""
        total: Natural | None = None
        for part in self._parts():
            more = part.constant_natural_gradient(family)
            if more is None:
                return None
            total = more if total is None else tuple(a + b for a, b in zip(total, more, strict=True))
        return total


def _shape(part: Any, index: int) -> tuple[int, tuple[str, ...] | None]:
    if not isinstance(part, GaussianLikelihood):
        raise ValueError(f"chunks: expected likelihoods, got {type(part).__name__} in chunk {index}")
    return part.dim, getattr(part, "columns", None)


def _total(parts: Iterable[Array | None]) -> Array | None:
    total: Array | None = None
    for part in parts:
        if part is None:
            return None
        total = part if total is None else total + part
    return total
