"""Each method on problems whose fixed point is known: the papers' claims, and the bias of those that have one.

What needs more than a formula on logistic regression is in test_federated_logistic.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from badmm.clients.federation import Task
from badmm.methods import EXACT, METHODS, NETWORKS
from badmm.methods.bregman_admm import BregmanADMM
from badmm.methods.fedadmm import FedADMM
from badmm.methods.fedavg import FedAvg
from badmm.methods.feddyn import FedDyn
from badmm.methods.fedlap import FedLap
from badmm.methods.fedlap_cov import FedLapCov
from badmm.methods.fedprox import FedProx
from badmm.methods.gaussian import DUALS, VariationalMethod
from badmm.methods.pvi import PVI
from badmm.methods.scaffold import Scaffold
from badmm.rounds.network_method import NetworkMethod, Reply, State
from tests.badmm.rounds.federated_problems import (
    CUBE,
    DIM,
    SIZES,
    federation,
    hessians,
    outputs,
    pooled,
    replace_normals,
    solve,
)

pytestmark = pytest.mark.slow

K, N = len(SIZES), sum(SIZES)
SHARES = np.array(SIZES) / N
# method, local steps and step size for least squares, for logistic regression
UNBIASED: dict[str, tuple[NetworkMethod, int, float, float]] = {
    "fedadmm": (FedADMM(rho=0.4), 12, 0.6, 1.4),
    "fedadmm-cold": (FedADMM(rho=0.4, warm_start=False), 12, 0.6, 1.4),
    "feddyn": (FedDyn(rho=0.4), 12, 0.6, 1.4),
    "scaffold-gradient": (Scaffold(), 5, 0.3, 1.2),
    "scaffold-steps": (Scaffold(control="steps"), 5, 0.3, 1.2),
}


def mean_of(method: NetworkMethod, state: State) -> np.ndarray:
    return method.mean(state).numpy()


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, kind) for name in UNBIASED for kind in ("squares", "logistic")), ("feddyn", "softmax")]
)
def test_these_reach_the_global_minimiser(name: str, kind: str) -> None:
    method, epochs, squares, logistic = UNBIASED[name]
    fed = federation(kind, epochs=epochs, lr=squares if kind == "squares" else logistic)
    state = solve(method, fed, 100)
    np.testing.assert_allclose(mean_of(method, state), pooled(kind), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "precision", "lr"), [("squares", 15.0, 0.3), ("logistic", 5.0, 1.0)])
def test_fedlap_reaches_the_posterior_mode(kind: str, precision: float, lr: float) -> None:
    method = FedLap(precision=precision, damping=0.5)
    state = solve(method, federation(kind, epochs=20, lr=lr), 100)
    np.testing.assert_allclose(mean_of(method, state), pooled(kind, precision), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("method", "slot"), [(FedLap, "precision_mean"), (FedLapCov, "precision")])
def test_fedlaps_own_precision_is_its_penalty_by_the_clients_size(method: type[FedLap | FedLapCov], slot: str) -> None:
    """δ = 1e-3 N/(Kτ); with γ = 1/K the first round's server is at the mean of the clients."""
    precision = 1e-3 * sum(SIZES) / (len(SIZES) * 2.0)
    fed = federation("logistic", epochs=20, lr=0.5)
    found = solve(method(temperature=2.0), fed, 1)
    given = solve(method(precision=precision, damping=1.0 / len(SIZES), temperature=2.0), fed, 1)
    torch.testing.assert_close(found.server[slot], found.clients[slot].mean(0), rtol=1e-12, atol=1e-15)
    for name, tensor in given.server.items():
        torch.testing.assert_close(found.server[name], tensor, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("kind", "lr"), [("squares", 0.12), ("logistic", 0.5)])
