"""The one-round theorem in whole runs of `badmm.solve` with losses linear in μ, from the prior and from other starts.

With G_k = ∇L_k constant, e = λ_g − λ*, λ* = λ_0 − Σ G_k, and D = Σ (η_k − G_k), a round at α = 1/(1 + ρK) gives

    λ_k⁺ = λ_g + (η_k − G_k)/ρ      η_k⁺ = (1 − γ) η_k + γ G_k      e⁺ = (1 − α) e + αγ D      D⁺ = (1 − γ) D

and from e = −D (the prior with zero duals) e⁺ = (ρK − γ)/(ρK + 1) Σ (G_k − η_k), which is zero at γ = 1 iff ρ = 1/K.
At α = γ = 1 e⁺ = 0 from every start and at every ρ.

Backward error of a Gaussian (m, S) against ξ* = ξ_0 + Σ b_k and S* = S_0 + Σ H_k, which are summed here in extended
precision: the largest of ‖S* m − ξ*‖/(‖S*‖‖m‖ + ‖ξ*‖) in 2-norms, ‖S − S*‖_F/‖S*‖_F and ‖ξ − ξ*‖/(‖S*‖‖m‖ + ‖ξ*‖).
Of another family: the largest relative error of the natural parameters and of the posterior's.
Distances between natural parameters are relative 2-norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import badmm
from badmm.families import registry

from ..check import Check, check
from ..oracles import lookup

Array = NDArray[np.float64]
Slots = tuple[Array, ...]
GROUP = "one round"
CONJUGATE = tuple(name for name in registry.names() if not registry.takes_expectations(name))
FAMILIES = ("full_gaussian", *CONJUGATE)  # whose rounds these checks follow
TOLERANCE = 1e-12
COUNT = 100
"""Random quadratics. What could fail depends on K, d, the condition number and the rank of the clients' Hessians: every
decade of each occurs in dozens of them, and the corners are among the first four."""
SETTINGS = ((0.5, 1.0), (2.0, 1.0), (7.0, 1.0), (1.0, 0.4), (3.0, 0.7))
"""(ρK, γ) other than the exact (1, 1)."""


@dataclass(frozen=True)
class LinearProblem:
    """Clients with natural gradients G_k (slots (K, ...)) that do not depend on q, and a prior with slots λ_0."""

    family: str
    clients: list[Any]
    prior: Any
    prior_natural: Slots
    gradients: Slots

    @property
    def num_clients(self) -> int:
        """K."""
        return len(self.clients)

    @property
    def solution(self) -> Slots:
        """λ* = λ_0 − Σ G_k, summed in extended precision."""
        pairs = zip(self.prior_natural, self.gradients, strict=True)
        return tuple(
            np.asarray(zero.astype(np.longdouble) - slot.astype(np.longdouble).sum(axis=0), dtype=np.float64)
            for zero, slot in pairs
        )

    def solve(self, **settings: Any) -> Any:
        """Run `badmm.solve` with `tol=0`, so that it does not stop before the last round."""
        return badmm.solve(self.clients, family=self.family, prior=self.prior, **{"tol": 0.0, **settings})


def quadratic_problem(seed: int) -> LinearProblem:
    """Return random quadratics: K in 1..50, d in 1..200 (mostly small), condition number of S* from 1 to 1e7.

    Client k has a linear term and the Hessian X_kᵀX_k, which is rank-deficient if X_k has fewer rows than columns.
    Seeds 0 to 3 take the corners (K, d) = (50, 200), (1, 200), (50, 1), (1, 1).
    """
    rng = np.random.default_rng([20260, seed])
    corners = {0: (50, 200), 1: (1, 200), 2: (50, 1), 3: (1, 1)}
    drawn = int(rng.integers(1, 51)), round(float(200 ** rng.uniform() ** 1.3))
    num_clients, dim = corners.get(seed, drawn)
    condition = 1e7 if seed in corners else 10 ** rng.uniform(0.1, 7)
    scales = np.sqrt(condition ** -np.linspace(0, 1, dim))
    basis = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    hessians, linear = [], []
    for _ in range(num_clients):
        rows = int(rng.integers(1, 2 * dim + 2))
        X = (rng.normal(size=(rows, dim)) * scales) @ basis.T
        H = X.T @ X / rows
        hessians.append(0.5 * (H + H.T))
        linear.append(X.T @ rng.normal(2.0, 1.0, size=rows) / rows)
    values = np.linalg.eigvalsh(np.sum(hessians, axis=0))
    # the prior precision that gives S* this condition number, unless the data alone are better conditioned
    wanted = (values[-1] - condition * values[0]) / (condition - 1.0)
    precision = np.eye(dim) * max(wanted, 1e-3 * values[-1] / condition)
    mean = rng.normal(size=dim)
    return gaussian_problem(hessians, linear, mean, precision)


def gaussian_problem(
    hessians: Sequence[Array], linear: Sequence[Array], mean: Array, precision: Array
) -> LinearProblem:
    """Clients ½ θᵀH_kθ − b_kᵀθ under a full Gaussian: G_k = (−b_k, −H_k)."""
    clients = [badmm.likelihoods.Quadratic(H, b) for H, b in zip(hessians, linear, strict=True)]
    gradients = (-np.array(linear), -np.array(hessians))
    prior = badmm.Gaussian(mean, precision)
    return LinearProblem("full_gaussian", clients, prior, (precision @ mean, precision), gradients)


def diabetes_problem() -> LinearProblem:
    """Return the demo's linear regression: least squares on real data, ten clients with uneven shares of the target."""
    from badmm.demo.problems import make

    demo = make("diabetes", seed=0)
    assert demo.noise_variance is not None
    dim, noise = demo.train_X.shape[1], demo.noise_variance
    gradients = (
        -np.array([c.X.T @ c.y / noise for c in demo.clients]),
        -np.array([c.X.T @ c.X / noise for c in demo.clients]),
    )
    precision = demo.prior_precision * np.eye(dim)
    prior = badmm.Gaussian(np.zeros(dim), precision)
    return LinearProblem("full_gaussian", demo.clients, prior, (np.zeros(dim), precision), gradients)


