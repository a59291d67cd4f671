"""Every claim of the derivation, in the order in which it is proved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..families import load_families
from . import admm, families, ivon, matrix, special
from .claim import Claim


def every_claim(names: Iterable[str] | None = None) -> Iterator[Claim]:
    """The claims of the given families (default all), then those of the round, of IVON and of the special functions."""
    wanted = None if names is None else set(names)
    for name, family in load_families().items():
        if wanted is None or name in wanted:
            yield from families.claims(family)
            if family.is_matrix:
                yield from matrix.claims(family)
    yield from admm.claims()
    yield from ivon.claims()
    yield from special.claims()
