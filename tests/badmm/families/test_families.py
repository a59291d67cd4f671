"""What the solver asks of a family: domain, margin, metric, chart, packing, and losses that are linear in μ."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.linalg.lapack import dpotrf

import badmm
from badmm import checks
from badmm.clients.problem import BoundClient, ClientProblem
from badmm.families import registry
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.factored import FactoredNatural
from badmm.families.factorising import FactorisingFamily
from badmm.families.family import FamilyGeometry, Natural
from badmm.families.gaussian import GaussianFamily
from badmm.likelihoods import LogisticRegression, PoissonRate, Quadratic
from badmm_kernels.cpu import linalg

RNG = np.random.default_rng(5)
DIM = 4


def matrix(seed: int = 0) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(DIM, DIM))
    return root @ root.T + np.eye(DIM)


CHOICES: dict[str, dict[str, Any]] = {
    "block_diagonal_gaussian": {"blocks": [1, 3]},
    "low_rank_gaussian": {"rank": 2},
}
"""What the tests choose of the families that leave something to choose."""
BLOCKS = np.kron(np.eye(2), np.ones((3, 3)))[2:, 2:]
"""1 in the blocks."""


def member(name: str, seed: int = 0) -> Distribution:
    """A member of any registered family, from its metadata."""
    rng = np.random.default_rng(seed)
    kind: Any = registry.distribution(name)
    if name == "gaussian_gamma":
        return badmm.GaussianGamma(rng.normal(size=DIM), matrix(seed), 2.0 + seed, 0.6)
    if issubclass(registry.structure(name), GaussianFamily):
        blocks = matrix(seed) * BLOCKS
        precision: Any = {"full_gaussian": matrix(seed), "isotropic_gaussian": 0.7, "block_diagonal_gaussian": blocks}
        return Gaussian(rng.normal(size=DIM), precision.get(name, rng.uniform(0.5, 2.0, DIM)))
    fixed = registry.fixed(name)
    return kind(*(3.0 if key in fixed else rng.uniform(0.5, 3.0, DIM) for key in registry.arguments(name)))


def family_of(name: str) -> FamilyGeometry:
    return registry.bind(registry.chosen(name, CHOICES.get(name, {})), member(name))


def close(left: Natural, right: Natural, tolerance: float = 1e-12) -> bool:
    return all(np.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(left, right, strict=True))


every_family = pytest.mark.parametrize("name", registry.names())


@every_family
def test_a_member_survives_its_natural_parameter(name: str) -> None:
    family = family_of(name)
    again = family.posterior(family.prior_natural).parameters()
    assert again.keys() == family.prior.parameters().keys()
    assert all(np.allclose(again[key], value, rtol=1e-12) for key, value in family.prior.parameters().items())


@every_family
def test_a_message_is_packed_into_its_distinct_numbers(name: str) -> None:
    family = family_of(name)
    message = family.pack(family.prior_natural)
    assert message.shape == (family.message_doubles,)
    assert close(family.unpack(message), family.prior_natural, 0.0)
    with pytest.raises(ValueError, match=rf"natural: expected a vector of {len(message)} numbers, got shape"):
        family.unpack(message[:-1])
    triangle = DIM * (DIM + 1) // 2
    matrices = {
        "full_gaussian": triangle,
        "block_diagonal_gaussian": 1 + 6,
        "low_rank_gaussian": DIM * 3,
        "gaussian_gamma": triangle + 2,
    }
    assert family.message_doubles == DIM + matrices.get(name, DIM * (len(family.shapes) - 1))


@every_family
def test_stacks_that_are_symmetric_stay_as_they_are_and_others_become_so(name: str) -> None:
    family, rng = family_of(name), np.random.default_rng(8)
    for slot, own in zip(
        family.symmetrised(tuple(s[None] for s in family.prior_natural)), family.prior_natural, strict=True
    ):
        np.testing.assert_allclose(slot[0], own, rtol=1e-14)
    once = family.symmetrised(tuple(rng.normal(size=(2, *shape)) for shape in family.shapes))
    for one, other in zip(once, family.symmetrised(once), strict=True):
        np.testing.assert_array_equal(one, other)
        if one.ndim == 3:
            np.testing.assert_array_equal(one, np.swapaxes(one, 1, 2))


@every_family
def test_the_metric_is_the_curvature_of_kl(name: str) -> None:
    family, step = family_of(name), 1e-4
    rng = np.random.default_rng(3)
    direction = tuple(rng.normal(size=shape) for shape in family.shapes)
    direction = family.symmetrised(tuple(slot[None] for slot in direction))
    (row,) = family.whiten(family.prior_natural, direction)
    moved = tuple(a + step * d[0] for a, d in zip(family.prior_natural, direction, strict=True))
    back = tuple(a - step * d[0] for a, d in zip(family.prior_natural, direction, strict=True))
    both = family.kl(family.prior_natural, moved) + family.kl(family.prior_natural, back)
    assert both == pytest.approx(step**2 * row @ row, rel=1e-4)
    assert row @ row <= family.fisher_bound(family.prior_natural) * sum(np.sum(d**2) for d in direction) * (1 + 1e-9)


@every_family
def test_the_margin_is_where_the_domain_begins(name: str) -> None:
    family = family_of(name)
    rng = np.random.default_rng(4)
    dual = family.symmetrised(tuple(-rng.uniform(0.2, 2.0, (1, *shape)) for shape in family.shapes))
    eta = tuple(slot[0] for slot in dual)
    rho = family.required_rho(family.prior_natural, eta, None)

    def inside(at: float) -> bool:
        return family.in_domain(tuple(at * a + b for a, b in zip(family.prior_natural, eta, strict=True)))

    assert inside(max(rho, 0.0) * (1 + 1e-6) + 1e-6)
    if rho > 0:
        assert not inside(rho * (1 - 1e-6))


def test_growth_of_the_loss_lowers_the_margin() -> None:
    for name in ("isotropic_gaussian", "diagonal_gaussian", "block_diagonal_gaussian", "full_gaussian"):
        family = family_of(name)
        zero = tuple(np.zeros(shape) for shape in family.shapes)
        assert family.required_rho(family.prior_natural, zero, np.eye(DIM)) < -0.05
        assert family.required_rho(family.prior_natural, zero, np.ones(DIM)) == pytest.approx(
            family.required_rho(family.prior_natural, zero, np.eye(DIM)), rel=1e-10
        )


@every_family
def test_the_chart_goes_back_and_stays_inside(name: str) -> None:
    family = family_of(name)
    other = family.adopt(member(name, 1) if name != "isotropic_gaussian" else Gaussian(np.arange(4.0), 0.7))
    chart = family.chart(family.prior)
    x, y = chart.vector(family.prior), chart.vector(other)
    for point, wanted in ((x, family.prior), (y, other)):
        found = chart.point(point)
        assert found is not None
        assert close(found[0], family.natural(wanted), 1e-10)
    middle = chart.point(0.5 * (x + y))
    assert middle is not None
    assert family.in_domain(middle[0])


@pytest.mark.parametrize("name", [n for n in registry.names() if registry.structure(n) is FactorisingFamily])
def test_a_charts_derivative_is_that_of_its_points(name: str) -> None:
    family = family_of(name)
    chart: Any = family.chart(family.prior)
    x, step = chart.vector(family.prior), 1e-6
    for j, column in enumerate(chart.columns(family.prior_natural)):
        along = np.repeat(np.arange(len(column)) == j, family.dim) * step
        ahead, behind = chart.point(x + along), chart.point(x - along)
        assert ahead is not None and behind is not None
        for derivative, right, left in zip(column, ahead[0], behind[0], strict=True):
            np.testing.assert_allclose(derivative, (right - left) / (2 * step), rtol=1e-8, atol=1e-9)


def test_a_fixed_parameter_is_no_slot() -> None:
    family = family_of("isotropic_gaussian")
    assert family.fixed == {"precision": 0.7}
    assert len(family.shapes) == 1


def test_a_statistic_that_a_linear_loss_leaves_out_has_the_coefficient_zero() -> None:
    gamma = registry.bind("gamma", badmm.Gamma([2.0, 1.0], 1.0))
    found = gamma.linear({"theta": np.array([3.0, 4.0])})
    assert found is not None
    by_name = dict(zip((name for name, _ in gamma.ns.STATISTICS), found, strict=True))
    assert by_name["log(theta)"].tolist() == [0.0, 0.0] and by_name["theta"].tolist() == [-3.0, -4.0]
    assert gamma.linear({"theta": np.ones(2), "theta**3": np.zeros(2)}) is not None
    assert gamma.linear({"theta": np.ones(2), "theta**3": np.ones(2)}) is None


def test_the_families_that_a_loss_is_conjugate_to() -> None:
    H, b = matrix(), np.ones(DIM)
    whole, diagonal = Quadratic(H, b), Quadratic(np.diag(np.diag(H)), b)
    full, independent = family_of("full_gaussian"), family_of("diagonal_gaussian")
    found = whole.constant_natural_gradient(full)
    assert found is not None and close(found, (-b, -H), 0.0)
    assert whole.constant_natural_gradient(independent) is None
    found = diagonal.constant_natural_gradient(independent)
    assert found is not None and close(found, (-b, -np.diag(H)), 0.0)
    assert whole.constant_natural_gradient(family_of("isotropic_gaussian")) is None
    counts, none = PoissonRate([3, 2], 2.0), PoissonRate([0, 0], 2.0)
    gamma, exponential = (registry.bind(n, registry.distribution(n)(*v)) for n, v in RATES.items())
    found = counts.constant_natural_gradient(gamma)
    assert found is not None and close(found, (np.array([-5.0]), np.array([-4.0])), 0.0)
    assert counts.constant_natural_gradient(exponential) is None
    found = none.constant_natural_gradient(exponential)
    assert found is not None and close(found, (np.array([-4.0]),), 0.0)


RATES: dict[str, tuple[float, ...]] = {"gamma": (2.0, 1.0), "exponential": (1.5,)}


def test_a_conjugate_client_of_the_exponential_family_is_exact_in_one_round() -> None:
    clients = [PoissonRate([0], exposure) for exposure in (0.5, 2.0, 4.0)]
    result = badmm.solve(clients, family="exponential", prior=badmm.Exponential(1.5), rounds=1)
    assert result.posterior.parameters()["rate"] == pytest.approx([8.0], rel=1e-14)
    assert result.history[-1].dual_residual < 1e-14
    assert np.isfinite(result.history[-1].objective)


class Survival:
    """E[θ²]/2 under any family of a positive rate, from draws of the family's own: not conjugate."""

    def natural_gradient(self, q: Any) -> Natural:
        # E[θ²] = 2/r² under an exponential: dL/dr = −2/r³, and ∇_μ L = r² dL/dr
        return (-2.0 / q.rate,)

    def expected_loss(self, q: Any) -> float:
        return float(np.sum(1.0 / q.rate**2))