def gamma_problem(kind: str, seed: int) -> LinearProblem:
    """Return conjugate clients with up to 19 rates: counts with exposures ("counts") or waiting times ("intervals")."""
    rng = np.random.default_rng([77, seed])
    size, num_clients = int(rng.integers(1, 20)), int(rng.integers(1, 51))
    rate = rng.gamma(2.0, 2.0, size=size)
    clients: list[Any] = []
    shapes, rates = np.empty((num_clients, size)), np.empty((num_clients, size))
    for k in range(num_clients):
        rows = int(rng.integers(1, 30))
        if kind == "counts":
            exposure = rng.uniform(0.1, 10.0, size=(rows, size))
            counts = rng.poisson(rate * exposure)
            clients.append(badmm.likelihoods.PoissonRate(counts, exposure))
            shapes[k], rates[k] = counts.sum(axis=0), exposure.sum(axis=0)
        else:
            intervals = rng.exponential(1 / rate, size=(rows, size))
            clients.append(badmm.likelihoods.ExponentialRate(intervals))
            shapes[k], rates[k] = rows, intervals.sum(axis=0)
    prior = rng.uniform(0.1, 5.0, size=size), rng.uniform(0.1, 5.0, size=size)
    return LinearProblem("gamma", clients, badmm.Gamma(*prior), prior, (-shapes, -rates))


def regression_problem(seed: int = 0) -> LinearProblem:
    """Return weighted least squares with an offset and unknown noise, under a Gaussian-gamma: G_k by its own sums."""
    rng = np.random.default_rng([79, seed])
    dim, num_clients = int(rng.integers(1, 9)), int(rng.integers(2, 20))
    clients: list[Any] = []
    gradients: list[list[Any]] = [[], [], [], []]
    for _ in range(num_clients):
        rows = int(rng.integers(1, 30))
        X, y = rng.normal(size=(rows, dim)), rng.normal(size=rows)
        weights, offset = rng.uniform(0.1, 3.0, rows), rng.normal(size=rows)
        clients.append(badmm.likelihoods.GaussianRegression(X, y, weights, offset))
        root = np.sqrt(weights)
        A, b = X * root[:, None], (y - offset) * root
        own = (-A.T @ b, -A.T @ A, np.array([-0.5 * weights.sum()]), np.array([-0.5 * b @ b]))
        for slots, slot in zip(gradients, own, strict=True):
            slots.append(slot)
    factor, mean = rng.normal(size=(dim, dim)), rng.normal(size=dim)
    precision, shape, rate = np.eye(dim) + factor @ factor.T, float(rng.uniform(0.5, 5.0)), float(rng.uniform(0.1, 5.0))
    natural = (precision @ mean, precision, np.array([shape]), np.array([rate + 0.5 * mean @ precision @ mean]))
    prior = badmm.GaussianGamma(mean, precision, shape, rate)
    return LinearProblem("gaussian_gamma", clients, prior, natural, tuple(np.array(slots) for slots in gradients))