def test_fedlap_cov_reaches_the_posterior_mode(kind: str, lr: float) -> None:
    """On least squares the mode is the mean, and the precision is the posterior's diagonal."""
    method = FedLapCov(precision=4.0, damping=0.5)
    state = solve(method, federation(kind, epochs=40, lr=lr), 60)
    np.testing.assert_allclose(mean_of(method, state), pooled(kind, 4.0), rtol=0, atol=1e-9)
    if kind == "squares":
        np.testing.assert_allclose(state.server["precision"].numpy(), exact_precision(4.0), rtol=1e-12)


def exact_precision(prior: float, temperature: float = 1.0) -> np.ndarray:
    """The diagonal of the posterior's precision."""
    whole = sum(n * h for n, h in zip(SIZES, hessians()[0], strict=True)) / temperature
    return np.asarray(prior + np.diag(whole))


def gradient_descent_map(ridge: float, lr: float, steps: int) -> Callable[[np.ndarray], np.ndarray]:
    """θ_g ↦ Σ_k N_k/N (end of `steps` gradient steps on f_k + ridge/2 ‖θ − θ_g‖²), in closed form."""

    def average(theta: np.ndarray) -> np.ndarray:
        total = np.zeros(DIM)
        for share, h, b in zip(SHARES, *hessians(), strict=True):
            matrix = h + ridge * np.eye(DIM)
            goal = np.linalg.solve(matrix, b + ridge * theta)
            shrink = np.linalg.matrix_power(np.eye(DIM) - lr * matrix, steps)
            total += share * (goal + shrink @ (theta - goal))
        return total

    return average


@pytest.mark.parametrize(("method", "ridge"), [(FedAvg(), 0.0), (FedProx(rho=0.4), 0.4)], ids=["fedavg", "fedprox"])
def test_averaging_misses_the_minimiser_by_the_known_bias(method: NetworkMethod, ridge: float) -> None:
    """The fixed point of an affine map, (I − A)⁻¹ a."""
    steps, lr = 7, 0.3
    state = solve(method, federation("squares", epochs=steps, lr=lr), 80)
    average = gradient_descent_map(ridge, lr, steps)
    offset = average(np.zeros(DIM))
    matrix = np.stack([average(e) - offset for e in np.eye(DIM)], axis=1)
    biased = np.linalg.solve(np.eye(DIM) - matrix, offset)
    np.testing.assert_allclose(mean_of(method, state), biased, rtol=0, atol=1e-10)
    assert np.linalg.norm(biased - pooled("squares")) > 1e-2


@pytest.mark.parametrize("method", [FedAvg(), FedProx(rho=0.4)], ids=["fedavg", "fedprox"])
def test_one_local_step_has_no_bias(method: NetworkMethod) -> None:
    """The penalty's gradient vanishes at θ_g, so that one step is gradient descent on F."""
    state = solve(method, federation("squares", epochs=1, lr=0.6), 150)
    np.testing.assert_allclose(mean_of(method, state), pooled("squares"), rtol=0, atol=1e-9)


@pytest.fixture
def exact_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_normals(monkeypatch, CUBE)


# μ's dual steps suit posteriors of unit scale: the temperature makes one, and the prior weighs as 20 points
VARIATIONAL: dict[str, tuple[VariationalMethod, int, int, float]] = {
    "pvi": (PVI(precision=1.0, damping=0.5, samples=8, initial_sd=0.7, temperature=20.0), 60, 8, 1e-9),
    "bregman_admm": (BregmanADMM(precision=1.0, rho=1.0, samples=8, initial_sd=0.7, temperature=20.0), 100, 8, 1e-5),
}


