"""The benchmark of `solve`: both contenders solve their problem, and the table has what was measured."""

import numpy as np
import pytest
from scipy.special import expit

from badmm import Gaussian
from badmm.likelihoods import LogisticRegression
from benchmarks import solve


def test_contenders_solve_what_they_should() -> None:
    clients = solve.problem(400, 5, 4)
    theta, hessian, peer = solve.time_irls(clients)
    X, y = np.concatenate([c[0] for c in clients]), np.concatenate([c[1] for c in clients])
    assert np.abs(X.T @ (expit(X @ theta) - y) + theta).max() < 1e-8
    result, ours = solve.time_solve(clients, 2)
    assert result.converged and peer.curvatures == peer.rounds
    assert isinstance(result.posterior, Gaussian)
    # Laplace and variational posterior of many rows are close
    assert result.posterior.mean == pytest.approx(theta, abs=0.05)
    assert result.posterior.precision == pytest.approx(hessian, rel=0.1, abs=5.0)
    mode, laplace = solve.time_solve(clients, 2, "delta")
    assert isinstance(mode.posterior, Gaussian)
    assert mode.posterior.mean == pytest.approx(theta, abs=1e-8)
    assert laplace.curvatures < 2 * peer.curvatures and laplace.gradients > laplace.rounds
    table = solve.report(400, 5, 4, peer, {"E_q": ours, "delta": laplace})
    assert f"| {ours.rounds} | {ours.curvatures:.1f} | 0.0 |" in table
    assert table.count("badmm.solve, ") == 2


@pytest.mark.parametrize(("run", "name"), [("E_q", "expectations"), ("delta", "expectations"), ("delta", "gradient")])
def test_evaluations_are_those_that_clients_saw(run: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = getattr(LogisticRegression, name)

    def counted(self: LogisticRegression, posterior: Gaussian) -> object:
        seen.append(1)
        return original(self, posterior)

    monkeypatch.setattr(LogisticRegression, name, counted)
    _, cost = solve.time_solve(solve.problem(200, 3, 5), 1, run)
    assert (cost.gradients if name == "gradient" else cost.curvatures) == pytest.approx(len(seen) / 5)