def conjugate_problem(family: str, seed: int = 0) -> LinearProblem:
    """Return clients with losses linear in the statistics of a family, and a prior.

    A family without kernels of its own has a function of this module in `STRUCTURES`.
    """
    if family in STRUCTURES:
        return STRUCTURES[family](seed)
    rng, oracle = np.random.default_rng([78, seed]), lookup.family(family)
    size, num_clients = int(rng.integers(1, 20)), int(rng.integers(2, 20))
    kind: Any = registry.distribution(family)
    standard = kind.ns.standard_from_natural(*oracle.prior(rng, size), **oracle.fixed)
    prior = kind(**dict(zip(kind.ns.STANDARD, standard, strict=True)), **oracle.fixed)
    gradients = oracle.gradients(rng, size, num_clients)
    clients = [
        badmm.likelihoods.ConjugateLoss(
            {name: slot[k] * factor for (name, factor), slot in zip(kind.ns.STATISTICS, gradients, strict=True)}
        )
        for k in range(num_clients)
    ]
    return LinearProblem(family, clients, prior, prior.natural, gradients)


STRUCTURES: dict[str, Callable[[int], LinearProblem]] = {"gaussian_gamma": regression_problem}
"""The problems of families that compose other families' kernels, which have no oracle of kernels."""


def backward_error(problem: LinearProblem, result: Any) -> float:
    """Return the backward error, defined in the module's docstring, of a result's posterior and natural parameters."""
    target = problem.solution
    if problem.family in STRUCTURES:
        family = registry.bind(problem.family, problem.prior)
        return max(_relative(got, target, target) for got in (family.natural(result.posterior), result.natural))
    if problem.family != "full_gaussian":
        return max(_relative(got, target, target) for got in (result.posterior.natural, result.natural))
    mean, precision = result.posterior.mean, result.posterior.precision
    size = np.linalg.norm(target[1], 2) * np.linalg.norm(mean) + np.linalg.norm(target[0])
    return float(
        max(
            np.linalg.norm(target[1] @ mean - target[0]) / size,
            np.linalg.norm(precision - target[1]) / np.linalg.norm(target[1]),
            np.linalg.norm(result.natural[0] - target[0]) / size,
        )
    )


def exact_settings(num_clients: int) -> dict[str, dict[str, float]]:
    """Return two settings that are exact in one round: the defaults, and the step sizes of the theorem."""
    rho = 1.0 / num_clients
    return {
        "defaults": {},
        "rho = 1/K, gamma = 1": {"rho": rho, "alpha": 1.0 / (1.0 + rho * num_clients), "damping": 1.0},
    }


def _one_round(problems: Sequence[LinearProblem], name: str) -> Iterator[Check]:
    family = problems[0].family
    for label in exact_settings(1):
        errors = [backward_error(p, p.solve(rounds=1, **exact_settings(p.num_clients)[label])) for p in problems]
        detail = f"backward error after one round from the prior, {len(problems)} problem(s)"
        yield check(f"{name}, {label}", GROUP, family, "float64", max(errors), TOLERANCE, detail, samples=errors)


def one_round_checks(count: int = COUNT) -> Iterator[Check]:
    """One round from the prior: random quadratics, least squares, a problem of every conjugate family, gamma models."""
    yield from _one_round([quadratic_problem(seed) for seed in range(count)], "random quadratics")
    yield from _one_round([diabetes_problem()], "diabetes, least squares")
    yield from conjugate_checks(CONJUGATE)
    for kind in ("counts", "intervals"):
        yield from _one_round([gamma_problem(kind, seed) for seed in range(10)], f"conjugate {kind}")