def test_a_client_that_is_not_conjugate_is_solved_in_the_derived_chart() -> None:
    result = badmm.solve([Survival(), Survival()], family="exponential", prior=badmm.Exponential(0.3), tol=1e-10)
    rate = result.posterior.parameters()["rate"][0]
    assert result.converged
    assert rate == pytest.approx(0.3 + 4.0 / rate, rel=1e-9)


class Counter:
    """Counts the Cholesky factorisations of a run, by whoever makes them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(checks, "dpotrf", self.counted(dpotrf))
        monkeypatch.setattr(linalg, "cholesky", self.counted(linalg.cholesky))

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return function(*args, **kwargs)

        return wrapped


def test_a_natural_parameter_is_factored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    family = family_of("full_gaussian")
    natural = family.parameter(family.prior_natural[:])
    assert isinstance(natural, FactoredNatural)
    fresh = family.parameter(tuple(slot.copy() for slot in natural))
    counter = Counter(monkeypatch)
    assert family.in_domain(fresh)
    q = family.posterior(fresh)
    assert isinstance(q, Gaussian)
    _ = (q.variance, q.covariance, q.sample(3), family.natural(q), family.inside(family.natural(q)))
    _ = (family.whiten(fresh, tuple(slot[None] for slot in natural)), family.required_rho(fresh, natural, None))
    assert counter.count == 1


def test_an_evaluation_factors_two_matrices_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The iterate and the map's image; they were factored twice each when every function factored its own argument."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 12))
    clients = [LogisticRegression(X[k::2], (rng.random(100) < 0.5).astype(int)) for k in range(2)]
    counter = Counter(monkeypatch)
    result = badmm.solve(clients, family="full_gaussian", prior=Gaussian(np.zeros(12), 1.0))
    evaluations = sum(record.evaluations for record in result.history)
    # the server checks, its posterior, the objective, that of the clients where they start, each client's condition
    per_round = 11 + len(clients)
    assert counter.count <= 2 * evaluations + per_round * result.rounds


def test_an_indefinite_target_is_refused_and_named() -> None:
    family = family_of("full_gaussian")
    assert family.inside(family.parameter((np.zeros(DIM), -np.eye(DIM)))) is None
    with pytest.raises(ValueError, match="precision: expected a positive definite matrix"):
        family.posterior(family.parameter((np.zeros(DIM), -np.eye(DIM))))


def test_the_solver_names_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"family: expected one of bernoulli, .*, got 'ivon'"):
        registry.bind("ivon", Gaussian(0.0, 1.0))
    with pytest.raises(ValueError, match=r"prior: expected badmm.Exponential for family 'exponential', got Gaussian"):
        registry.bind("exponential", Gaussian(0.0, 1.0))
    with pytest.raises(ValueError, match=r"prior: expected rate \(family = exponential\), got shape"):
        registry.prior("exponential", {"shape": 1.0}, 1)


def test_a_client_of_the_wrong_length_is_refused() -> None:
    family = registry.bind("exponential", badmm.Exponential([1.0, 2.0]))
    with pytest.raises(ValueError, match="clients: expected parameters of length 2"):
        BoundClient(0, PoissonRate([0], 1.0), family, 1.0)
    bound = BoundClient(0, PoissonRate(np.zeros((1, 2)), 1.0), family, 1.0)
    problem = ClientProblem(bound, family.prior_natural, (np.zeros(2),), 1.0)
    assert problem.residual(problem.evaluate((np.array([2.0, 3.0]),)), (np.array([2.0, 3.0]),)) == 0.0
