"""The federated methods, by name."""

from __future__ import annotations

from badmm.methods.networks.bregman_admm import BregmanADMM
from badmm.methods.networks.fedadmm import FedADMM
from badmm.methods.networks.fedavg import FedAvg
from badmm.methods.networks.feddyn import FedDyn
from badmm.methods.networks.fedlap import FedLap
from badmm.methods.networks.fedlap_cov import FedLapCov
from badmm.methods.networks.fedprox import FedProx
from badmm.methods.networks.ivon_admm import IvonADMM
from badmm.methods.networks.pvi import PVI
from badmm.methods.networks.scaffold import Scaffold
from badmm.rounds.network_method import Method, PointMethod, Reply, State

REGISTRY: dict[str, type[Method]] = {
    method.name: method
    for method in (FedAvg, FedProx, FedADMM, FedDyn, Scaffold, FedLap, FedLapCov, PVI, BregmanADMM, IvonADMM)
}

__all__ = ["REGISTRY", "Method", "PointMethod", "Reply", "State"]