def small_problems() -> list[LinearProblem]:
    """Return a quadratic, least squares and a gamma model, for the checks of every round."""
    return [quadratic_problem(17), diabetes_problem(), gamma_problem("counts", 3)]


def _relative(got: Slots, want: Slots, scale: Slots) -> float:
    sizes = zip(got, want, scale, strict=True)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(s)) for a, b, s in sizes)


def recursion_error(problem: LinearProblem, rho: float, damping: float, rounds: int = 5) -> tuple[float, float, float]:
    """Return the largest distances of server, duals and clients from the closed form over the rounds.

    They are relative to ‖Σ G_k‖ (the server's first error), to the norm of all G_k = η_k, and to the clients' norm.
    """
    K = problem.num_clients
    alpha = 1.0 / (1.0 + rho * K)
    states: list[Any] = []
    problem.solve(rho=rho, alpha=alpha, damping=damping, rounds=rounds, callbacks=[states.append])
    total = tuple(slot.sum(axis=0) for slot in problem.gradients)
    worst = [0.0, 0.0, 0.0]
    server = problem.prior_natural
    duals = tuple(np.zeros_like(slot) for slot in problem.gradients)
    for number, state in enumerate(states):
        rest = (1.0 - damping) ** number
        # η_k − G_k = −rest G_k throughout, as it starts at −G_k
        clients = tuple(g - rest * G / rho for g, G in zip(server, problem.gradients, strict=True))
        duals = tuple((1.0 - rest * (1.0 - damping)) * G for G in problem.gradients)
        star = problem.solution
        server = tuple(
            s + (1.0 - alpha) * (g - s) - alpha * damping * rest * G
            for g, s, G in zip(server, star, total, strict=True)
        )
        worst[0] = max(worst[0], _relative(state.natural, server, total))
        worst[1] = max(worst[1], _relative(state.duals, duals, problem.gradients))
        worst[2] = max(worst[2], _relative(state.clients, clients, clients))
    return worst[0], worst[1], worst[2]


def factor_error(problem: LinearProblem, rho: float, damping: float) -> float:
    """Return ‖(λ_g¹ − λ*) − (ρK − γ)/(ρK + 1) Σ G_k‖ / ‖Σ G_k‖ after one round from the prior."""
    K = problem.num_clients
    result = problem.solve(rho=rho, alpha=1.0 / (1.0 + rho * K), damping=damping, rounds=1)
    total = tuple(slot.sum(axis=0) for slot in problem.gradients)
    error = tuple(a - b for a, b in zip(result.natural, problem.solution, strict=True))
    factor = (rho * K - damping) / (rho * K + 1.0)
    return _relative(error, tuple(factor * slot for slot in total), total)


def factor_checks() -> Iterator[Check]:
    """Check the error factor after one round, and server, duals and clients of five rounds, at the `SETTINGS`."""
    for problem in small_problems():
        K = problem.num_clients
        for rho_K, damping in SETTINGS:
            where = f"rho K = {rho_K:g}, gamma = {damping:g}, K = {K}"
            error = factor_error(problem, rho_K / K, damping)
            detail = "relative to the sum of the gradients"
            yield check(f"error factor, {where}", GROUP, problem.family, "float64", error, TOLERANCE, detail)
            errors = recursion_error(problem, rho_K / K, damping)
            for part, value in zip(("server", "duals", "clients"), errors, strict=True):
                detail = "five rounds against the closed form" + (", rate 1 - alpha" if damping == 1 else "")
                yield check(f"{part}, {where}", GROUP, problem.family, "float64", value, TOLERANCE, detail)


def any_start_checks() -> Iterator[Check]:
    """Check that α = γ = 1 is exact in one round from random starts with random duals, at ρ from 0.03 to 30."""
    for problem in small_problems():
        rng = np.random.default_rng(5)
        errors = []
        for rho in (0.03, 0.4, 1.0, 5.0, 30.0):
            start, duals = random_start(problem, rho, rng)
            result = problem.solve(rho=rho, alpha=1.0, damping=1.0, rounds=1, start=start, duals=duals)
            errors.append(backward_error(problem, result))
        detail = "backward error after one round, five values of rho, random starts and duals"
        name = f"alpha = gamma = 1, any start, K = {problem.num_clients}"
        yield check(name, GROUP, problem.family, "float64", max(errors), TOLERANCE, detail, samples=errors)


