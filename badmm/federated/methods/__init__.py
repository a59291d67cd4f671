"""The federated methods, by name."""

from __future__ import annotations

from badmm.federated.methods.base import Method, PointMethod, Reply, State
from badmm.federated.methods.bregman_admm import BregmanADMM
from badmm.federated.methods.fedadmm import FedADMM
from badmm.federated.methods.fedavg import FedAvg
from badmm.federated.methods.feddyn import FedDyn
from badmm.federated.methods.fedlap import FedLap
from badmm.federated.methods.fedlap_cov import FedLapCov
from badmm.federated.methods.fedprox import FedProx
from badmm.federated.methods.ivon_admm import IvonADMM
from badmm.federated.methods.pvi import PVI
from badmm.federated.methods.scaffold import Scaffold

REGISTRY: dict[str, type[Method]] = {
    method.name: method
    for method in (FedAvg, FedProx, FedADMM, FedDyn, Scaffold, FedLap, FedLapCov, PVI, BregmanADMM, IvonADMM)
}

__all__ = ["REGISTRY", "Method", "PointMethod", "Reply", "State"]
