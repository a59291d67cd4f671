"""Block-diagonal Gaussians: between diagonal and full, with messages of their size, and the central fixed point."""

from typing import Any

import numpy as np
import pytest
from scipy.linalg import block_diag

import badmm
import badmm_kernels
from badmm import BlockDiagonalGaussian
from badmm.families.structures.block_diagonal_gaussian import BlockKernels, Blocks
from badmm.likelihoods import LogisticRegression, Quadratic
from validation.oracles.central import distance, solve_central
from validation.problems import problem

SIZES = (3, 1, 4)
DIM = sum(SIZES)


def quadratics(count: int, whole: bool = False) -> list[Quadratic]:
    rng = np.random.default_rng(2)

    def curvature(size: int) -> Any:
        root = rng.normal(size=(size, size))
        return root @ root.T + np.eye(size)

    return [
        Quadratic(curvature(DIM) if whole else block_diag(*map(curvature, SIZES)), rng.normal(size=DIM))
        for _ in range(count)
    ]


def logistic(count: int) -> list[LogisticRegression]:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(40 * count, DIM)) @ (np.eye(DIM) + 0.3)
    y = (rng.random(len(X)) < 1 / (1 + np.exp(-X[:, 0]))).astype(int)
    return [LogisticRegression(X[k::count], y[k::count]) for k in range(count)]


def test_quadratics_of_the_structure_take_one_round() -> None:
    clients = quadratics(4)
    prior = badmm.Gaussian(np.linspace(-1, 1, DIM), 0.5)
    result = badmm.solve(clients, family=BlockDiagonalGaussian(SIZES), prior=prior, rounds=1)
    precision = 0.5 * np.eye(DIM) + sum(client.hessian for client in clients)
    mean = np.linalg.solve(precision, 0.5 * prior.mean + sum(client.linear for client in clients))
    assert isinstance(result.posterior, badmm.Gaussian)
    assert result.posterior.precision == pytest.approx(precision, rel=1e-13)
    assert result.posterior.mean == pytest.approx(mean, rel=1e-12)
    assert result.history[-1].dual_residual < 1e-12


