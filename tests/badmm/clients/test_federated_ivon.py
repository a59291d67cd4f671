"""IVON-ADMM: its step, its fixed point, its streams."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

import badmm_kernels
from badmm.clients.federation import Federation, Task
from badmm.clients.training import train
from badmm.experiments.config import networks as config
from badmm.experiments.jobs.networks import capture, restore
from badmm.experiments.store import RunFolder
from badmm.methods.bayes_admm import IvonADMM
from badmm.methods.gaussian import DUALS
from badmm.rounds import network_round as rounds
from tests.badmm.rounds.federated_problems import CUBE, DIM, SIZES, federation, hessians, pooled, replace_normals, solve
from tests.badmm.rounds.test_federated_training import federation as networks

K = len(SIZES)
FREE: dict[str, Any] = {
    "clip": float("inf"),
    "temperature": 20.0,
    "hess_init": 0.1,
    "beta1": 0.0,
    "beta2": 0.8,
    "mean_step": "ivon",
}


@pytest.fixture
def exact_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_normals(monkeypatch, CUBE)


def posterior(precision: float, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and diagonal of the precision of the posterior: what a diagonal Gaussian's fixed point has."""
    whole = sum(n * h for n, h in zip(SIZES, hessians()[0], strict=True)) / temperature
    return pooled("squares", precision * temperature), precision + np.diag(whole)