@pytest.mark.usefixtures("exact_noise")
@pytest.mark.parametrize("name", VARIATIONAL)
def test_variational_methods_reach_the_posterior_mean(name: str) -> None:
    """The mean is the posterior's, the precision its precision's diagonal: the mean-field solution."""
    method, count, epochs, tolerance = VARIATIONAL[name]
    state = solve(method, federation("squares", epochs=epochs, lr=0.12), count)
    prior, temperature = float(method.precision), float(method.temperature)
    mean = pooled("squares", prior * temperature)
    np.testing.assert_allclose(mean_of(method, state), mean, rtol=0, atol=tolerance)
    precision = exact_precision(prior, temperature)
    np.testing.assert_allclose(state.server["precision"].numpy(), precision, rtol=30 * tolerance)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_variational_clients_gradient_is_its_objectives(samples: int) -> None:
    """Against autograd through θ = m + σε and torch.distributions' KL, on the same noise."""
    method = BregmanADMM(precision=2.0, rho=0.7, temperature=3.0, initial_sd=0.4, samples=samples)
    fed = federation("logistic", lr=1e-3, epochs=1)
    state = method.start(fed, torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))
    state.server["precision"] += torch.tensor([0.1, 0.9, 2.0])
    state.server["precision_mean"] += torch.tensor([0.3, -0.4, 1.0])
    for name in state.clients:
        state.clients[name] += torch.linspace(-1, 1, K * DIM, dtype=torch.float64).view(K, DIM)
    task = Task(fed, [3, 1], 0, 1e-3)
    solver = method.solver(state, task)
    draws = []
    at = solver.variables.clone()
    for _ in range(samples):
        theta = solver.point(2)
        draws.append(solver.noise.clone())
        solver.gradient.copy_(task.full_gradient(theta))
        solver.observe(2)
    solver.complete(2)
    for place, client in enumerate(task.members):
        z = at[place].clone().requires_grad_()
        mean, sd = z[:DIM], z[DIM:].exp()
        x, y = fed.data.points(fed.data.rows[client], fed.dtype)
        losses = [fed.stack.loss.value(outputs(fed.stack, mean + sd * d[place], x), y).mean() for d in draws]
        xi, precision = state.server["precision_mean"], state.server["precision"]
        server = torch.distributions.Normal(xi / precision, precision.rsqrt())
        kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, sd), server).sum()
        moments = (mean, -0.5 * (sd**2 + mean**2))
        inner = sum((state.clients[name][client] * mu).sum() for name, mu in zip(DUALS, moments, strict=True))
        objective = torch.stack(losses).mean() + 3.0 / SIZES[client] * (0.7 * kl - inner)
        (expected,) = torch.autograd.grad(objective, z)
        torch.testing.assert_close(solver.slope[place], expected, rtol=1e-10, atol=1e-12)


