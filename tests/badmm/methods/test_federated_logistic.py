"""Fixed points on logistic regression against SciPy: those that the papers state, and the known bias of averaging.

The oracles are NumPy on the pooled points or on one client's, and share no line with the federated path.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import root
from scipy.special import expit

from badmm.methods.bayes_admm import IvonADMM
from badmm.methods.bregman_admm import BregmanADMM
from badmm.methods.fedadmm import FedADMM
from badmm.methods.fedavg import FedAvg
from badmm.methods.feddyn import FedDyn
from badmm.methods.fedlap import FedLap
from badmm.methods.fedlap_cov import FedLapCov
from badmm.methods.fedprox import FedProx
from badmm.methods.gaussian import DUALS, GaussianMethod
from badmm.methods.pvi import PVI
from badmm.methods.scaffold import Scaffold
from badmm.rounds.network_method import NetworkMethod
from tests.badmm.rounds.federated_problems import DIM, SIZES, data, federation, pooled, replace_normals, solve

pytestmark = pytest.mark.slow

K, N = len(SIZES), sum(SIZES)
X, RESPONSES, ROWS = data()
LABELS = (RESPONSES > 0).astype(float)
SHARES = np.array(SIZES) / N


def losses_gradient(rows: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """∇Σ_i log(1 + exp z_i) − y_i z_i over some points, z = Xθ, at θ (DIM,) or at each of (n, DIM)."""
    return (expit(theta @ X[rows].T) - LABELS[rows]) @ X[rows]


def curvature(rows: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The diagonal of the Hessian, Σ_i p_i (1 − p_i) x_i²."""
    p = expit(X[rows] @ theta)
    return (p * (1 - p)) @ X[rows] ** 2


def zero(system: Callable[[np.ndarray], np.ndarray], size: int) -> np.ndarray:
    """Where the system vanishes, from 0."""
    found = root(system, np.zeros(size), tol=1e-13)
    assert np.abs(system(found.x)).max() < 1e-10, found.message
    return np.asarray(found.x)


# ---- averaging -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 12])
def test_fedavg_reaches_the_fixed_point_of_averaged_steps(steps: int) -> None:
    """θ = Σ_k N_k/N Φ_k(θ), Φ_k the gradient steps on f_k: not F's minimiser, and further off with more."""
    lr = 1.2

    def residual(theta: np.ndarray) -> np.ndarray:
        ends = []
        for rows in ROWS:
            end = theta
            for _ in range(steps):
                end = end - lr * losses_gradient(rows, end) / len(rows)
            ends.append(end)
        return SHARES @ np.array(ends) - theta

    method = FedAvg()
    biased = zero(residual, DIM)
    state = solve(method, federation("logistic", epochs=steps, lr=lr), 90)
    np.testing.assert_allclose(method.mean(state).numpy(), biased, rtol=0, atol=1e-9)
    assert np.linalg.norm(biased - pooled("logistic")) > (0.02 if steps == 2 else 0.1)


@pytest.mark.parametrize("rho", [0.2, 0.4])
def test_fedprox_reaches_the_minimiser_of_the_mean_envelope(rho: float) -> None:
    """θ_g = Σ_k N_k/N prox_k(θ_g), where the mean of the f_k's Moreau envelopes is least: not the minimiser of F."""

    def residual(unknown: np.ndarray) -> np.ndarray:
        *ends, theta = unknown.reshape(K + 1, DIM)
        parts = [losses_gradient(r, end) / len(r) + rho * (end - theta) for r, end in zip(ROWS, ends, strict=True)]
        return np.concatenate([*parts, SHARES @ np.array(ends) - theta])

    method = FedProx(rho=rho)
    biased = zero(residual, (K + 1) * DIM)[-DIM:]
    state = solve(method, federation("logistic", epochs=round(8 / rho) + 10, lr=1.6), 75)
    np.testing.assert_allclose(method.mean(state).numpy(), biased, rtol=0, atol=1e-9)
    assert np.linalg.norm(biased - pooled("logistic")) > 0.02


# ---- duals -----------------------------------------------------------------------------------------------------------

# method, step size, local steps, prior precision, the client's tensor and what it is over ∇Σℓ of the client's points
POINTS: dict[str, tuple[NetworkMethod, float, int, float, str, Callable[[int], float]]] = {
    "fedadmm": (FedADMM(rho=0.4), 1.4, 12, 0.0, "dual", lambda n: -K / N),
    "feddyn": (FedDyn(rho=0.4), 1.4, 12, 0.0, "gradient", lambda n: K / N),
    "scaffold": (Scaffold(), 1.2, 5, 0.0, "control", lambda n: 1 / n),
    "fedlap": (FedLap(precision=5.0, damping=0.5), 1.0, 20, 5.0, "dual_precision_mean", lambda n: 1.0),
}


@pytest.mark.parametrize("name", POINTS)
def test_duals_end_at_the_clients_gradients(name: str) -> None:
    """y_k = −w_k∇f_k (FedADMM), g_k = w_k∇f_k (FedDyn), c_k = ∇f_k (SCAFFOLD), η_k = ∇ℓ_k (FedLap), at the solution."""
    method, lr, steps, precision, tensor, factor = POINTS[name]
    state = solve(method, federation("logistic", epochs=steps, lr=lr), 100)
    solution = pooled("logistic", precision)
    np.testing.assert_allclose(method.mean(state).numpy(), solution, rtol=0, atol=1e-9)
    for client, rows in enumerate(ROWS):
        expected = factor(len(rows)) * losses_gradient(rows, solution)
        np.testing.assert_allclose(state.clients[tensor][client].numpy(), expected, rtol=0, atol=1e-7)


