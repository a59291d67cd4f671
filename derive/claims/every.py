"""Every claim of the derivation, in the order in which it is proved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..families import family_names, load_families
from ..likelihoods import likelihood_names, load_likelihoods
from . import admm, domain, families, gaussian_gamma, ivon, likelihoods, lowered, matrix, special
from .claim import Claim


def every_claim(names: Iterable[str] | None = None) -> Iterator[Claim]:
    """The claims of the given families and optimizers (default all), then those of the round and of the special
    functions; no other family's file is read, but for the diagonal Gaussian's, on which IVON rests."""
    wanted = None if names is None else set(names)
    chosen = [n for n in family_names() if wanted is None or n in wanted]
    for family in load_families(chosen).values():
        yield from families.claims(family)
        if family.is_matrix:
            yield from matrix.claims(family)
        yield from lowered.claims(family)
        yield from domain.claims(family)
    losses = [n for n in likelihood_names() if wanted is None or f"likelihoods/{n}" in wanted]
    for likelihood in load_likelihoods(losses).values():
        yield from likelihoods.claims(likelihood)
    if wanted is None or gaussian_gamma.NAME in wanted:
        yield from gaussian_gamma.claims()
    yield from admm.claims()
    yield from lowered.round_claims()
    if wanted is None or "ivon" in wanted:
        yield from ivon.claims()
    yield from special.claims()
    if wanted is None or losses:
        yield from special.tail_claims()
