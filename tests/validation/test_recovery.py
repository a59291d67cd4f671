"""The isotropic family is the textbook's consensus ADMM; the textbook's own pieces do what they are for."""

import itertools

import numpy as np
import pytest

from validation.oracles import textbook
from validation.oracles.central import central
from validation.oracles.textbook import ConsensusADMM, QuadraticLosses, losses_of, proximal
from validation.problems import problem
from validation.runs import recovery

pytestmark = pytest.mark.slow


def test_another_dual_step_is_told_apart() -> None:
    clients, losses, mean, precision = recovery.quadratic_case(1)
    found = recovery.compare(clients, losses, mean, precision, 0.3, 5, damping=0.9)
    assert max(found.duals) > 1e-2


def test_checks_of_the_validation_pass() -> None:
    """`python -m validation` follows more quadratics, and all of them for fifty rounds."""
    found = list(recovery.checks(count=3, rounds=8))
    assert len(found) == 2 * (3 + 3 * len(recovery.LOGISTIC))
    assert [check for check in found if not check.passed] == []
    assert {check.tolerance for check in found} == {1e-12, 1e-8}


@pytest.mark.parametrize(
    "name", ["logistic/cancer/uneven-8", "poisson/situps/sorted-5", "softmax/wine/label-10", "softmax/digits/label-5"]
)
def test_proximal_step_is_stationary(name: str) -> None:
    case = problem(name)
    losses = losses_of(case)
    centre = np.random.default_rng(4).normal(size=(case.num_clients, case.dim)) * 0.3
    x = proximal(losses, centre, 2.0, np.zeros_like(centre))
    slope, hessian = losses.derivatives(x)
    scale = np.abs(hessian).max(axis=(1, 2))[:, None] + 2.0
    assert np.max(np.abs(slope + 2.0 * (x - centre)) / scale) <= 1e-13
    # the derivatives against differences
    direction = np.random.default_rng(5).normal(size=x.shape)
    up, down = (losses.derivatives(x + step * direction)[0] for step in (1e-6, -1e-6))
    difference = (up - down) / 2e-6
    np.testing.assert_allclose(difference, np.einsum("kij,kj->ki", hessian, direction), rtol=1e-5, atol=1e-5)


def test_textbook_converges_to_the_pooled_solution() -> None:
    _, losses, mean, precision = recovery.quadratic_case(3)
    assert isinstance(losses, QuadraticLosses)
    pooled = precision * np.eye(len(mean)) + losses.H.sum(axis=0)
    solution = np.linalg.solve(pooled, precision * mean + losses.b.sum(axis=0))
    admm = ConsensusADMM(losses, len(losses.b), mean, precision, penalty=5.0)
    last = next(itertools.islice(admm, 3000, None))
    np.testing.assert_allclose(last.global_next, solution, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(last.local, np.broadcast_to(solution, last.local.shape), rtol=1e-8, atol=1e-8)


def test_tuning_finds_the_best_penalty_of_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    case = problem("poisson/pixel/iid-10")
    mode = central(case.name, "isotropic_gaussian").mean
    grid = (10.0, 100.0, 1000.0)
    levels = (1e-2, 1e-4)
    monkeypatch.setattr(textbook, "REFINEMENT", ())
    best = textbook.tune(case, mode, levels, grid, limit=60)
    for level in range(2):
        counts = {r: textbook.tune(case, mode, levels, (r,), limit=60).rounds[level] for r in grid}
        fewest = min(count for count in counts.values() if count is not None)
        assert best.rounds[level] == fewest
        penalty = best.penalties[level]
        assert penalty is not None
        assert counts[penalty] == fewest
    monkeypatch.undo()
    refined = textbook.tune(case, mode, levels, grid, limit=60)
    assert all(a is not None and b is not None and a <= b for a, b in zip(refined.rounds, best.rounds, strict=True))


def test_no_penalty_reaching_the_level_is_none() -> None:
    case = problem("poisson/pixel/iid-10")
    mode = central(case.name, "isotropic_gaussian").mean
    found = textbook.tune(case, mode, levels=(1e-12,), grid=(0.1,), limit=3)
    assert found.rounds == (None,)
    assert found.penalties == (None,)
