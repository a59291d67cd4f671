"""Precisions as operators, each against dense linear algebra: one table of promises for every structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from badmm import Gaussian
from badmm.families.gaussian import _total
from badmm.families.precision import Precision
from badmm.families.registry import bind
from badmm.families.structures.block_diagonal_gaussian import BlockPrecision, Blocks

D = 4
RNG = np.random.default_rng(3)
ROOT = RNG.normal(size=(D, D))
ARRAYS: dict[str, Any] = {
    "scalar": np.asarray(0.7),
    "diagonal": np.array([0.5, 1.0, 2.0, 5.0]),
    "matrix": ROOT @ ROOT.T + np.eye(D),
}
BLOCKS = Blocks((1, 3))
MASK = BLOCKS.matrix(np.ones(10))
KINDS = (*ARRAYS, "blocks")
every_structure = pytest.mark.parametrize("kind", KINDS)


def operator(kind: str) -> Precision:
    if kind == "blocks":
        return BlockPrecision(BLOCKS.of_matrix(ARRAYS["matrix"]), BLOCKS)
    return Gaussian(np.zeros(D), ARRAYS[kind]).operator


def dense(precision: Precision | np.ndarray) -> np.ndarray:
    array = precision.shown if isinstance(precision, Precision) else precision
    return np.asarray(array if array.ndim == 2 else np.diag(np.broadcast_to(array, (D,))))


def symmetric(seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(D, D))
    return np.asarray(root + root.T)


@every_structure
def test_products_sums_and_parts(kind: str) -> None:
    S, A, v = operator(kind), symmetric(1), RNG.normal(size=D)
    np.testing.assert_allclose(S.matvec(v), dense(S) @ v, rtol=1e-13)
    np.testing.assert_allclose(S.plus(A), dense(S) + A, rtol=1e-13)
    np.testing.assert_array_equal(S.plus(A), S.plus(A).T)
    np.testing.assert_allclose(dense(S.scaled(3.0)), 3.0 * dense(S), rtol=1e-14)
    np.testing.assert_allclose(S.diagonal, np.diag(dense(S)), rtol=1e-14)
    own = S.own(A)
    part = {"matrix": A, "blocks": A * MASK}.get(kind, np.diag(np.diag(A)))
    np.testing.assert_array_equal(dense(S.whole(own)), part)
    np.testing.assert_array_equal(S.own_part(A), own)
    np.testing.assert_array_equal(S.own_part(own), own)
    np.testing.assert_allclose(S.times(own, v), part @ v, rtol=1e-13)
    np.testing.assert_allclose(dense(S.shifted(own)), dense(S) + part, rtol=1e-13)
    assert S.trace(own) == pytest.approx(np.trace(part @ np.linalg.inv(dense(S))), rel=1e-12)
    assert S.whole_hessian == (kind != "diagonal") and S.keeps_curvature == (kind == "matrix")


@every_structure
def test_the_inverse_and_its_root(kind: str) -> None:
    S, X, v, A = operator(kind), RNG.normal(size=(5, D)), RNG.normal(size=D), symmetric(2)
    inverse = np.linalg.inv(dense(S))
    np.testing.assert_allclose(S.variance, np.diag(inverse), rtol=1e-12)
    np.testing.assert_allclose(S.covariance, inverse, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(S.quadratic(X), np.einsum("ni,ij,nj->n", X, inverse, X), rtol=1e-12)
    assert S.largest_variance == pytest.approx(np.linalg.eigvalsh(inverse)[-1], rel=1e-12)
    C = np.stack([S.root(unit) for unit in np.eye(D)], axis=1)
    np.testing.assert_allclose(C @ C.T, inverse, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(S.root(X), X @ C.T, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(S.root_transpose(v), C.T @ v, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(S.congruence(A), C.T @ A @ C, rtol=1e-10, atol=1e-13)
    for numerator in (A, np.diag(A), S.own(A)):
        wanted = np.linalg.eigvalsh(C.T @ dense(S.whole(numerator) if numerator.shape == (10,) else numerator) @ C)[-1]
        assert S.largest_ratio(numerator) == pytest.approx(wanted, rel=1e-10)
        # an upper bound may stand for it, and nothing below it
        assert S.largest_ratio(numerator, wanted + 1e-3) <= wanted + 1e-3
        assert S.largest_ratio(numerator, wanted - 1e-3) == pytest.approx(wanted, rel=1e-10)


@every_structure
def test_the_chart_of_covariances_around_a_precision(kind: str) -> None:
    """S of the covariance C(I + W + Wᵀ)Cᵀ, its equations and their derivative at W = 0."""
    S = operator(kind)
    C = np.stack([S.root(unit) for unit in np.eye(D)], axis=1)
    assert S.spread_size == {"scalar": 0, "diagonal": D, "matrix": D * (D + 1) // 2, "blocks": 1 + 6}[kind]
    assert S.spread_curvature.shape == (S.spread_size,)
    zero = np.zeros(S.spread_size)
    same = S.spread(zero)
    assert same is not None
    np.testing.assert_allclose(dense(same), dense(S), rtol=1e-12, atol=1e-14)
    if kind == "scalar":
        assert S.spread_equations(zero, S.array).shape == (0,)
        return
    places = {"matrix": np.tril_indices(D), "blocks": np.nonzero(np.tril(MASK))}.get(kind, np.diag_indices(D))
    w = 0.1 * RNG.normal(size=S.spread_size)
    W = np.zeros((D, D))
    W[places] = w
    middle = np.eye(D) + W + W.T
    found = S.spread(w)
    assert found is not None
    np.testing.assert_allclose(np.linalg.inv(dense(found)), C @ middle @ C.T, rtol=1e-10, atol=1e-13)
    target = S.own(symmetric(3) + 10 * np.eye(D))
    equations = (C.T @ dense(S.whole(target)) @ C - np.linalg.inv(middle))[places]
    np.testing.assert_allclose(S.spread_equations(w, target), equations, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(S.spread_equations(w, found.array), 0.0, atol=1e-12)
    step = 1e-6
    slope = (S.spread_equations(step * np.ones_like(w), target) - S.spread_equations(zero, target)) / step
    by_one = [(S.spread_equations(step * e, target) - S.spread_equations(zero, target))[j] / step
              for j, e in enumerate(np.eye(len(w)))]  # fmt: skip
    np.testing.assert_allclose(S.spread_curvature, by_one, rtol=1e-4)
    assert slope.shape == w.shape
    outside = zero.copy()
    outside[0] = -0.5
    assert S.spread(outside) is None  # a variance of zero
    outside[0] = -0.499
    assert S.spread(outside) is not None


@every_structure
def test_coordinates_in_units_of_a_reference(kind: str) -> None:
    S, reference = operator(kind), operator(kind).scaled(4.0)
    x = S.coordinates(reference)
    assert x.shape == {"scalar": (0,), "diagonal": (D,), "matrix": (D * D,), "blocks": (10,)}[kind]
    if kind == "scalar":
        assert reference.at_coordinates(x) is reference  # a fixed scale has no coordinates
        return
    unit = np.sqrt(np.diag(dense(reference)))
    found = dense(S.whole(x.reshape(S.array.shape)))
    np.testing.assert_allclose(found, dense(S) / np.outer(unit, unit), rtol=1e-13)
    back = reference.at_coordinates(x)
    assert back is not None
    np.testing.assert_allclose(back.array, S.array, rtol=1e-13)
    assert reference.at_coordinates(-x) is None
    if kind == "matrix":
        skewed = (x.reshape(D, D) + np.triu(np.ones((D, D)), 1) * 1e-3).ravel()
        even = reference.at_coordinates(skewed)
        assert even is not None
        np.testing.assert_array_equal(even.array, even.array.T)


@every_structure
def test_what_is_not_definite_is_told(kind: str) -> None:
    S = operator(kind)
    assert S.is_definite
    S.check()
    for bad in (S.like(-S.array), S.like(0.0 * S.array)):
        assert not bad.is_definite
        assert kind == "scalar" or S.at_coordinates(0.0 * S.coordinates(S)) is None
        with pytest.raises(ValueError, match=r"^precision: expected "):
            bad.check()


def test_a_matrix_names_its_smallest_eigenvalue() -> None:
    with pytest.raises(ValueError, match=r"definite matrix, got smallest eigenvalue -1$"):
        Gaussian(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_an_array_that_is_no_precision_of_the_mean_is_named() -> None:
    for shape in ((3,), (3, 3), (4, 3)):
        with pytest.raises(ValueError, match="precision") as caught:
            Gaussian(np.zeros(D), np.ones(shape))
        wanted = f"precision: expected a scalar or shape (4,) or (4, 4) to match the mean, got {shape}"
        assert str(caught.value) == wanted
    skewed = np.array([[0.0, 1.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="precision: expected a symmetric matrix"):
        Gaussian(np.zeros(2), np.eye(2) + 1e-9 * skewed)
    assert Gaussian(np.zeros(2), np.eye(2) + 1e-11 * skewed).operator.is_definite


FAMILIES = ("isotropic_gaussian", "diagonal_gaussian", "full_gaussian")


def test_a_prior_in_a_family_that_holds_more() -> None:
    for i, kind in enumerate(ARRAYS):
        for family in FAMILIES[i:]:
            found = bind(family, Gaussian(np.arange(4.0), ARRAYS[kind])).prior
            assert isinstance(found, Gaussian)
            np.testing.assert_array_equal(found.mean, np.arange(4.0))
            np.testing.assert_array_equal(dense(found.operator), dense(operator(kind)))
        for family, what in zip(FAMILIES[:i], ("a scalar", "a scalar or vector"), strict=False):
            with pytest.raises(ValueError, match=r"^prior") as caught:
                bind(family, Gaussian(np.zeros(4), ARRAYS[kind]))
            shape = ARRAYS[kind].shape
            assert str(caught.value) == f"prior: expected {what} precision for family {family!r}, got shape {shape}"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_margin_counts_dual_and_growth_whether_diagonal_or_matrix(family: str) -> None:
    """The largest eigenvalue of −(η_S + G) in units of S_g."""
    kind = dict(zip(FAMILIES, ARRAYS, strict=True))[family]
    server = bind(family, Gaussian(np.zeros(D), ARRAYS[kind]))
    S = operator(kind)
    eta = S.own(symmetric(5)) if kind != "scalar" else np.zeros(D)
    dual = (np.zeros(D), eta)[: len(server.shapes)]
    for growth in (None, np.arange(4.0), symmetric(6)):
        total = dense(eta) + (0 if growth is None else dense(growth))
        C = np.stack([S.root(unit) for unit in np.eye(D)], axis=1)
        wanted = np.linalg.eigvalsh(-(C.T @ total @ C))[-1]
        assert server.required_rho(server.prior_natural, dual, growth) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_a_sum_of_diagonals_is_a_diagonal() -> None:
    a, A = np.arange(4.0), symmetric(7)
    np.testing.assert_array_equal(_total(a, 2.0 * a), 3.0 * a)
    np.testing.assert_array_equal(_total(a, A), np.diag(a) + A)
    np.testing.assert_array_equal(_total(A, a), np.diag(a) + A)
    np.testing.assert_array_equal(_total(A, A), 2.0 * A)


def test_one_block_that_is_not_definite_makes_all_of_it_so() -> None:
    S = operator("blocks")
    w = np.zeros(S.spread_size)
    for place, block in ((0, 0), (1, 1)):
        bad = w.copy()
        bad[place] = -0.6
        assert S.spread(bad) is None
        array = S.array.copy()
        array[BLOCKS.flat[block]] *= -1.0
        assert not S.like(array).is_definite
        with pytest.raises(ValueError, match=r"^precision: expected a positive definite matrix"):
            S.like(array).check()
