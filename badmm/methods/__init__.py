"""The methods that `badmm.solve` knows, by name."""

from badmm.methods.base import Method
from badmm.methods.bayes_admm import BayesADMM
from badmm.methods.bregman_admm import BregmanADMM
from badmm.methods.pvi import PVI

REGISTRY: dict[str, type[Method]] = {method.name: method for method in (BayesADMM, PVI, BregmanADMM)}

__all__ = ["PVI", "REGISTRY", "BayesADMM", "BregmanADMM", "Method"]