@pytest.mark.usefixtures("exact_noise")
@pytest.mark.parametrize(
    ("steps", "lr"),
    [
        ({"rho": 0.5}, 0.6),
        ({"rho": 1.0, "alpha": 1.0, "damping": 0.5}, 0.6),
        ({"rho": 0.5, "mean_step": "local"}, 0.15),
    ],
    ids=["auto", "pvi", "the local optimizer's steps"],
)
def test_the_fixed_point_is_the_posterior(steps: dict[str, Any], lr: float) -> None:
    """And the duality structure of arXiv:2506.13150 holds at it: λ_g = λ_0 − Σ η_k, η_k = ∇L_k."""
    method = IvonADMM(precision=1.0, samples=8, **{**FREE, **steps})
    state = solve(method, federation("squares", epochs=25, lr=lr), 55)
    mean, precision = posterior(1.0, 20.0)
    np.testing.assert_allclose(method.mean(state).numpy(), mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(state.server["precision"].numpy(), precision, rtol=1e-8)
    for client, (n, h) in enumerate(zip(SIZES, hessians()[0], strict=True)):
        np.testing.assert_allclose(state.clients["dual_precision"][client].numpy(), -n / 20 * np.diag(h), atol=1e-7)
    for slot, dual, prior in (("precision_mean", DUALS[0], 0.0), ("precision", DUALS[1], 1.0)):
        torch.testing.assert_close(state.server[slot], prior - state.clients[dual].sum(0), rtol=1e-7, atol=1e-8)


def test_sampled_it_is_near_the_posterior() -> None:
    """One sample a step: over the last rounds the mean is right to 3% of its size, the precision to 5%."""
    method = IvonADMM(precision=1.0, rho=0.5, damping=1.0, **{**FREE, "beta1": 0.9, "beta2": 0.999})
    fed = federation("squares", epochs=250, lr=0.03)
    state = method.start(fed, fed.stack.initial(fed.dtype))
    means, precisions = [], []
    for index in range(24):
        rounds.play(method, fed, state, lr=0.03)
        if index >= 10:
            means.append(method.mean(state).numpy())
            precisions.append(state.server["precision"].numpy().copy())
    mean, precision = posterior(1.0, 20.0)
    assert np.linalg.norm(np.mean(means, axis=0) - mean) < 0.03 * np.linalg.norm(mean)
    np.testing.assert_allclose(np.mean(precisions, axis=0), precision, rtol=0.05)


def by_hand(
    fed: Federation, method: IvonADMM, state: Any, client: int, index: int, lr: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(m, S) of a client after its steps, with δ, h and η apart, as the paper writes them."""
    n, tau = SIZES[client], method.tau(fed, state.server["initial"])
    weight = float(fed.weights[client]) if method.penalty == "size" else 1.0
    ess = n / (tau * method.rho * weight)
    precision_g = state.server["precision"]
    m_g = state.server["precision_mean"] / precision_g
    delta, scale = precision_g / ess, tau / n
    eta_xi, eta_s = (scale * state.clients[name][client] for name in DUALS)
    first = state.round == 0
    m = state.server["initial"].clone() if first else m_g.clone()
    h = torch.full_like(m, method.hess_init if first else 0.0)
    v, t = state.clients["momentum"][client].clone(), int(state.clients["steps"][client])
    task = Task(fed, [client], index, lr)
    solver = method.solver(state, task)
    normals = torch.empty_like(m)
    b1, b2 = method.beta1, method.beta2
    for step in range(fed.steps(client)):
        badmm_kernels.load("ivon").noise(solver.seeds[0], step, out=normals)
        theta = m + normals / (ess * (h + delta)).sqrt()
        g = task.full_gradient(theta.unsqueeze(0))[0]
        f = ess * g * (theta - m) * (h + delta) + eta_s
        v = b1 * v + (1 - b1) * g
        h = b2 * h + (1 - b2) * f + 0.5 * (1 - b2) ** 2 * (h - f) ** 2 / (h + delta)
        t += 1
        direction = (v / (1 - b1**t) - eta_xi + eta_s * m + delta * (m - m_g)) / (h + delta)
        m = m - lr * direction.clamp(-method.clip, method.clip)
    return m, ess * (h + delta)


@pytest.mark.parametrize("penalty", ["alike", "size"])
def test_a_client_makes_the_papers_steps(penalty: Literal["alike", "size"]) -> None:
    """Two rounds of every client, against the equations with δ, h and the duals apart."""
    settings: dict[str, Any] = {"rho": 0.7, "damping": 0.6, "temperature": 3.0, "hess_init": 0.3, "beta2": 0.9}
    method = IvonADMM(precision=2.0, clip=0.2, origin="prior", penalty=penalty, mean_step="ivon", **settings)
    fed = federation("softmax", epochs=6, lr=0.1)
    state = method.start(fed, torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))
    for index in range(2):
        expected = [by_hand(fed, method, state, client, index, 0.1) for client in range(K)]
        task = Task(fed, list(range(K)), index, 0.1)
        solver = method.solver(state, task)
        train(task, solver)
        natural = method.natural(state, task, solver)
        for client, (mean, precision) in enumerate(expected):
            torch.testing.assert_close(solver.mean[client], mean, rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(natural[1][client], precision, rtol=1e-12, atol=1e-13)
        rounds.play(method, fed, state, lr=0.1)
    assert state.clients["steps"].tolist() == [[12]] * K


@pytest.mark.parametrize("penalty", ["alike", "size"])
def test_a_start_stays_where_no_client_moves(penalty: Literal["alike", "size"]) -> None:
    """The duals of the start make λ_g = λ_0 − Σ η_k, so that the server's line leads away from it by learning alone."""
    method = IvonADMM(delta=0.1, rho=0.7, temperature=3.0, hess_init=0.3, beta2=0.0, penalty=penalty)
    fed = federation("softmax", epochs=1, lr=1e-300)
    state = method.start(fed, torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))
    before = {name: state.server[name].clone() for name in method.slots}
    prior = method.prior_precision(fed, state.server["initial"])
    duals = [state.clients[name].sum(dim=0) for name in DUALS]
    torch.testing.assert_close(prior - duals[1], before["precision"])
    torch.testing.assert_close(-duals[0], before["precision_mean"])
    task = Task(fed, list(range(K)), 0, 1e-300)
    solver = method.solver(state, task)  # clients that take no step
    sent, _ = method.reply(state, task, solver)
    method.server(state, fed, K, method.reduce(state, fed, task.index, sent))
    for name, value in before.items():
        torch.testing.assert_close(state.server[name], value, rtol=1e-12, atol=1e-12)


def test_penalties_by_size_keep_the_fixed_point() -> None:
    """ρ_k = ρ K N_k/N add up to ρK, and the server's mean of clients that start alike weighs them by their points."""
    fed = federation("squares")
    index = torch.arange(K)
    method = IvonADMM(penalty="size")
    weights = method.penalties(fed, index)
    torch.testing.assert_close(weights[:, 0], K * torch.tensor(SIZES, dtype=torch.float64) / sum(SIZES))
    assert float(weights.sum()) == pytest.approx(K)
    assert bool((IvonADMM(penalty="alike").penalties(fed, index) == 1).all())
    state = method.start(fed, torch.zeros(3, dtype=torch.float64))
    ess = method.ess(state, Task(fed, list(range(K)), 0, 0.1))
    torch.testing.assert_close(ess, ess[:1].expand_as(ess))


@pytest.mark.parametrize(
    "options",
    [{}, {"samples": 2}, {"mean_step": "ivon"}, {"mean_step": "ivon", "keep_momentum": False}],
    ids=["one", "two", "own steps", "fresh"],
)
def test_stacks_of_any_size_and_order_agree(options: dict[str, Any]) -> None:
    """Ragged clients, dropout, two rounds; float64 to rounding."""
    method = IvonADMM(delta=0.1, rho=1.0, temperature=0.1, hess_init=0.1, **options)
    ends = []
    for largest in (1, 2, 5):
        fed = networks(torch.float64)
        state = method.start(fed, fed.stack.initial(fed.dtype))
        for _ in range(2):
            outcome = rounds.play(method, fed, state, lr=0.05, largest=largest)
            assert outcome.excluded == {}
        ends.append(state)
    for other in ends[1:]:
        for name, tensor in {**ends[0].server, **ends[0].clients}.items():
            torch.testing.assert_close({**other.server, **other.clients}[name], tensor, rtol=1e-9, atol=1e-10)


def test_noise_is_each_clients_own() -> None:
    fed, method = networks(torch.float32), IvonADMM()
    state = method.start(fed, fed.stack.initial(fed.dtype))
    together, alone = (method.solver(state, Task(fed, members, 0, 0.1)) for members in ([3, 0, 1], [1]))
    assert torch.equal(together.point(3)[2], alone.point(1)[0])
    assert torch.equal(together.noise[2], alone.noise[0])
    assert not torch.equal(together.noise[0], together.noise[1])
    later = method.solver(state, Task(fed, [1], 1, 0.1))
    assert not torch.equal(later.point(1), alone.theta)


def test_a_saved_state_goes_on_bit_identically(tmp_path: Path) -> None:
    method, fed = IvonADMM(hess_init=0.01, mean_step="ivon"), networks(torch.float32)
    state = method.start(fed, fed.stack.initial(fed.dtype))
    for index in range(4):
        if index == 2:
            RunFolder(tmp_path).save(capture(state, {}, 0.1))
        rounds.play(method, fed, state, lr=0.05)
    checkpoint, _ = RunFolder(tmp_path).checkpoint()
    assert checkpoint is not None
    again = restore(checkpoint, torch.device("cpu"))
    for _ in range(2):
        rounds.play(method, fed, again, lr=0.05)
    for name, tensor in {**state.server, **state.clients}.items():
        assert torch.equal(tensor, {**again.server, **again.clients}[name]), name


def test_the_prior_is_delta_in_units_of_the_average_ess() -> None:
    fed = federation("squares")
    method = IvonADMM(delta=0.3, rho=2.0, temperature=5.0, origin="prior")
    state = method.start(fed, torch.ones(DIM, dtype=torch.float64))
    np.testing.assert_allclose(state.server["precision"].numpy(), 0.3 * np.mean(SIZES) / 10, rtol=1e-14)
    assert not state.server["precision_mean"].any()
    assert IvonADMM(precision=0.25).prior_precision(fed, torch.ones(DIM)).tolist() == [0.25] * DIM


def test_the_first_posterior_is_the_initialisation_with_the_first_curvature() -> None:
    """h = h_0 above the prior, in units of the average client's ess."""
    fed, initial = federation("squares"), torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    method = IvonADMM(delta=0.3, hess_init=0.1, rho=2.0, temperature=5.0)
    state = method.start(fed, initial)
    np.testing.assert_allclose(state.server["precision"].numpy(), 0.4 * np.mean(SIZES) / 10, rtol=1e-14)
    torch.testing.assert_close(method.mean(state), initial, rtol=1e-14, atol=0)
    solver = method.solver(state, Task(fed, [1], 0, 0.1))
    torch.testing.assert_close(solver.mean[0], initial, rtol=1e-14, atol=0)


def test_an_automatic_temperature_makes_the_first_samples_a_part_of_the_weights() -> None:
    """τ = (initial_sd w)² (δ + h_0) N/(Kρ), w the least weight scale: 1/√(3 · inputs) of a layer that starts at 0."""
    fed, initial = federation("squares"), torch.zeros(DIM, dtype=torch.float64)
    method = IvonADMM(delta=0.3, hess_init=0.1, rho=2.0, initial_sd=0.5)
    tau = (0.5 / 3.0) ** 2 * 0.4 * np.mean(SIZES) / 2.0
    assert method.tau(fed, initial) == pytest.approx(tau, rel=1e-14)
    assert method.average_ess(fed, initial) == pytest.approx(np.mean(SIZES) / (2.0 * tau), rel=1e-14)
    solver = method.solver(method.start(fed, initial), Task(fed, [2], 0, 0.1))
    deviation = 1.0 / np.sqrt(solver.ess[0] * solver.precision[0].numpy())
    np.testing.assert_allclose(deviation, 0.5 / 3.0, rtol=1e-12)
    assert IvonADMM(temperature=3.0).tau(fed, initial) == 3.0


def test_momentum_that_is_not_kept_begins_anew_in_every_round() -> None:
    fed, method = (
        federation("softmax", epochs=2, lr=0.1),
        IvonADMM(hess_init=0.1, mean_step="ivon", keep_momentum=False),
    )
    state = method.start(fed, torch.full((DIM,), 0.2, dtype=torch.float64))
    assert "momentum" not in state.clients and "steps" not in state.clients
    for _ in range(2):
        rounds.play(method, fed, state, lr=0.1)
        solver = method.solver(state, Task(fed, [3, 1], 1, 0.1))
        assert solver.before.tolist() == [0, 0] and not solver.momentum.any()
        assert solver.momentum.shape == (2, DIM)


PUBLISHED = """
name = "published"
split.clients = 100
model.name = "mlp"
[methods.ivon_admm]
delta = 0.01
hess_init = 0.005
beta2 = 0.9998
rho = 5.0
damping = 0.1
temperature = 0.01
clip = inf
[methods.ivon_admm.local]
lr = 0.02
epochs = 10
schedule = "cosine"
"""


def test_the_published_settings_can_be_written_down(tmp_path: Path) -> None:
    path = tmp_path / "published.toml"
    path.write_text(PUBLISHED)
    loaded = config.load(path)
    method = loaded.methods["ivon_admm"].make()
    assert isinstance(method, IvonADMM)
    assert method.clip == float("inf")
    fed = federation("squares")
    state = method.start(fed, torch.zeros(DIM, dtype=torch.float64))
    assert method.steps(state, fed)[:3] == (5.0, 1.0 / 21.0, 0.1)
    again = tmp_path / "again.toml"
    again.write_text(loaded.dump())
    assert config.load(again) == loaded


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IvonADMM(delta=-1.0), "delta: expected a positive number, got -1.0"),
        (lambda: IvonADMM(clip=0.0), "clip: expected a positive number, got 0.0"),
        (lambda: IvonADMM(beta1=1.0), r"beta1: expected a number in \[0, 1\), got 1.0"),
        (lambda: IvonADMM(alpha=2.0), r"alpha: expected a number in \(0, 1\], got 2.0"),
        (lambda: IvonADMM().start(federation(clip=1.0), torch.zeros(DIM)), r"local\.clip: expected none .*got 1\.0"),
    ],
)
def test_settings_are_checked(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
