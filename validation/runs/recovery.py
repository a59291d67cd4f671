"""Recovery of classic consensus ADMM by the isotropic family, iterate for iterate.

With fixed precision s equal to the prior's and α = 1/(1 + ρK), the rounds of `badmm.solve` are those of
`oracles.textbook` with penalty r = ρ s: λ_g = s z, λ_k = s x_k and η_k = −r u_k; the textbook's global block is the
server of the previous round. The error is the largest relative 2-norm of a difference over the rounds: of the server
‖z‖, of all clients ‖x‖, and of all duals ‖u‖.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import badmm

from ..check import Check, check
from ..oracles.textbook import ConsensusADMM, Losses, QuadraticLosses, losses_of
from ..problems import problem

Array = NDArray[np.float64]
GROUP = "classic ADMM"
FAMILY = "isotropic_gaussian"
FAMILIES = (FAMILY,)  # whose rounds these checks follow
ROUNDS = 50
QUADRATIC_TOLERANCE, LOGISTIC_TOLERANCE = 1e-12, 1e-8
LOGISTIC = ("logistic/cancer/iid-5", "logistic/cancer/label-10", "logistic/cancer/one-class-12")
PENALTIES = (0.3, 3.0)
"""ρ; the penalty is ρ times the prior's precision."""


@dataclass(frozen=True)
class Differences:
    """Largest relative difference over the rounds of the server, of the clients and of the duals."""

    server: tuple[float, ...]
    clients: tuple[float, ...]
    duals: tuple[float, ...]

    @property
    def parts(self) -> dict[str, tuple[float, ...]]:
        """The differences by name, one per round."""
        return {"server": self.server, "clients": self.clients, "duals": self.duals}


def _relative(got: Array, want: Array) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def compare(
    clients: list[Any], losses: Losses, prior_mean: Array, precision: float, rho: float, rounds: int, **settings: Any
) -> Differences:
    """Run both iterations for the given rounds and compare every iterate; `settings` are those of the solver."""
    K = len(clients)
    states: list[Any] = []
    settings = {"rho": rho, "alpha": 1.0 / (1.0 + rho * K), "damping": 1.0, "rounds": rounds, "tol": 0.0, **settings}
    prior = badmm.Gaussian(prior_mean, precision)
    badmm.solve(clients, family=FAMILY, prior=prior, callbacks=[states.append], **settings)
    # the solver stops at a residual of exactly 0, after which the iterates do not change
    states += [states[-1]] * (rounds - len(states))
    penalty = rho * precision
    # Newton's steps converge quadratically: after one of relative size 1e-12 nothing is left to gain
    admm = ConsensusADMM(losses, K, prior_mean, precision, penalty, tolerance=1e-12)
    triples = [
        (
            _relative(state.natural[0] / precision, iterate.global_next),
            _relative(state.clients[0] / precision, iterate.local),
            _relative(-state.duals[0] / penalty, iterate.dual),
        )
        for state, iterate in zip(states, itertools.islice(admm, rounds), strict=True)
    ]
    server, local, dual = zip(*triples, strict=True)
    return Differences(server, local, dual)


def quadratic_case(seed: int) -> tuple[list[Any], QuadraticLosses, Array, float]:
    """Return clients, their losses in the textbook's form, prior mean and precision, with K in 1..20 and d in 1..30."""
    rng = np.random.default_rng([711, seed])
    num_clients, dim = int(rng.integers(1, 21)), int(rng.integers(1, 31))
    H, b = np.empty((num_clients, dim, dim)), np.empty((num_clients, dim))
    for k in range(num_clients):
        rows = int(rng.integers(1, 2 * dim + 2))
        X = rng.normal(size=(rows, dim)) * np.logspace(0, -1, dim)
        H[k] = X.T @ X
        b[k] = X.T @ rng.normal(1.0, 1.0, size=rows)
    clients = [badmm.likelihoods.Quadratic(*pair) for pair in zip(H, b, strict=True)]
    return clients, QuadraticLosses(H, b), rng.normal(size=dim), float(rng.uniform(0.5, 5.0))


def quadratic_differences(seed: int, rho: float, rounds: int = ROUNDS) -> Differences:
    """Compare both iterations on random quadratics, with local steps exact to rounding."""
    clients, losses, mean, precision = quadratic_case(seed)
    return compare(clients, losses, mean, precision, rho, rounds, client_tol=1e-15)


def logistic_differences(name: str, rho: float, rounds: int = ROUNDS) -> Differences:
    """Compare both iterations on a logistic problem of the suite, the solver with the delta method."""
    case = problem(name)
    mean = np.zeros(case.dim)
    settings = {"expectation": "delta", "client_tol": 1e-12}
    return compare(case.clients(), losses_of(case), mean, case.prior_precision, rho, rounds, **settings)


def checks(count: int = 10, rounds: int = ROUNDS) -> Iterator[Check]:
    """Yield the checks on `count` random quadratics and on the logistic problems, at every penalty."""
    for rho in PENALTIES:
        cases = [quadratic_differences(seed, rho, rounds) for seed in range(count)]
        for part in ("server", "clients", "duals"):
            worst = [max(case.parts[part]) for case in cases]
            detail = f"relative 2-norm, largest over {rounds} rounds of {count} problems"
            name = f"{part}, quadratics, rho = {rho:g}"
            yield check(name, GROUP, FAMILY, "float64", max(worst), QUADRATIC_TOLERANCE, detail, samples=worst)
        for title in LOGISTIC:
            differences = logistic_differences(title, rho, rounds)
            for part, curve in differences.parts.items():
                detail = f"relative 2-norm, largest over {rounds} rounds, delta method"
                name = f"{part}, {title}, rho = {rho:g}"
                yield check(name, GROUP, FAMILY, "float64", max(curve), LOGISTIC_TOLERANCE, detail, curve=curve)
