"""`badmm.solve`: fixed points, the one-round theorem, special cases, state, determinism, errors."""

import json
from typing import Any

import numpy as np
import pytest

import badmm
from badmm import Gamma, Gaussian, LostClientError, ServerDomainError, SolverState, likelihoods, solve
from badmm.families.registry import bind
from badmm.likelihoods import LogisticRegression, Quadratic

RNG = np.random.default_rng(8)
D, K = 4, 6


def random_quadratics(d: int, count: int, condition: float, seed: int) -> list[Quadratic]:
    rng = np.random.default_rng(seed)
    clients = []
    for _ in range(count):
        basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
        H = basis * np.geomspace(1.0, condition, d) @ basis.T
        clients.append(Quadratic((H + H.T) / 2, rng.normal(size=d)))
    return clients


def logistic_clients(skew: float = 1.0) -> list[LogisticRegression]:
    rng = np.random.default_rng(3)
    theta = np.array([1.0, -2.0, 0.5, 0.0])
    clients = []
    for _ in range(K):
        X = rng.normal(size=(25, D)) + skew * rng.normal(size=D)
        clients.append(LogisticRegression(X, (rng.random(25) < 1 / (1 + np.exp(-X @ theta))).astype(int)))
    return clients


def backward_error(result: badmm.Result, clients: list[Quadratic], prior: Gaussian) -> float:
    """max over slots of ‖λ − λ*‖/Σ‖terms‖, with λ* = λ_0 − Σ G_k."""
    precision = np.broadcast_to(prior.precision, (prior.dim,)) * np.eye(prior.dim)
    xi, S = precision @ prior.mean + sum(c.linear for c in clients), precision + sum(c.hessian for c in clients)
    found = result.natural
    scale = np.linalg.norm(precision @ prior.mean) + sum(np.linalg.norm(c.linear) for c in clients)
    return float(max(np.linalg.norm(found[0] - xi) / scale, np.linalg.norm(found[1] - S) / np.linalg.norm(S)))


@pytest.mark.parametrize(("d", "count", "condition"), [(1, 1, 1.0), (3, 7, 1e2), (20, 50, 1e7), (80, 5, 1e7)])
@pytest.mark.parametrize("settings", ["auto", "theorem", "anything"])
def test_one_round_is_exact_on_quadratics(d: int, count: int, condition: float, settings: str) -> None:
    clients = random_quadratics(d, count, condition, d)
    prior = Gaussian(np.linspace(-1, 1, d), 0.7)
    steps: dict[str, dict[str, Any]] = {
        "auto": {},
        "theorem": {"rho": 1 / count, "alpha": 0.5, "damping": 1.0},
        "anything": {"rho": 3.7, "alpha": 1.0, "damping": 1.0},
    }
    result = solve(clients, family="full_gaussian", prior=prior, rounds=1, **steps[settings])
    assert backward_error(result, clients, prior) <= 1e-12
    posterior = result.posterior
    assert isinstance(posterior, Gaussian)
    linear = prior.precision * prior.mean + sum(c.linear for c in clients)
    residual = (0.7 * np.eye(d) + sum(c.hessian for c in clients)) @ posterior.mean - linear
    scale = np.linalg.norm(posterior.precision, 2) * np.linalg.norm(posterior.mean) + np.linalg.norm(linear)
    assert np.linalg.norm(residual) <= 1e-12 * scale


@pytest.mark.parametrize(("rho", "damping"), [(0.1, 1.0), (1.0, 1.0), (5.0, 1.0), (1 / K, 0.5), (0.4, 0.3)])
def test_error_factor_and_rate_of_the_one_round_theorem(rho: float, damping: float) -> None:
    clients, prior = random_quadratics(D, K, 10.0, 1), Gaussian(np.ones(D), 2.0)
    alpha = 1 / (1 + rho * K)
    states: list[SolverState] = []
    solve(clients, family="full_gaussian", prior=prior, rho=rho, alpha=alpha, damping=damping, rounds=8, tol=0.0,
          callbacks=[states.append])  # fmt: skip
    gradient = (-sum(c.linear for c in clients), -sum(c.hessian for c in clients))
    exact = (2.0 * np.ones(D) - gradient[0], 2.0 * np.eye(D) - gradient[1])
    for slot in range(2):
        first = states[0].natural[slot] - exact[slot]
        assert first == pytest.approx((rho * K - damping) / (rho * K + 1) * gradient[slot], rel=1e-10, abs=1e-11)
        if damping == 1.0:
            for i, state in enumerate(states):
                later = state.natural[slot] - exact[slot]
                assert later == pytest.approx((1 - alpha) ** i * first, rel=1e-8, abs=1e-9)
                for k, client in enumerate(clients):
                    expected = (-client.linear, -client.hessian)[slot]
                    assert state.duals[slot][k] == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("rho", [0.05, 1.0, 20.0])
