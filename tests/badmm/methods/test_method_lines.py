"""Rounds of every method without a random draw, against its lines as the papers write them, in NumPy.

Least squares, two local gradient steps over all of a client's points, three of four clients a round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from badmm.methods.fedadmm import FedADMM
from badmm.methods.fedavg import FedAvg
from badmm.methods.feddyn import FedDyn
from badmm.methods.fedlap import FedLap
from badmm.methods.fedlap_cov import FedLapCov
from badmm.methods.fedprox import FedProx
from badmm.methods.scaffold import Scaffold
from badmm.rounds import network_round as rounds
from badmm.rounds.loop import participants
from badmm.rounds.network_method import NetworkMethod
from tests.badmm.rounds.federated_problems import DIM, SIZES, federation, hessians

K, N = len(SIZES), sum(SIZES)
WEIGHTS = K * np.array(SIZES) / N
FIRST, LR, STEPS, FRACTION = np.array([0.4, -0.3, 0.2]), 0.2, 2, 0.75
Array = np.ndarray
Lines = Callable[[dict[str, Any], list[int]], dict[str, Any]]


def slope(k: int, theta: Array) -> Array:
    """∇f_k."""
    H, b = hessians()
    return np.asarray(H[k] @ theta - b[k])


def local(k: int, theta: Array, extra: Callable[[Array], Array]) -> Array:
    """Gradient steps on f_k plus what has the gradient `extra`."""
    for _ in range(STEPS):
        theta = theta - LR * (slope(k, theta) + extra(theta))
    return theta


def average(rho: float) -> Lines:
    def play(s: dict[str, Any], asked: list[int]) -> dict[str, Any]:
        at = s["mean"]
        ends = [local(k, at, lambda t: rho * (t - at)) for k in asked]
        return {"mean": np.average(ends, axis=0, weights=[SIZES[k] for k in asked])}

    return play


def fedadmm(rho: float, step: float, warm: bool) -> Lines:
    def play(s: dict[str, Any], asked: list[int]) -> dict[str, Any]:
        at, own, y = s["mean"], s.get("own", [FIRST] * K), s.get("y", [np.zeros(DIM)] * K)
        own, y, sent = list(own), list(y), []
        for k in asked:
            before = own[k] + y[k] / rho
            own[k] = local(k, own[k] if warm else at, lambda t, k=k: (y[k] + rho * (t - at)) / WEIGHTS[k])  # type: ignore[misc]
            y[k] = y[k] + rho * (own[k] - at)
            sent.append(own[k] + y[k] / rho - before)
        return {"mean": at + step * np.mean(sent, axis=0), "own": own, "y": y}

    return play


def feddyn(rho: float) -> Lines:
    def play(s: dict[str, Any], asked: list[int]) -> dict[str, Any]:
        at, g, h = s["mean"], list(s.get("g", [np.zeros(DIM)] * K)), s.get("h", np.zeros(DIM))
        ends = {k: local(k, at, lambda t, k=k: (rho * (t - at) - g[k]) / WEIGHTS[k]) for k in asked}  # type: ignore[misc]
        for k, end in ends.items():
            g[k] = g[k] - rho * (end - at)
        h = h - rho / K * sum(end - at for end in ends.values())
        return {"mean": np.mean(list(ends.values()), axis=0) - h / rho, "g": g, "h": h}

    return play


def scaffold(step: float, option: int) -> Lines:
    def play(s: dict[str, Any], asked: list[int]) -> dict[str, Any]:
        at, c, own = s["mean"], s.get("c", np.zeros(DIM)), list(s.get("own", [np.zeros(DIM)] * K))
        ends = {k: local(k, at, lambda t, k=k: c - own[k]) for k in asked}  # type: ignore[misc]
        change = np.zeros(DIM)
        for k, end in ends.items():
            new = slope(k, at) if option == 1 else own[k] - c + (at - end) / (STEPS * LR)
            change, own[k] = change + SIZES[k] / N * (new - own[k]), new
        moved = np.average([end - at for end in ends.values()], axis=0, weights=[SIZES[k] for k in ends])
        return {"mean": at + step * moved, "c": c + change, "own": own}

    return play


def fedlap(delta: float, gamma: float, tau: float) -> Lines:
    def play(s: dict[str, Any], asked: list[int]) -> dict[str, Any]:
        eta, at = list(s.get("eta", [np.zeros(DIM)] * K)), s.get("at", np.zeros(DIM))
        start = at if "eta" in s else FIRST
        for k in asked:
            end = local(k, start, lambda t, k=k: (delta * (t - at) - eta[k]) * tau / SIZES[k])  # type: ignore[misc]
            eta[k] = eta[k] + gamma * delta * (at - end)
        at = -np.sum(eta, axis=0) / delta
        return {"mean": at, "at": at, "eta": eta}

    return play


def fedlap_cov(delta: float, gamma: float, tau: float) -> Lines:
    def play(s: dict[str, Any], asked: list[int]) -> dict[str, Any]:
        zeros = [np.zeros(DIM)] * K
        xi, S = s.get("xi", np.zeros(DIM)), s.get("S", np.full(DIM, delta))
        eta, eta_S = list(s.get("eta", zeros)), list(s.get("eta_S", zeros))
        at, start = xi / S, xi / S if "eta" in s else FIRST
        for k in asked:
            end = local(k, start, lambda t, k=k: (S * (t - at) - eta[k] + eta_S[k] * t) * tau / SIZES[k])  # type: ignore[misc]
            own = S + eta_S[k] + SIZES[k] * np.diag(hessians()[0][k]) / tau
            eta[k], eta_S[k] = eta[k] + gamma * (xi - own * end), eta_S[k] + gamma * (S - own)
        xi, S = -np.sum(eta, axis=0), delta - np.sum(eta_S, axis=0)
        return {"mean": xi / S, "xi": xi, "S": S, "eta": eta, "eta_S": eta_S, "precision": S}

    return play


METHODS: dict[str, tuple[NetworkMethod, Lines]] = {
    "fedavg": (FedAvg(), average(0.0)),
    "fedprox": (FedProx(rho=0.3), average(0.3)),
    "fedadmm": (FedADMM(rho=0.4, server_step=0.7), fedadmm(0.4, 0.7, True)),
    "fedadmm cold": (FedADMM(rho=0.4, warm_start=False), fedadmm(0.4, 1.0, False)),
    "feddyn": (FedDyn(rho=0.4), feddyn(0.4)),
    "scaffold": (Scaffold(server_step=0.7), scaffold(0.7, 1)),
    "scaffold steps": (Scaffold(control="steps"), scaffold(1.0, 2)),
    "fedlap": (FedLap(precision=3.0, damping=0.4, temperature=2.0), fedlap(3.0, 0.4, 2.0)),
    "fedlap_cov": (FedLapCov(precision=3.0, damping=0.4, temperature=2.0), fedlap_cov(3.0, 0.4, 2.0)),
}


@pytest.mark.parametrize("name", METHODS)
def test_rounds_are_the_papers_lines(name: str) -> None:
    method, lines = METHODS[name]
    fed = federation("squares", epochs=STEPS, lr=LR)
    state = method.start(fed, torch.tensor(FIRST))
    expected: dict[str, Any] = {"mean": FIRST}
    for index in range(3):
        rounds.play(method, fed, state, lr=LR, fraction=FRACTION)
        expected = lines(expected, participants(K, index, FRACTION, fed.seed))
        np.testing.assert_allclose(method.mean(state).numpy(), expected["mean"], rtol=1e-10, atol=1e-12)
        if "precision" in expected:
            np.testing.assert_allclose(state.server["precision"].numpy(), expected["precision"], rtol=1e-12)


def test_a_posterior_is_drawn_from_with_its_mean_and_deviation() -> None:
    method = FedLapCov(precision=4.0)
    state = method.start(federation("squares"), torch.tensor(FIRST))
    state.server["precision_mean"] = torch.tensor([4.0, -2.0, 0.0], dtype=torch.float64)
    state.server["precision"] = torch.tensor([4.0, 1.0, 16.0], dtype=torch.float64)
    draws = method.sample(state, 20_000, torch.Generator().manual_seed(0))
    assert draws is not None and draws.shape == (20_000, DIM)
    np.testing.assert_allclose(draws.mean(0).numpy(), [1.0, -2.0, 0.0], atol=0.03)
    np.testing.assert_allclose(draws.std(0).numpy(), [0.5, 1.0, 0.25], rtol=0.03)
    np.testing.assert_allclose(method.deviation(state).numpy(), [0.5, 1.0, 0.25])
    again = [method.sample(state, 3, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*again)
    assert FedAvg().sample(state, 3, torch.Generator()) is None and FedAvg().deviation(state) is None
    # v (1 + m²) + v²/2 in every coordinate: the trace of its Fisher information
    assert method.fisher_bound(state) == pytest.approx(1.0 * (1 + 4.0) + 0.5)
