"""The suite's problems are what they say, and their central solutions stationary by automatic differentiation too."""

from collections import Counter
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from badmm import Gaussian
from badmm.families.registry import bind
from benchmarks.rounds import cell, document, span
from validation.oracles.central import FAMILIES, anderson, central, distance, sigmoid_expectations, solve_central
from validation.problems import SuiteProblem, problem, problems, split_sizes, split_sorted, stress_problems
from validation.runs.rounds import DELTA, DELTA_VARIANTS, VARIANTS, SuiteOutcome

SMALL = ("logistic/cancer/tiny-30", "logistic/separable/feature-10", "poisson/situps/sorted-5", "softmax/wine/label-10")


def test_there_are_enough_problems_of_every_kind() -> None:
    names = [p.name for p in (*problems(), *stress_problems())]
    assert len(set(names)) == len(names)
    assert len(problems()) >= 23
    kinds = Counter(p.kind for p in problems())
    assert kinds["logistic"] >= 12
    assert min(kinds["poisson"], kinds["softmax"]) >= 5
    assert {p.num_clients for p in problems()} >= {5, 10, 20, 50}


@pytest.mark.parametrize("case", [pytest.param(p, id=p.name) for p in (*problems(), *stress_problems())])
def test_clients_hold_what_the_problem_says(case: SuiteProblem) -> None:
    clients = case.clients()
    assert len(clients) == case.num_clients
    assert all(client.dim == case.dim for client in clients)
    assert min(len(y) for y in case.y) >= 1
    for family in FAMILIES:
        prior = case.prior(family)
        assert prior.dim == case.dim
        # it has the family's own structure: binding it leaves it as it is
        bound = bind(family, prior).prior
        assert isinstance(bound, Gaussian) and np.shape(prior.precision) == np.shape(bound.precision)
    if case.kind == "softmax":
        assert max(y.max() for y in case.y) < case.num_classes


def test_hostile_problems_are_hostile() -> None:
    one_class = problem("logistic/cancer/one-class-12")
    assert sum(len(set(y.tolist())) == 1 for y in one_class.y) >= 11
    assert max(len(y) for y in problem("logistic/cancer/tiny-30").y) <= 5
    sizes = [len(y) for y in problem("logistic/cancer/uneven-8").y]
    assert max(sizes) >= 300 * min(sizes)
    X, y = problem("logistic/separable/feature-10").pooled()
    direction = X @ np.array([-0.5, 3.0, -2.0, 1.0, 2.0, 1.0])
    assert np.array_equal(direction > 0, y == 1)


def test_splits() -> None:
    y = np.array([1, 0, 1, 0, 0])
    assert [part.tolist() for part in split_sorted(y, 2)] == [[1, 3, 4], [0, 2]]
    parts = split_sizes(9, (4, 1, 3), seed=1)
    assert [len(part) for part in parts] == [4, 1, 3]
    assert len(set(np.concatenate(parts).tolist())) == 8
    with pytest.raises(ValueError, match=r"sizes: expected a sum of at most the number of rows 9, got 10"):
        split_sizes(9, (5, 5), seed=1)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"name: expected one of the names of problems.*, got 'iris'"):
        problem("iris")
    with pytest.raises(ValueError, match=r"family: expected one of .*, got 'gamma'"):
        solve_central(problems()[0], "gamma")


