"""Every claim of the derivation, in the order in which it is proved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from ..families import family_names, load_families
from ..likelihoods import likelihood_names, load_likelihoods
from . import admm, domain, families, gaussian_gamma, ivon, likelihoods, lowered, matrix, special
from .claim import Claim


def every_claim(names: Iterable[str] | None = None) -> Iterator[Claim]:
    """The claims of the given families and optimizers (default all), then those of the round and of the special
    functions; no other family's file is read, but for the diagonal Gaussian's, on which IVON rests."""
    for claims in groups(names).values():
        yield from claims()


def groups(names: Iterable[str] | None = None) -> dict[str, Callable[[], Iterator[Claim]]]:
    """The same by what they are of; a group's claims are listed when it is called."""
    wanted = None if names is None else set(names)
    members = {n: partial(_of_family, n) for n in family_names() if wanted is None or n in wanted}
    losses = {key: partial(_of_loss, n) for n in likelihood_names() if (key := f"likelihoods/{n}") in (wanted or {key})}
    return {
        **members,
        **losses,
        **({gaussian_gamma.NAME: gaussian_gamma.claims} if wanted is None or gaussian_gamma.NAME in wanted else {}),
        "round": admm.claims,
        "the round's kernels": lowered.round_claims,
        **({"ivon": ivon.claims} if wanted is None or "ivon" in wanted else {}),
        "special": special.claims,
        **({"tails": special.tail_claims} if wanted is None or losses else {}),
    }


def _of_family(name: str) -> Iterator[Claim]:
    (family,) = load_families([name]).values()
    yield from families.claims(family)
    if family.is_matrix:
        yield from matrix.claims(family)
    yield from lowered.claims(family)
    yield from domain.claims(family)


def _of_loss(name: str) -> Iterator[Claim]:
    (likelihood,) = load_likelihoods([name]).values()
    yield from likelihoods.claims(likelihood)