def test_full_steps_are_exact_from_any_start_and_a_broken_premise_needs_more(rho: float) -> None:
    clients, prior = random_quadratics(D, K, 10.0, 2), Gaussian(np.zeros(D), 25.0)
    start = Gaussian(np.full(D, 3.0), 1.0)
    duals = (RNG.normal(size=(K, D)), 0.01 * np.stack([np.eye(D)] * K))
    exact = solve(clients, family="full_gaussian", prior=prior, rho=rho, alpha=1.0, damping=1.0, rounds=1, start=start,
                  duals=duals)  # fmt: skip
    assert backward_error(exact, clients, prior) <= 1e-12
    paper: dict[str, Any] = {"rho": 1 / K, "alpha": 0.5, "damping": 1.0}
    broken = solve(clients, family="full_gaussian", prior=prior, rounds=1, start=start, **paper)
    assert backward_error(broken, clients, prior) > 1e-2


@pytest.mark.parametrize("settings", [{}, {"rho": 0.5, "alpha": 0.5, "damping": 1.0}, {"method": "pvi"}])
def test_conjugate_gamma_is_exact_in_one_round(settings: dict[str, Any]) -> None:
    clients = [likelihoods.PoissonRate([3, 1], [2.0, 1.0]), likelihoods.ExponentialRate([0.5, 0.7, 0.1])]
    result = solve(clients, family="gamma", prior=Gamma(2.0, 1.5), rounds=1, **settings)
    assert isinstance(result.posterior, Gamma)
    assert result.posterior.shape == pytest.approx([9.0], rel=1e-14)
    assert result.posterior.rate == pytest.approx([1.5 + 3.0 + 1.3], rel=1e-14)


@pytest.mark.parametrize("family", ["isotropic_gaussian", "diagonal_gaussian", "full_gaussian"])
@pytest.mark.parametrize("method", ["bayes_admm", "pvi"])
def test_fixed_point_is_stationary_for_the_pooled_problem(family: str, method: str) -> None:
    clients, prior = logistic_clients(), Gaussian(np.full(D, 0.1), 1.3)
    result = solve(clients, family=family, prior=prior, method=method, rounds=600, tol=1e-10)
    assert result.converged
    q = result.posterior
    assert isinstance(q, Gaussian)
    values = [c.expectations(q) for c in clients]
    gradient = sum(v[1] for v in values) + 1.3 * (q.mean - 0.1)
    assert np.abs(gradient).max() < 1e-7
    if family != "isotropic_gaussian":
        eye = np.eye(D) if family == "full_gaussian" else 1.0
        assert q.precision == pytest.approx(1.3 * eye + sum(v[2] for v in values), rel=1e-8)


def test_temperature_divides_the_losses() -> None:
    clients, prior = logistic_clients(), Gaussian(np.zeros(D), 1.0)
    hot = solve(clients, family="full_gaussian", prior=prior, temperature=0.25, tol=1e-11)
    repeated = [LogisticRegression(np.tile(c.X, (4, 1)), np.tile(c.y, 4)) for c in clients]
    copies = solve(repeated, family="full_gaussian", prior=prior, tol=1e-11)
    for a, b in zip(hot.natural, copies.natural, strict=True):
        assert a == pytest.approx(b, rel=1e-8, abs=1e-9)