def random_start(problem: LinearProblem, rho: float, rng: np.random.Generator) -> tuple[Slots, Slots]:
    """Return a random λ_g in the domain with the norm of λ*, and duals that keep ρ λ_g + η − G in the domain."""
    star = problem.solution
    shape = problem.gradients[0].shape
    if problem.family == "gamma":
        start = tuple(slot * rng.uniform(0.2, 3.0, size=slot.shape) for slot in star)
        return start, tuple(0.3 * rho * rng.uniform(-1, 1, size=shape) * slot for slot in start)
    dim = shape[1]
    factor = rng.normal(size=(dim, dim))
    wishart = np.eye(dim) + factor @ factor.T / dim
    size = np.trace(star[1]) / dim
    precision = size * wishart
    # eigenvalues of the start's precision are at least `size`, those of the noise at most a third of that
    noise = rng.normal(size=(shape[0], dim, dim))
    noise = noise + noise.transpose(0, 2, 1)
    noise *= 0.3 * rho * size / np.linalg.norm(noise, 2, axis=(1, 2))[:, None, None]
    linear = np.linalg.norm(star[0]) * rng.normal(size=(shape[0] + 1, dim)) / np.sqrt(dim)
    return (linear[0], precision), (0.3 * rho * linear[1:], noise)


def broken_start() -> tuple[float, float, int]:
    """Start at λ_g = I with λ_0 = 25 I; return observed and predicted ‖λ_g¹ − λ*‖/‖λ*‖, and the rounds to 1e-12.

    At ρ = 1/K and γ = 1 the error after the first round is (1 − α)(λ_g⁰ − λ_0), and each round multiplies it by
    1 − α = ½.
    """
    rng = np.random.default_rng(25)
    num_clients, dim = 10, 6
    factors = rng.normal(size=(num_clients, dim, dim))
    hessians = list(factors @ factors.transpose(0, 2, 1))
    problem = gaussian_problem(hessians, list(rng.normal(size=(num_clients, dim))), np.zeros(dim), 25.0 * np.eye(dim))
    star = problem.solution
    errors: list[float] = []

    def measure(state: Any) -> None:
        errors.append(_relative(state.natural, star, star))

    settings = exact_settings(num_clients)["rho = 1/K, gamma = 1"]
    start = badmm.Gaussian(np.zeros(dim), np.eye(dim))
    problem.solve(rounds=100, start=start, callbacks=[measure], **settings)
    predicted = 0.5 * float(np.linalg.norm(24.0 * np.eye(dim)) / np.linalg.norm(star[1]))
    return errors[0], predicted, 1 + next(i for i, error in enumerate(errors) if error <= TOLERANCE)


def broken_start_check() -> Check:
    """Check that the start outside the theorem's premise is not exact and has the predicted error."""
    observed, predicted, rounds = broken_start()
    value = abs(observed / predicted - 1.0) if rounds > 1 else float("inf")
    detail = f"relative error of the predicted error {predicted:.3g} after one round; {rounds} rounds to 1e-12"
    return check("start off the prior is not exact", GROUP, "full_gaussian", "float64", value, TOLERANCE, detail)


def conjugate_checks(families: Sequence[str]) -> Iterator[Check]:
    """One round from the prior with a problem of each of these families."""
    for family in families:
        yield from _one_round([conjugate_problem(family)], "linear in the statistics")


def checks_of(families: Sequence[str]) -> Iterator[Check]:
    """Yield the checks of some families: all where the longer ones are among them, else one problem of each."""
    if {"full_gaussian", "gamma"}.isdisjoint(families):
        yield from conjugate_checks([name for name in families if name in CONJUGATE])
    else:
        yield from checks()


def checks(count: int = COUNT) -> Iterator[Check]:
    """Yield all checks of the theorem; `count` is the number of random quadratics."""
    yield from one_round_checks(count)
    yield from factor_checks()
    yield from any_start_checks()
    yield broken_start_check()
