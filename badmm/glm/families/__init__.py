"""Response families by name, one file each."""

from badmm.glm.families.base import ResponseFamily, Responses
from badmm.glm.families.binomial import BinomialResponse
from badmm.glm.families.gamma import GammaResponse
from badmm.glm.families.gaussian import GaussianResponse
from badmm.glm.families.multinomial import MultinomialResponse
from badmm.glm.families.negative_binomial import NegativeBinomialResponse
from badmm.glm.families.poisson import PoissonResponse

__all__ = ["FAMILIES", "ResponseFamily", "Responses", "response_family"]

FAMILIES: dict[str, ResponseFamily] = {
    family.name: family
    for family in (
        GaussianResponse(),
        BinomialResponse(),
        PoissonResponse(),
        NegativeBinomialResponse(),
        GammaResponse(),
        MultinomialResponse(),
    )
}


def response_family(name: object) -> ResponseFamily:
    """The family of that name; raises `ValueError`."""
    if not isinstance(name, str) or name not in FAMILIES:
        raise ValueError(f"family: expected one of {', '.join(FAMILIES)}, got {name!r:.80}")
    return FAMILIES[name]