def test_pvi_is_bayes_admm_at_unit_penalty_and_step() -> None:
    prior = Gaussian(np.zeros(D), 1.0)
    shared: dict[str, Any] = {"family": "diagonal_gaussian", "prior": prior, "rounds": 5, "damping": 0.6}
    pvi = solve(logistic_clients(), method="pvi", **shared)
    admm = solve(logistic_clients(), rho=1.0, alpha=1.0, **shared)
    for a, b in zip(pvi.natural + pvi.duals, admm.natural + admm.duals, strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("family", ["isotropic_gaussian", "diagonal_gaussian", "full_gaussian"])
def test_bregman_admm_reaches_the_same_fixed_point_more_slowly(family: str) -> None:
    clients, prior = random_quadratics(D, 3, 3.0, 4), Gaussian(np.zeros(D), 1.0)
    slow = solve(clients, family=family, prior=prior, method="bregman_admm", rounds=250, tol=1e-9)
    fast = solve(clients, family=family, prior=prior, tol=1e-9, rounds=250)
    assert fast.converged and slow.rounds > fast.rounds
    for a, b in zip(slow.natural, fast.natural, strict=True):
        assert a == pytest.approx(b, abs=5e-3)
    assert slow.history[-1].gap < 0.1 * slow.history[50].gap


def test_isotropic_family_is_consensus_admm_iterate_for_iterate() -> None:
    clients, rho, s = random_quadratics(D, K, 5.0, 6), 0.8, 2.5
    penalty, prior = rho * s, Gaussian(np.full(D, 0.5), s)
    states: list[SolverState] = []
    solve(clients, family="isotropic_gaussian", prior=prior, rho=rho, alpha=1 / (1 + rho * K), damping=1.0, rounds=50,
          tol=0.0, callbacks=[states.append])  # fmt: skip
    z, u = prior.mean.copy(), np.zeros((K, D))
    for state in states:
        x = np.stack([np.linalg.solve(c.hessian + penalty * np.eye(D), c.linear + penalty * (z - u_k))
                      for c, u_k in zip(clients, u, strict=True)])  # fmt: skip
        u = u + x - z
        z = (s * prior.mean + penalty * (x + u).sum(axis=0)) / (s + penalty * K)
        assert state.natural[0] / s == pytest.approx(z, abs=1e-12)
        assert state.clients[0] / s == pytest.approx(x, abs=1e-12)
        assert state.duals[0] == pytest.approx(-penalty * u, abs=1e-11)


def test_history_and_bytes() -> None:
    result = solve(logistic_clients(), family="full_gaussian", prior=Gaussian(np.zeros(D), 1.0), rho=1.0, alpha=1.0,
                   damping=1.0, rounds=30)  # fmt: skip
    natural = D + D * (D + 1) // 2
    for i, record in enumerate(result.history):
        assert record.round == i + 1
        # before the first round λ_g and a number go down and four numbers come up; a round has a λ each way and a few
        assert record.bytes_down == 8 * K * ((natural + 6) * (i + 1) + natural + 1)
        assert record.bytes_up == 8 * K * ((natural + 7) * (i + 1) + 4)
        assert record.gap == max(record.primal_residual, record.dual_residual, record.client_residual)
        assert record.condition_margin > 0 and record.mixed == 0
        assert record.most_evaluations <= record.evaluations <= K * record.most_evaluations
        json.dumps(record.as_dict())
    objectives = [record.objective for record in result.history]
    assert min(objectives) == pytest.approx(objectives[-1], abs=1e-9)
    assert result.converged and "tol" in result.reason
    assert len(result.clients) == K
    automatic = solve(logistic_clients(), family="full_gaussian", prior=Gaussian(np.zeros(D), 1.0), rounds=30)
    assert automatic.rounds < result.rounds
    assert any(record.mixed for record in automatic.history)


def test_resumed_run_is_the_uninterrupted_run_bit_for_bit() -> None:
    shared: dict[str, Any] = {"family": "diagonal_gaussian", "prior": Gaussian(np.zeros(D), 1.0), "tol": 0.0}
    whole = solve(logistic_clients(), rounds=9, **shared)
    half = solve(logistic_clients(), rounds=5, **shared)
    arrays, metadata = half.state.to_arrays()
    read = SolverState.from_arrays({k: v.copy() for k, v in arrays.items()}, json.loads(json.dumps(metadata)))
    rest = solve(logistic_clients(), rounds=9, state=read, **shared)
    for a, b in zip(whole.natural + whole.duals, rest.natural + rest.duals, strict=True):
        assert (a == b).all()
    assert [r.round for r in rest.history] == list(range(1, 10))
    assert rest.history[-1].bytes_up == whole.history[-1].bytes_up
    with pytest.raises(ValueError, match="state: expected the arrays"):
        SolverState.from_arrays({}, metadata)


def test_monte_carlo_runs_depend_on_the_seed_alone() -> None:
    shared: dict[str, Any] = {"family": "diagonal_gaussian", "prior": Gaussian(np.zeros(D), 1.0), "rounds": 4,
                              "expectation": "monte_carlo"}  # fmt: skip
    one, same, other = (solve(logistic_clients(), seed=s, **shared) for s in (1, 1, 2))
    assert (one.natural[0] == same.natural[0]).all()
    assert (one.natural[0] != other.natural[0]).any()


def test_clients_draw_for_themselves() -> None:
    """Two clients with the same data and Monte Carlo expectations have different draws, so different duals."""
    one = logistic_clients()[0]
    result = solve([one, one], family="diagonal_gaussian", prior=Gaussian(np.zeros(D), 1.0), rounds=1,
                   expectation="monte_carlo")  # fmt: skip
    assert (result.duals[0][0] != result.duals[0][1]).any()


def test_a_penalty_at_the_infimum_of_the_condition_violates_it() -> None:
    """ρ S_g + η_S = 0 is no precision, though this client's problem has a solution; the other asks for less."""
    client = LogisticRegression(np.array([[1.0], [1.0], [2.0], [2.0]]), np.array([0, 1, 0, 1]))
    shared: dict[str, Any] = {"family": "full_gaussian", "prior": Gaussian(np.zeros(1), 1.0), "rounds": 1}
    steps: dict[str, Any] = {"rho": 1.0, "alpha": 1.0, "damping": 1.0}
    result = solve([client] * 2, **shared, **steps, duals=(np.zeros((2, 1)), np.array([[[-1.0]], [[-0.5]]])))
    record = result.history[0]
    assert record.condition_margin == 0.0
    violated = [event for event in record.events if "violated" in event]
    assert violated == ["client 0: existence condition violated at rho = 1, holds for rho > 1"]


def test_violated_condition_is_an_event_where_the_client_still_solves_and_an_error_where_not() -> None:
    clients = logistic_clients()
    shared: dict[str, Any] = {"family": "full_gaussian", "prior": Gaussian(np.zeros(D), 1.0)}
    done = solve(clients, **shared, tol=1e-11)
    family = bind("full_gaussian", shared["prior"])
    duals = zip(*done.duals, strict=True)
    need = max(family.required_rho(done.natural, dual, None) for dual in duals)
    assert 0 < done.history[-1].condition_margin <= 1.0 - need
    # at the fixed point every client's solution is λ_g, whatever ρ
    explicit: dict[str, Any] = {"rho": 0.9 * need, "alpha": 1.0, "damping": 1.0, "rounds": 1, "start": done.natural}
    record = solve(clients, **shared, **explicit, duals=done.duals).history[0]
    assert record.condition_margin == pytest.approx(-0.1 * need, rel=1e-6)
    report = f"existence condition violated at rho = {0.9 * need:.6g}, holds for rho > {need:.6g}"
    assert any(report in event for event in record.events)
    with pytest.raises(LostClientError, match="client 0"):
        solve(clients, **shared, **explicit, duals=(done.duals[0], 3 * done.duals[1]))


def test_explicit_steps_out_of_the_domain_are_refused_and_automatic_ones_shortened() -> None:
    clients, prior = [Quadratic(-3.0 * np.eye(2), np.ones(2))] * 2, Gaussian(np.zeros(2), 4.0)
    with pytest.raises(ServerDomainError, match="smaller damping"):
        solve(clients, family="full_gaussian", prior=prior, rho=1.0, alpha=1.0, damping=1.0, rounds=1)
    shortened = solve(clients, family="full_gaussian", prior=prior, rounds=1)
    assert any("step shortened" in event for event in shortened.history[0].events)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clients": []}, "clients: expected at least one client, got an empty list"),
        ({"clients": [3]}, "clients: expected objects with expectations.* got int at index 0"),
        ({"clients": [Quadratic(np.eye(3), np.ones(3))]}, "clients: expected parameters of length 4"),
        ({"family": "cauchy"}, "family: expected one of"),
        ({"method": "fedavg"}, "method: expected one of bayes_admm, pvi, newton, bregman_admm, or .*, got 'fedavg'"),
        ({"prior": Gamma(1.0, 1.0)}, "prior: expected badmm.Gaussian for family 'full_gaussian', got Gamma"),
        ({"family": "isotropic_gaussian", "prior": Gaussian(np.zeros(4), np.ones(4))}, "prior: expected a scalar"),
        ({"rho": 0.0}, "rho: expected a positive number, got 0.0"),
        ({"rho": "large"}, "rho: expected \"auto\" or a number, got 'large'"),
        ({"alpha": 1.5}, r"alpha: expected a number in \(0, 1\], got 1.5"),
        ({"damping": -0.1}, r"damping: expected a number in \(0, 1\], got -0.1"),
        ({"method": "pvi", "rho": 0.5}, 'rho: expected 1 or "auto"'),
        ({"temperature": 0}, "temperature: expected a positive number, got 0"),
        ({"expectation": "guess"}, "expectation: expected one of auto"),
        ({"rounds": 0}, "rounds: expected a positive integer, got 0"),
        ({"tol": -1.0}, "tol: expected a number of at least 0"),
        ({"seed": -1}, "seed: expected a non-negative integer, got -1"),
        ({"duals": (np.zeros((2, 4)), np.zeros((2, 4, 4)))}, r"duals\[0\]: expected shape \(6, 4\), got \(2, 4\)"),
        ({"start": (np.zeros(4), -np.eye(4))}, "start: expected a natural parameter in the domain"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    prior = Gaussian(np.zeros(4), 1.0)
    arguments: dict[str, Any] = {"clients": logistic_clients(), "family": "full_gaussian", "prior": prior} | change
    with pytest.raises(ValueError, match=message):
        solve(arguments.pop("clients"), **arguments)