def test_noise_is_each_clients_own() -> None:
    fed = federation()
    method = PVI()
    state = method.start(fed, torch.zeros(DIM, dtype=torch.float64))
    together, alone = (method.solver(state, Task(fed, members, 0, 0.1)) for members in ([3, 0, 1], [1]))
    for _ in range(3):
        assert torch.equal(together.point(3)[2], alone.point(1)[0])
        assert not torch.equal(together.noise[0], together.noise[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_the_clients_a_round_is_enough_to_run(name: str) -> None:
    options: dict[str, dict[str, float]] = {"bregman_admm": {"initial_sd": 0.7, "temperature": 20.0}}
    method = NETWORKS[name](**options.get(name, {}))
    fed = federation("squares", epochs=3, lr=0.05)
    state = solve(method, fed, 12, fraction=0.5)
    assert torch.isfinite(method.mean(state)).all()
    assert state.round == 12


@pytest.mark.parametrize("name", ["feddyn", "scaffold", "fedadmm", "fedlap"])
def test_the_fixed_point_survives_partial_participation(name: str) -> None:
    methods: dict[str, NetworkMethod] = {
        "feddyn": FedDyn(rho=0.4),
        "scaffold": Scaffold(),
        "fedadmm": FedADMM(rho=0.4, server_step=0.5),
        "fedlap": FedLap(precision=15.0, damping=0.5),
    }
    lr = 0.3 if name in ("scaffold", "fedlap") else 0.6
    state = solve(methods[name], federation("squares", epochs=12, lr=lr), 250, fraction=0.5)
    expected = pooled("squares", 15.0 if name == "fedlap" else 0.0)
    np.testing.assert_allclose(mean_of(methods[name], state), expected, rtol=0, atol=1e-5)


def test_duals_of_absent_clients_stay_in_the_server_line() -> None:
    fed = federation("squares", epochs=3, lr=0.1)
    method = PVI(damping=0.5, precision=2.0)
    state = solve(method, fed, 4, fraction=0.5)
    for name, dual, prior in (("precision_mean", DUALS[0], 0.0), ("precision", DUALS[1], 2.0)):
        torch.testing.assert_close(state.server[name], prior - state.clients[dual].sum(dim=0), rtol=1e-12, atol=1e-12)


def test_a_server_precision_that_would_fall_by_more_than_half_is_damped() -> None:
    """Both slots go the same part of the way, so that the mean stays between what it was and what it would be."""
    fed = federation("squares")
    method = PVI(precision=1.0)
    state = method.start(fed, torch.zeros(DIM, dtype=torch.float64))
    sent = {"precision_mean": torch.zeros(K, DIM).double(), "precision": torch.zeros(K, DIM).double()}
    sent["precision"][:, 0] = -1.0  # λ_0 − Σ η_S = 1 − 4 there
    sent["precision_mean"][:, 0] = 2.0  # −Σ η_ξ = 8 there
    sums = method.reduce(state, fed, torch.arange(K), sent)
    assert method.server(State(state.server, {}), fed, K, sums) == {"coordinates_damped": 1}
    assert state.server["precision"].tolist() == [0.5, 1.0, 1.0]
    # from S = 1 to ½ is an eighth of the way to −3, and so is ξ from 0 to 8
    assert state.server["precision_mean"].tolist() == [1.0, 0.0, 0.0]


def test_clients_whose_problem_has_no_bound_are_counted() -> None:
    """ρS_g + η_S ≤ 0: a flat loss leaves nothing that bounds the mean."""
    fed = federation("squares")
    method = PVI(precision=1.0)
    state = method.start(fed, torch.zeros(DIM, dtype=torch.float64))
    state.clients["dual_precision"][2, 1] = -3.0
    state.clients["dual_precision"][2, 2] = -0.5
    state.clients["dual_precision"][1, 2] = 1.0
    sent = {"precision_mean": torch.ones(K, DIM).double(), "precision": torch.ones(K, DIM).double()}
    sums = method.reduce(state, fed, torch.arange(K), sent)
    assert method.server(State(state.server, {}), fed, K, sums) == {"cavities_unbounded": 1}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FedProx(rho=-1.0), "rho: expected a number of at least 0, got -1.0"),
        (lambda: FedLap(damping=1.5), r"damping: expected a number in \(0, 1\], got 1.5"),
        (lambda: PVI(samples=0), "samples: expected a positive integer, got 0"),
        (lambda: Scaffold(control="both"), 'control: expected "gradient" or "steps", got \'both\''),
        (
            lambda: Scaffold(control="steps").start(federation("squares", optimizer="adam"), torch.zeros(DIM)),
            'control: expected "gradient" unless the optimizer is sgd',
        ),
    ],
)
def test_settings_are_checked(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_every_method_is_documented_and_named() -> None:
    """IVON-ADMM is Bayesian ADMM with IVON's clients."""
    for method in METHODS:
        name = method.name
        module = __import__(method.__module__, fromlist=["__doc__"])
        assert method in (NETWORKS.get(name), EXACT.get(name))
        assert method.__module__.rpartition(".")[2] == {"ivon_admm": "bayes_admm"}.get(name, name)
        assert module.__doc__ is not None
        assert "server" in module.__doc__ and "client" in module.__doc__


def test_what_is_finite_is_told_row_by_row() -> None:
    rows = torch.ones(5, 8)
    rows[1] = 3e38  # a sum beyond float32, of finite numbers
    rows[2, 3] = torch.inf
    rows[3, 2:4] = torch.tensor([torch.inf, -torch.inf])
    rows[4, 7] = torch.nan
    reply = Reply({"mean": rows}, {"steps": torch.full((5, 1), 2**62)}, torch.zeros(5))
    assert reply.finite().tolist() == [True, True, False, False, False]
