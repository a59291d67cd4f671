"""Clients whose loss is taken at the mean: gradients lead there, and a curvature is evaluated where one is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from badmm import Gaussian, solve
from badmm.checks import Array
from badmm.clients.at_mean import MeanSearch
from badmm.clients.problem import BoundClient, ClientProblem
from badmm.clients.tolerance import Tolerance
from badmm.families.registry import bind
from badmm.likelihoods import LogisticRegression, PoissonRegression, SoftmaxRegression, StudentTRegression

RNG = np.random.default_rng(9)
N, D, K = 400, 5, 4
X = RNG.normal(size=(N, D))
LOGITS = X @ RNG.normal(size=D) / 2
LABELS, COUNTS = RNG.random(N) < 1 / (1 + np.exp(-LOGITS)), RNG.poisson(np.exp(LOGITS))
CLASSES = RNG.integers(0, 3, size=N)
LOSSES: dict[str, Any] = {
    "logistic": lambda rows: LogisticRegression(X[rows], LABELS[rows]),
    "poisson": lambda rows: PoissonRegression(X[rows], COUNTS[rows]),
    "softmax": lambda rows: SoftmaxRegression(X[rows], CLASSES[rows], 3),
}
FAMILIES = ("isotropic_gaussian", "diagonal_gaussian", "full_gaussian")


class Counted:
    """A likelihood, and how often each of its derivatives was asked for."""

    at_mean = True

    def __init__(self, of: Any) -> None:
        self.of, self.dim = of.configured("delta"), of.dim
        self.gradients = self.curvatures = 0

    def gradient(self, q: Gaussian) -> tuple[float, Array]:
        self.gradients += 1
        found: tuple[float, Array] = self.of.gradient(q)
        return found

    def expectations(self, q: Gaussian) -> Any:
        self.curvatures += 1
        return self.of.expectations(q)

    def curvature(self, q: Gaussian) -> Any:
        self.curvatures += 1
        return self.of.curvature(q)


class Ungraded(Counted):
    """One that gives all derivatives or none."""

    gradient = None  # type: ignore[assignment]


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_alone_is_that_of_all_derivatives(name: str) -> None:
    client = LOSSES[name](slice(None)).configured("delta")
    q = Gaussian(RNG.normal(size=client.dim) / 3, 1.0)
    loss, gradient = client.gradient(q)
    wanted, slope, _ = client.expectations(q)
    assert loss == wanted and np.array_equal(gradient, slope)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_minimises_the_client_s_objective_and_the_precision_has_the_curvature_there(
    name: str, family: str
) -> None:
    """argmin ℓ(m)/ρ + ½ (m − m_c)ᵀ S_c (m − m_c) by another minimiser."""
    client, rho = LOSSES[name](slice(0, 80)).configured("delta"), 0.7
    server = bind(family, Gaussian(np.full(client.dim, 0.1), 2.0))
    xi = RNG.normal(size=client.dim)
    dual = tuple(
        xi if slot.ndim == 1 and i == 0 else np.zeros_like(slot) for i, slot in enumerate(server.prior_natural)
    )
    problem = ClientProblem(BoundClient(0, client, server, 1.0), server.prior_natural, dual, rho)
    found = MeanSearch(problem, Tolerance(1e-11), problem.bound.slope(server.prior_natural, server.prior)).run()
    assert found is not None and found.residual <= 1e-11 and not found.early

    def objective(m: Array) -> tuple[float, Array]:
        loss, gradient = client.gradient(Gaussian(m, 1.0))
        center = 0.1 + xi / rho / 2.0
        return loss + rho * float(np.sum((m - center) ** 2)), gradient + 2 * rho * (m - center)

    mode = minimize(objective, np.zeros(client.dim), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    q = server.posterior(found.natural)
    assert isinstance(q, Gaussian)
    np.testing.assert_allclose(q.mean, mode, atol=1e-7)
    wanted = 2.0 * np.eye(client.dim) + client.curvature(q)[2] / rho
    if family == "full_gaussian":
        np.testing.assert_allclose(q.precision, wanted, rtol=1e-9, atol=1e-9)
    elif family == "diagonal_gaussian":
        np.testing.assert_allclose(q.precision, np.diag(wanted), rtol=1e-9)


def test_near_the_fixed_point_a_round_asks_for_one_curvature_of_each_client() -> None:
    """As federated Newton does; the rest of the search are gradients. Who has none gives all derivatives instead."""
    results, told = {}, {}
    for kind in (Counted, Ungraded):
        clients = [kind(LOSSES["logistic"](slice(k * N // K, (k + 1) * N // K))) for k in range(K)]
        counts: list[tuple[int, int]] = []

        def watch(state: Any, clients: Any = clients, counts: Any = counts) -> None:
            counts.append((sum(c.curvatures for c in clients), sum(c.gradients for c in clients)))

        prior = Gaussian(np.zeros(D), 1.0)
        results[kind] = solve(clients, family="full_gaussian", prior=prior, tol=1e-9, callbacks=[watch])
        told[kind] = counts
    near = np.diff([curvatures for curvatures, _ in told[Counted]])
    assert results[Counted].converged and near.max() <= 2 * K and near[-2:].tolist() == [K, K]
    assert told[Ungraded][-1][1] == 0 and told[Ungraded][-1][0] > told[Counted][-1][0]
    ours, theirs = (results[kind].posterior for kind in (Counted, Ungraded))
    assert isinstance(ours, Gaussian) and isinstance(theirs, Gaussian)
    np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-8)
    np.testing.assert_allclose(ours.precision, theirs.precision, rtol=1e-7)


def test_a_loss_that_is_not_convex_at_the_start_is_left_to_the_other_searches() -> None:
    """No Newton step leads down from there, and the solution is found all the same."""
    client = StudentTRegression(np.ones((30, 1)), RNG.normal(size=30), 0.05, 1.5).configured("delta")
    server = bind("full_gaussian", Gaussian(np.full(1, 6.0), 1e-3))
    problem = ClientProblem(BoundClient(0, client, server, 1.0), server.prior_natural, server.prior_natural, 1.0)
    assert MeanSearch(problem, Tolerance(1e-9), problem.bound.slope(server.prior_natural, server.prior)).run() is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.zeros(D), r"gradient: expected \(loss, gradient\), got ndarray"),
        ((0.0, np.zeros(D - 1)), r"gradient: expected_gradient: expected shape \(5,\), got \(4,\)"),
        ((np.nan, np.zeros(D)), "gradient: expected_loss: expected finite values, got nan"),
    ],
)
def test_a_wrong_gradient_is_named(answer: Any, message: str) -> None:
    client = Counted(LOSSES["logistic"](slice(None)))
    client.gradient = lambda q: answer  # type: ignore[method-assign]
    server = bind("full_gaussian", Gaussian(np.zeros(D), 1.0))
    with pytest.raises(Exception, match=message):
        BoundClient(0, client, server, 1.0).slope(server.prior_natural, server.prior)