def test_fedlap_cov_ends_at_the_laplace_approximation() -> None:
    """Mean the mode, precision δ + Σ_k diag G_k there, η_k = (∇ℓ_k − G_k θ, −G_k)."""
    method = FedLapCov(precision=4.0, damping=0.5)
    state = solve(method, federation("softmax", epochs=40, lr=0.5), 60)
    mode = pooled("logistic", 4.0)
    np.testing.assert_allclose(method.mean(state).numpy(), mode, rtol=0, atol=1e-9)
    whole = 4.0 + curvature(np.arange(N), mode)
    np.testing.assert_allclose(state.server["precision"].numpy(), whole, rtol=1e-9)
    for client, rows in enumerate(ROWS):
        g, h = losses_gradient(rows, mode), curvature(rows, mode)
        for name, expected in zip(DUALS, (g - h * mode, -h), strict=True):
            np.testing.assert_allclose(state.clients[name][client].numpy(), expected, rtol=0, atol=1e-7)


# ---- variational methods ---------------------------------------------------------------------------------------------


def spheres() -> np.ndarray:
    """(24, 3): icosahedra of radii √(3 ± √6); averages of polynomials of degree 5 are the normal law's expectations."""
    golden = (1 + np.sqrt(5)) / 2
    third = np.array([(0, a, b * golden) for a in (1, -1) for b in (1, -1)]) / np.sqrt(1 + golden**2)
    corners = np.concatenate([np.roll(third, shift, axis=1) for shift in range(3)])
    return np.concatenate([corners * np.sqrt(3 + sign * np.sqrt(6)) for sign in (1, -1)])


RULE = spheres()
PRIOR, TEMPERATURE = 1.0, 8.0
# local steps, step size, rounds, and how near the mean has to come; the precision: ten times that, relative
VARIATIONAL: dict[str, tuple[GaussianMethod, int, float, int, float]] = {
    "pvi": (
        PVI(precision=PRIOR, damping=0.5, samples=len(RULE), initial_sd=0.7, temperature=TEMPERATURE),
        *(8, 0.5, 30, 1e-8),
    ),
    "bregman_admm": (
        BregmanADMM(precision=PRIOR, rho=1.0, samples=len(RULE), initial_sd=0.7, temperature=TEMPERATURE),
        *(8, 0.5, 75, 1e-6),
    ),
    "ivon_admm": (
        IvonADMM(
            precision=PRIOR,
            rho=0.5,
            samples=len(RULE),
            clip=float("inf"),
            temperature=TEMPERATURE,
            hess_init=0.1,
            beta1=0.0,
            beta2=0.8,
        ),
        *(12, 0.6, 40, 1e-7),
    ),
}


def expectations(rows: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rule's E_q[∇Σℓ]/τ and diagonal of E_q[∇²Σℓ]/τ, the latter as E_q[∇Σℓ ε]/σ (Stein)."""
    gradients = losses_gradient(rows, mean + RULE / np.sqrt(precision)) / TEMPERATURE
    return gradients.mean(axis=0), (gradients * RULE).mean(axis=0) * np.sqrt(precision)


def integrals(mean: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of all points to 12 digits: z_i is normal, so that each is a one-dimensional Gauss–Hermite sum."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    p = expit((X @ mean)[:, None] + np.sqrt(X**2 @ (1 / precision))[:, None] * nodes)
    expected, slope = (values @ weights / weights.sum() for values in (p, p * (1 - p)))
    return (expected - LABELS) @ X / TEMPERATURE, slope @ X**2 / TEMPERATURE


def stationary(
    expected: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """(m, S) with λ = λ_0 − Σ_k ∇_μ L_k, that is S = δ + E[∇²ℓ], S m = E[∇²ℓ] m − E[∇ℓ], all over τ."""

    def residual(unknown: np.ndarray) -> np.ndarray:
        mean, precision = unknown[:DIM], np.exp(unknown[DIM:])
        g, h = expected(mean, precision)
        return np.concatenate([precision * mean - h * mean + g, precision - PRIOR - h])

    found = zero(residual, 2 * DIM)
    return found[:DIM], np.exp(found[DIM:])


@pytest.mark.parametrize("name", VARIATIONAL)
def test_variational_methods_reach_the_mean_field_solution(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """λ_g = λ_0 − Σ_k η_k and η_k = ∇_μ L_k: with the clients' samples from a rule, exact for that rule.

    The exact integrals' solution is 0.003 (mean) and 1% (precision) away, the posterior's mode 0.06.
    """
    replace_normals(monkeypatch, torch.tensor(RULE))
    method, steps, lr, rounds, tolerance = VARIATIONAL[name]
    state = solve(method, federation("logistic", epochs=steps, lr=lr), rounds)
    mean, precision = method.mean(state).numpy(), state.server["precision"].numpy()
    goal, spread = stationary(lambda m, s: expectations(np.arange(N), m, s))
    np.testing.assert_allclose(mean, goal, rtol=0, atol=tolerance)
    np.testing.assert_allclose(precision, spread, rtol=10 * tolerance)
    for client, rows in enumerate(ROWS):
        g, h = expectations(rows, goal, spread)
        for dual, expected in zip(DUALS, (g - h * goal, -h), strict=True):
            np.testing.assert_allclose(state.clients[dual][client].numpy(), expected, rtol=0, atol=100 * tolerance)
    exact, exact_spread = stationary(integrals)
    np.testing.assert_allclose(mean, exact, rtol=0, atol=4e-3)
    np.testing.assert_allclose(precision, exact_spread, rtol=1.2e-2)
    assert np.abs(exact - pooled("logistic", PRIOR * TEMPERATURE)).max() > 0.05