@pytest.mark.parametrize("sd", [1e-6, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("center", [0.0, -2.5, 40.0])
def test_quadrature_agrees_with_mpmath(center: float, sd: float) -> None:
    def expected(f: Any) -> float:
        points = [-12.0, -6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0, 12.0]
        # the sigmoid is steep where a = 0
        points = sorted({*points, *(z for z in ((-center + s) / sd for s in (-20, -3, 3, 20)) if -12 < z < 12)})
        return float(mpmath.quad(lambda z: f(center + sd * z) * mpmath.npdf(z), points))

    first, second = sigmoid_expectations(np.array([center]), np.array([sd**2]))
    assert first[0] == pytest.approx(expected(lambda a: 1 / (1 + mpmath.exp(-a))), rel=1e-13, abs=1e-14)
    slope = expected(lambda a: mpmath.exp(-abs(a)) / (1 + mpmath.exp(-abs(a))) ** 2)
    assert second[0] == pytest.approx(slope, rel=1e-12, abs=1e-14)


def expected_loss(case: SuiteProblem, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """E[ℓ] of the pooled data, the logistic loss by a trapezoid over 2001 nodes."""
    X, y = (torch.from_numpy(np.asarray(part, dtype=float)) for part in case.pooled())
    center = X @ mean
    if case.kind == "poisson":
        return torch.sum(torch.exp(center + variance / 2) - y * center)
    z = torch.linspace(-12, 12, 2001, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    a = center[:, None] + torch.sqrt(variance)[:, None] * z
    return torch.sum(torch.logaddexp(torch.zeros_like(a), a) @ weight - y * center)


@pytest.mark.parametrize("family", ["diagonal_gaussian", "full_gaussian"])
@pytest.mark.parametrize("name", [name for name in SMALL if not name.startswith("softmax")])
def test_objective_has_no_slope_at_the_solution(name: str, family: str) -> None:
    """∇ of E[ℓ] + KL in (m, log diagonal and rest of the covariance's factor), which needs no Bonnet and no Price."""
    case, solution = problem(name), central(name, family)
    s0 = case.prior_precision
    X = torch.from_numpy(case.pooled()[0])
    full = family == "full_gaussian"
    covariance = np.linalg.inv(solution.precision) if full else np.diag(1 / solution.precision)
    factor = np.linalg.cholesky(covariance)
    mean = torch.tensor(solution.mean, requires_grad=True)
    logs = torch.tensor(np.log(np.diag(factor)), requires_grad=True)
    below = torch.tensor(np.tril(factor, -1), requires_grad=full)
    L = torch.tril(below, -1) + torch.diag(torch.exp(logs))
    kl = 0.5 * (s0 * (torch.sum(L**2) + mean @ mean)) - torch.sum(logs)
    objective = expected_loss(case, mean, torch.sum((X @ L) ** 2, dim=1)) + kl
    gradients = torch.autograd.grad(objective, [mean, logs, below] if full else [mean, logs])
    scales = [factor.max(), 1.0, factor.max()]
    for gradient, scale in zip(gradients, scales, strict=False):
        assert float(torch.max(torch.abs(gradient))) * scale <= 1e-10


def test_softmax_solution_is_the_mode_with_the_hessian_there() -> None:
    case = problem("softmax/wine/label-10")
    X, y = (torch.from_numpy(part) for part in case.pooled())
    solution = central(case.name, "full_gaussian")

    def loss(theta: torch.Tensor) -> torch.Tensor:
        logits = X @ theta.reshape(-1, case.num_classes)
        prior = 0.5 * case.prior_precision * theta @ theta
        return torch.nn.functional.cross_entropy(logits, y, reduction="sum") + prior

    mode = torch.tensor(solution.mean, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(mode), mode)
    assert float(torch.max(torch.abs(slope))) <= 1e-11
    hessian = torch.autograd.functional.hessian(loss, mode.detach()).numpy()
    np.testing.assert_allclose(solution.precision, hessian, rtol=1e-10, atol=1e-11)
    diagonal = central(case.name, "diagonal_gaussian")
    np.testing.assert_allclose(diagonal.precision, np.diag(hessian), rtol=1e-10)
    np.testing.assert_allclose(diagonal.mean, solution.mean, rtol=1e-10, atol=1e-12)


def test_distance_is_the_largest_relative_difference() -> None:
    solution = central(SMALL[2], "diagonal_gaussian")
    assert distance(solution.natural, solution) == 0
    product, precision = solution.natural
    assert distance((product * 1.01, precision * 0.98), solution) == pytest.approx(0.02)


def test_anderson_finds_a_fixed_point_and_says_when_it_does_not() -> None:
    root, steps = anderson(lambda x: np.cos(x), np.ones(1), 1e-12)
    assert root[0] == pytest.approx(0.7390851332151607, abs=1e-12)
    assert steps < 15
    with pytest.raises(RuntimeError, match="was not reached"):
        anderson(lambda x: x + 1.0, np.ones(1), 1e-12)


def test_the_document_shows_losses_and_violations() -> None:
    lost = SuiteOutcome("p", "full_gaussian", "v", (None, None), (3.0,), -0.1, "client 2 lost in round 2")
    assert cell(lost) == "client 2 lost in round 2 †"
    assert cell(SuiteOutcome("p", "full_gaussian", "v", (3, None), (3.0,), 0.5)) == "3 / –"
    assert span([3, None, 7]) == "2 in 3–7"
    assert span([None]) == "0"
    case = problems()[0]
    outcomes = [SuiteOutcome(case.name, "isotropic_gaussian", "classic ADMM", (5, 9), penalties=(1.0, 2.0))]
    for family in ("full_gaussian", "diagonal_gaussian"):
        outcomes += [SuiteOutcome(case.name, family, v.title, (4, 8), (1.0,), 0.5) for v in VARIANTS]
    outcomes += [SuiteOutcome(case.name, DELTA, v.title, (5, 6), (1.0,), 0.5) for v in DELTA_VARIANTS]
    page = document([case], [], outcomes)
    assert f"| {case.name} | 4 / 8 |" in page
    assert "| 5 / 9 | 1 / 2 |" in page
    assert "averaged over the posterior): 1 of 1 problems." in page
    assert "in at most 25 rounds, the existence condition never violated: 1 of 1 problems" in page
