"""The methods, each in a file of its own, listed once."""

from __future__ import annotations

from badmm.methods.admm import ExactMethod
from badmm.methods.bayes_admm import BayesADMM, IvonADMM
from badmm.methods.bregman_admm import BregmanADMM
from badmm.methods.fedadmm import FedADMM
from badmm.methods.fedavg import FedAvg
from badmm.methods.feddyn import FedDyn
from badmm.methods.fedlap import FedLap
from badmm.methods.fedlap_cov import FedLapCov
from badmm.methods.fedprox import FedProx
from badmm.methods.newton import Newton
from badmm.methods.pvi import PVI
from badmm.methods.scaffold import Scaffold
from badmm.rounds.network_method import NetworkMethod

METHODS: tuple[type[ExactMethod] | type[NetworkMethod], ...] = (
    BayesADMM,
    FedAvg,
    FedProx,
    FedADMM,
    FedDyn,
    Scaffold,
    FedLap,
    FedLapCov,
    PVI,
    Newton,
    BregmanADMM,
    IvonADMM,
)
EXACT: dict[str, type[ExactMethod]] = {m.name: m for m in METHODS if issubclass(m, ExactMethod)}
"""Those of `badmm.solve`."""
NETWORKS: dict[str, type[NetworkMethod]] = {m.name: m for m in METHODS if issubclass(m, NetworkMethod)}
"""Those of stacks of networks."""

__all__ = [
    "EXACT",
    "METHODS",
    "NETWORKS",
    "ExactMethod",
    "NetworkMethod",
    *sorted({method.__name__ for method in METHODS}),
]
