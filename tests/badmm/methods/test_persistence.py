"""The dual step of a client by how much of its residual persists: Wiener's factor, its bounds, and its round."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from badmm.clients.federation import Task
from badmm.methods import persistence
from badmm.methods.bayes_admm import IvonADMM
from badmm.rounds import network_round as rounds
from badmm.rounds.network_method import State
from tests.badmm.rounds.federated_problems import SIZES, federation

K, WIDE = 3, 20_000


def clients(count: int, size: int) -> State:
    state = State({}, {"precision": torch.ones(count, size, dtype=torch.float64)})
    persistence.begin(state)
    return state


def after(state: State, residual: Tensor, members: list[int] | None = None) -> Tensor:
    """γ_k of all clients after a round in which the members have the residuals."""
    index = torch.tensor(list(range(len(state.clients["precision"]))) if members is None else members)
    kept = persistence.dampings(state, cast(Task, SimpleNamespace(index=index)), residual)
    for name, rows in kept.items():
        state.clients[name][index] = rows
    return state.clients[persistence.NAME][:, 0]


@pytest.mark.parametrize("signal", [0.3, 1.0, 3.0])
def test_it_is_wieners_factor_of_what_persists(signal: float) -> None:
    """b has length s and n length 1 per coordinate: s²/(s² + 1), up to the chance that 20,000 coordinates leave."""
    generator = torch.Generator().manual_seed(3)
    state = clients(K, WIDE)
    shared = signal * torch.randn(K, WIDE, generator=generator, dtype=torch.float64)
    for _ in range(15):
        found = after(state, shared + torch.randn(K, WIDE, generator=generator, dtype=torch.float64))
    expected = max(signal**2 / (signal**2 + 1), persistence.LEAST)
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=0, atol=0.02)


def test_a_residual_that_stays_is_taken_up_whole_and_one_that_turns_hardly() -> None:
    state = clients(2, 5)
    residual = torch.arange(1.0, 6.0, dtype=torch.float64).repeat(2, 1)
    for _ in range(40):
        residual = residual * torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
        found = after(state, residual)
    torch.testing.assert_close(found, torch.tensor([1.0, persistence.LEAST], dtype=torch.float64), rtol=0, atol=1e-9)


def test_rounds_without_a_residual_or_without_the_client_change_nothing() -> None:
    state, residual = clients(2, 4), torch.ones(2, 4, dtype=torch.float64)
    assert after(state, 0 * residual).tolist() == [persistence.FIRST] * 2
    assert after(state, residual).tolist() == [persistence.FIRST] * 2  # there is none to compare it with
    alone = after(state, residual[:1], [1])
    assert alone.tolist() == [persistence.FIRST, 0.75]
    assert after(state, 2 * residual).tolist() == [0.75, 0.875]  # the absent one is compared with its own last round


def play(method: IvonADMM, count: int, fraction: float = 1.0) -> State:
    fed = federation("softmax", epochs=4, lr=0.1)
    state = method.start(fed, torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))
    for _ in range(count):
        rounds.play(method, fed, state, lr=0.1, fraction=fraction)
    return state


SETTINGS: dict[str, Any] = {"rho": 0.7, "temperature": 3.0, "hess_init": 0.3, "beta2": 0.9}


def test_where_it_does_not_change_the_rounds_are_those_of_that_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistence, "WEIGHT", 0.0)
    own, fixed = play(IvonADMM(**SETTINGS), 4), play(IvonADMM(damping=persistence.FIRST, **SETTINGS), 4)
    assert persistence.NAME not in {**fixed.server, **fixed.clients}
    for group in ("server", "clients"):
        for name, rows in getattr(fixed, group).items():
            torch.testing.assert_close(getattr(own, group)[name], rows, rtol=1e-12, atol=1e-12)


def test_every_client_has_its_own_and_the_server_their_mean() -> None:
    state = play(IvonADMM(**SETTINGS), 4)
    own = state.clients[persistence.NAME]
    assert own.shape == (len(SIZES), 1)
    assert len(set(own[:, 0].tolist())) == len(SIZES)
    assert ((own >= persistence.LEAST) & (own <= 1)).all()
    torch.testing.assert_close(state.server[persistence.NAME], own.mean(0).double())


def test_the_dual_line_takes_each_clients_own_step() -> None:
    """η_k ← η_k + γ_k ρ_k (λ_g − λ_k), slot by slot."""
    fed = federation("softmax", epochs=4, lr=0.1)
    method = IvonADMM(**SETTINGS)
    state = method.start(fed, torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))
    for _ in range(3):
        server = {name: state.server[name].clone() for name in method.slots}
        duals = {name: state.clients[f"dual_{name}"].clone() for name in method.slots}
        rounds.play(method, fed, state, lr=0.1)
        steps = state.clients[persistence.NAME] * method.rho * fed.weights.unsqueeze(1)
        for name in method.slots:
            expected = duals[name] + steps * (server[name] - state.clients[name])
            torch.testing.assert_close(state.clients[f"dual_{name}"], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.5, "none"])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^damping: expected "):
        IvonADMM(damping=value)