def test_a_message_has_the_triangles_of_the_blocks() -> None:
    records = badmm.solve(
        quadratics(2), family=BlockDiagonalGaussian(SIZES), prior=badmm.Gaussian(np.zeros(DIM), 1.0), rounds=1
    ).history
    other = badmm.solve(quadratics(2), family="full_gaussian", prior=badmm.Gaussian(np.zeros(DIM), 1.0), rounds=1)
    saved = 8 * 2 * (DIM * (DIM + 1) // 2 - (6 + 1 + 10))
    assert other.history[-1].bytes_up - records[-1].bytes_up == saved


@pytest.mark.parametrize(
    ("blocks", "family"), [((DIM,), "full_gaussian"), (1, "diagonal_gaussian")], ids=["one", "ones"]
)
def test_the_ends_are_the_full_and_the_diagonal_family(blocks: Any, family: str) -> None:
    clients, prior = logistic(3), badmm.Gaussian(np.zeros(DIM), 1.0)
    ends = [badmm.solve(clients, family=f, prior=prior, tol=1e-10) for f in (family, BlockDiagonalGaussian(blocks))]
    assert all(end.converged for end in ends)
    first, second = (end.posterior for end in ends)
    assert isinstance(first, badmm.Gaussian) and isinstance(second, badmm.Gaussian)
    assert second.mean == pytest.approx(first.mean, abs=1e-9)
    assert second.covariance == pytest.approx(first.covariance, abs=1e-9)


SUITE = {
    "logistic/separable/feature-10": (1, 2, 3),
    "poisson/situps/sorted-5": (2, 2),
    "poisson/diabetes/label-10": (1, 4, 6),
}


@pytest.mark.parametrize("name", SUITE)
def test_the_fixed_point_is_the_central_solution(name: str) -> None:
    case, blocks = problem(name), SUITE[name]
    prior = badmm.Gaussian(np.zeros(case.dim), case.prior_precision)
    result = badmm.solve(case.clients(), family=BlockDiagonalGaussian(blocks), prior=prior, tol=1e-10)
    want = solve_central(case, "full_gaussian", blocks=blocks)
    assert result.converged and want.residual < 1e-11
    found = result.posterior
    assert isinstance(found, badmm.Gaussian)
    assert distance((found.precision @ found.mean, found.precision), want) < 1e-8


def test_a_state_goes_on_bit_for_bit() -> None:
    clients = logistic(3)
    arguments: dict[str, Any] = {"family": BlockDiagonalGaussian(4), "prior": badmm.Gaussian(np.zeros(DIM), 1.0)}
    whole = badmm.solve(clients, **arguments, rounds=4, tol=0.0)
    half = badmm.solve(clients, **arguments, rounds=2, tol=0.0)
    state = badmm.SolverState.from_arrays(*half.state.to_arrays())
    again = badmm.solve(clients, **arguments, rounds=4, tol=0.0, state=state)
    assert all(np.array_equal(a, b) for a, b in zip(whole.natural, again.natural, strict=True))


def refused(family: Any, precision: Any = 1.0) -> str:
    with pytest.raises(ValueError) as caught:
        badmm.solve(quadratics(1), family=family, prior=badmm.Gaussian(np.zeros(DIM), precision))
    return str(caught.value)


def test_where_blocks_lie() -> None:
    """Sizes 2, 1, 2: along θ, in a matrix and in the flat array; blocks of one size as a stack."""
    blocks = Blocks((2, 1, 2))
    assert blocks.dim == 5 and [(at.start, at.stop) for at in blocks.theta] == [(0, 2), (2, 3), (3, 5)]
    assert [(at.start, at.stop) for at in blocks.flat] == [(0, 4), (4, 5), (5, 9)]
    matrix = np.arange(25.0).reshape(5, 5)
    flat = blocks.of_matrix(matrix)
    assert flat.tolist() == [0.0, 1.0, 5.0, 6.0, 12.0, 18.0, 19.0, 23.0, 24.0]
    assert blocks.of_matrix(matrix.T).tolist() == flat[blocks.mirror].tolist()
    assert flat[blocks.lower].tolist() == [0.0, 5.0, 6.0, 12.0, 18.0, 23.0, 24.0]
    back = blocks.matrix(flat)
    assert np.count_nonzero(back) == 8 and np.array_equal(blocks.of_matrix(back), flat)
    stack = np.stack([flat, 2 * flat])
    assert [part.shape for part in blocks.matrices(stack)] == [(2, 2, 2), (2, 1, 1), (2, 2, 2)]
    assert blocks.matrices(stack)[2][1].tolist() == [[36.0, 38.0], [46.0, 48.0]]
    assert [part.tolist() for part in blocks.vectors(np.arange(5.0))] == [[0.0, 1.0], [2.0], [3.0, 4.0]]
    (one, of_one), (two, of_two) = blocks.alike
    assert one.tolist() == [[2]] and of_one.tolist() == [[[4]]]
    assert two.tolist() == [[0, 1], [3, 4]] and of_two.tolist() == [[[0, 1], [2, 3]], [[5, 6], [7, 8]]]


def test_kernels_of_blocks_are_those_of_the_whole_matrix() -> None:
    blocks, full, rng = Blocks((2, 1, 2)), badmm_kernels.load("full_gaussian"), np.random.default_rng(0)
    ns = BlockKernels(blocks)
    naturals = []
    for _ in range(2):
        root = blocks.matrix(rng.normal(size=9))
        naturals.append((rng.normal(size=5), blocks.of_matrix(root @ root.T + np.eye(5))))
    q, p = naturals
    whole = [(xi, blocks.matrix(S)) for xi, S in naturals]
    assert ns.log_partition(*q) == pytest.approx(full.log_partition(*whole[0]), rel=1e-12)
    assert ns.kl(q, p) == pytest.approx(full.kl(*whole), rel=1e-12)
    for name in ("standard_from_natural", "expectation_from_natural"):
        vector, matrix = getattr(full, name)(*whole[0])
        found = getattr(ns, name)(*q)
        np.testing.assert_allclose(found[0], vector, rtol=1e-12)
        np.testing.assert_allclose(found[1], blocks.of_matrix(matrix), rtol=1e-12, atol=1e-14)
    mean, gradient = rng.normal(size=(2, 5))
    vector, matrix = full.natural_gradient(mean, gradient, whole[0][1])
    found = ns.natural_gradient(mean, gradient, q[1])
    np.testing.assert_allclose(found[0], vector, rtol=1e-12)
    np.testing.assert_allclose(found[1], blocks.of_matrix(matrix), rtol=1e-13)


def test_what_does_not_fit_is_named() -> None:
    assert refused(BlockDiagonalGaussian(3)) == "blocks: expected a size that divides 8 (the prior's length), got 3"
    assert refused(BlockDiagonalGaussian([3, 4])) == (
        "blocks: expected sizes that sum to 8 (the prior's length), got (3, 4)"
    )
    full = np.eye(DIM)
    full[0, 7] = full[7, 0] = 0.25
    assert refused(BlockDiagonalGaussian(SIZES), full) == (
        "prior: expected 0 outside the blocks of the precision for family 'block_diagonal_gaussian', "
        "got 0.25 at index (0, 7)"
    )
    assert refused("block_diagonal_gaussian").startswith("family: expected badmm.BlockDiagonalGaussian(blocks")
    with pytest.raises(ValueError, match="blocks: expected a positive integer, got 0"):
        BlockDiagonalGaussian([2, 0])
