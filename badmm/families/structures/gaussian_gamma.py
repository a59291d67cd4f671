"""Gaussian-gamma: a regression's coefficients θ (d,) and its noise precision τ together.

    θ | τ ~ N(m, (τS)⁻¹),  τ ~ Gamma(a, β)       T = (τθ, −½τθθᵀ, log τ, −τ),  base measure (2π)^{−d/2} τ^{d/2 − 1}
    λ = (ξ, S, a, b) = (S m, S, a, β + ½ mᵀSm)    A(λ) = log Γ(a) − a log β − ½ log det S

Its kernels are those of the full Gaussian and of the gamma, composed; `derive/claims/gaussian_gamma.py` proves how.
Source: Bernardo & Smith, Bayesian Theory, 1994, section 5.2 and appendix A.2.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, stdtrit

import badmm_kernels
from badmm.checks import Array, positive_number
from badmm.families.classes import distribution_class
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.factorised import Factorised
from badmm.families.family import Chart, FamilyGeometry, Growth, Natural
from badmm.families.matrix_precision import MatrixPrecision
from badmm.families.slots import SlotKernels

HALF_LOG_2PI = 0.5 * float(np.log(2 * np.pi))


class GaussianGamma(Distribution):
    """Coefficients θ | τ ~ N(mean, (τ precision)⁻¹) and noise precision τ ~ Gamma(shape, rate).

    mean (d,), in the units of θ; precision () , (d,) or (d, d), in those of θ's rows squared (XᵀX); shape > 0; rate > 0
    in the units of the response squared. Raises `ValueError` for anything else. θ alone is a multivariate Student t
    with 2·shape degrees of freedom.
    """

    operator: MatrixPrecision
    """S with its factor."""
    shape: float
    rate: float

    def __init__(self, mean: ArrayLike, precision: ArrayLike, shape: Any, rate: Any) -> None:
        given = Gaussian(mean, precision)
        operator = MatrixPrecision.adopted(given.operator)
        assert isinstance(operator, MatrixPrecision)
        self._set(given.mean, operator, positive_number(_one(shape), "shape"), positive_number(_one(rate), "rate"))

    def _set(self, mean: Array, operator: MatrixPrecision, shape: float, rate: float) -> None:
        self.__dict__.update(_mean=mean, operator=operator, shape=shape, rate=rate)

    @classmethod
    def of(cls, mean: Array, operator: MatrixPrecision, shape: float, rate: float) -> GaussianGamma:
        """A member from standard parameters that need no check."""
        self = cls.__new__(cls)
        self._set(mean, operator, shape, rate)
        return self

    @property
    def dim(self) -> int:
        """d."""
        return len(self.mean)

    @property
    def mean(self) -> Array:
        """E[θ] (d,), the center where 2·shape ≤ 1."""
        found: Array = self.__dict__["_mean"]
        return found

    @property
    def precision(self) -> Array:
        """S (d, d)."""
        return self.operator.array

    @property
    def variance(self) -> Array:
        """Var[θ] (d,): β/(a − 1) diag S⁻¹, infinite where a ≤ 1."""
        scale = self.rate / (self.shape - 1.0) if self.shape > 1.0 else np.inf
        return np.asarray(scale * self.operator.variance)

    @cached_property
    def noise_precision(self) -> Factorised:
        """τ's marginal, a `badmm.Gamma`."""
        return distribution_class("gamma")(self.shape, self.rate)

    @property
    def noise_variance(self) -> float:
        """E[1/τ] = β/(a − 1); infinite where a ≤ 1."""
        return self.rate / (self.shape - 1.0) if self.shape > 1.0 else float("inf")

    def interval(self, level: float = 0.95) -> Array:
        """Central Student-t intervals of the coefficients (d, 2): m ± t √(β/a · diag S⁻¹), 2a degrees of freedom."""
        if not 0.0 < level < 1.0:
            raise ValueError(f"level: expected a number in (0, 1), got {level!r}")
        half = stdtrit(2.0 * self.shape, 0.5 + 0.5 * level) * np.sqrt(self.rate / self.shape * self.operator.variance)
        return np.stack([self.mean - half, self.mean + half], axis=-1)

    def sample(self, count: int, seed: int = 0) -> Array:
        """`count` draws of θ (count, d) with PCG64 under this seed."""
        rng = np.random.default_rng(seed)
        deviation = 1.0 / np.sqrt(rng.gamma(self.shape, 1.0 / self.rate, count))
        return np.asarray(self.mean + deviation[:, None] * self.operator.root(rng.standard_normal((count, self.dim))))

    def parameters(self) -> dict[str, Array]:
        """mean (d,), precision (d, d), shape (1,) and rate (1,)."""
        numbers = {"shape": np.array([self.shape]), "rate": np.array([self.rate])}
        return {"mean": self.mean, "precision": self.precision, **numbers}


def _one(value: Any) -> Any:
    """A number, out of an array that holds one."""
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


class GaussianGammaKernels(SlotKernels):
    """Compositions of the full Gaussian's and the gamma's kernels; the slots a and b are arrays (..., 1)."""

    NAME = "gaussian_gamma"
    NATURAL = ("precision_mean", "precision", "shape", "rate")
    STANDARD = ("mean", "precision", "shape", "rate")
    STATISTICS = (("tau*theta", 1.0), ("tau*theta*theta.T", -0.5), ("log(tau)", 1.0), ("tau", -1.0))

    @cached_property
    def full(self) -> Any:
        """The full Gaussian's kernels."""
        return badmm_kernels.load("full_gaussian")

    @cached_property
    def gamma(self) -> Any:
        """The gamma's kernels."""
        return badmm_kernels.load("gamma")

    def standard_from_natural(self, xi: Array, S: Array, a: Array, b: Array) -> Natural:
        """(m, S, a, β) with β = b − ½ ξᵀS⁻¹ξ."""
        mean, _ = self.full.standard_from_natural(xi, S)
        return mean, S, a, b - 0.5 * np.sum(xi * mean, axis=-1, keepdims=True)

    def natural_from_standard(self, mean: Array, S: Array, a: Array, beta: Array) -> Natural:
        """(S m, S, a, β + ½ mᵀSm)."""
        xi, _ = self.full.natural_from_standard(mean, S)
        return xi, S, a, beta + 0.5 * np.sum(xi * mean, axis=-1, keepdims=True)

    def expectation_from_natural(self, xi: Array, S: Array, a: Array, b: Array) -> Natural:
        """(τ̄ m, −½(S⁻¹ + τ̄ m mᵀ), E[log τ], −τ̄) with τ̄ = a/β."""
        _, _, _, beta = self.standard_from_natural(xi, S, a, b)
        tau = a / beta
        # √τ̄ ξ has the mean √τ̄ m: the second moment comes out as it is
        scaled, second = self.full.expectation_from_natural(np.sqrt(tau) * xi, S)
        return np.sqrt(tau) * scaled, second, *self.gamma.expectation_from_natural(a, beta)

    def natural_from_expectation(self, mu1: Array, mu2: Array, log_tau: Array, minus_tau: Array) -> Natural:
        """λ(μ)."""
        tau = -minus_tau
        _, S = self.full.natural_from_expectation(mu1 / np.sqrt(tau), mu2)
        a, beta = self.gamma.natural_from_expectation(log_tau, minus_tau)
        return self.natural_from_standard(mu1 / tau, S, a, beta)

    def log_partition(self, xi: Array, S: Array, a: Array, b: Array) -> float:
        """A(λ)."""
        _, _, _, beta = self.standard_from_natural(xi, S, a, b)
        return float(self.gamma.log_partition(a, beta) + self.full.log_partition(np.zeros_like(xi), S))

    def entropy(self, xi: Array, S: Array, a: Array, b: Array) -> float:
        """H[τ] + E[H[θ | τ]], the latter the full Gaussian's less d/2 E[log τ]."""
        _, _, _, beta = self.standard_from_natural(xi, S, a, b)
        spread = 0.5 * xi.shape[-1] * float(np.sum(digamma(a) - np.log(beta)))
        return float(self.gamma.entropy(a, beta) + self.full.entropy(xi, S)) - spread

    def kl(self, natural_q: Natural, natural_p: Natural) -> float:
        """KL of the gammas, and E over τ of that of the Gaussians: the full Gaussian's with means times √τ̄_q."""
        (xi_q, S_q, a_q, _), (xi_p, S_p, a_p, _) = natural_q, natural_p
        beta_q, beta_p = (self.standard_from_natural(*natural)[3] for natural in (natural_q, natural_p))
        root = np.sqrt(a_q / beta_q)
        of_means = self.full.kl((root * xi_q, S_q), (root * xi_p, S_p))
        return float(self.gamma.kl((a_q, beta_q), (a_p, beta_p)) + of_means)


class GaussianGammaFamily(FamilyGeometry):
    """Members of the Gaussian-gamma; the domain is S ≻ 0, a > 0, b > ½ ξᵀS⁻¹ξ, that is [[S, ξ], [ξᵀ, 2b]] ≻ 0."""

    mixing_memory = 8

    @classmethod
    def distribution(cls, ns: Any) -> type[Distribution]:
        """GaussianGamma."""
        return GaussianGamma

    def adopt(self, prior: Distribution) -> Distribution:
        """The prior itself, where it is one."""
        if not isinstance(prior, GaussianGamma):
            got = type(prior).__name__
            raise ValueError(f"prior: expected badmm.GaussianGamma for family {self.name!r}, got {got}")
        prior.operator.check()
        return prior

    def natural(self, distribution: Any) -> Natural:
        """(S m, S, a, β + ½ mᵀSm)."""
        q = distribution
        xi = q.operator.matvec(q.mean)
        return xi, q.precision, np.array([q.shape]), np.array([q.rate + 0.5 * float(xi @ q.mean)])

    def posterior(self, natural: Natural) -> GaussianGamma:
        """The member with natural parameter λ; raises `ValueError` outside the domain."""
        mean, S, a, beta = self.ns.standard_from_natural(*natural)
        rate = positive_number(float(beta[0]), "rate - xi^T S^-1 xi / 2")
        return GaussianGamma.of(mean, MatrixPrecision(S, len(mean)), positive_number(float(a[0]), "shape"), rate)

    def in_domain(self, natural: Natural) -> bool:
        """Whether λ is finite and in the domain."""
        finite = all(np.isfinite(slot).all() for slot in natural)
        return bool(finite and natural[2][0] > 0 and _bordered(natural).is_definite)

    def required_rho(self, natural_global: Natural, dual: Natural, growth: Growth, enough: float = -np.inf) -> float:
        """The largest of −η_a/a_g and the eigenvalues of −[[η_S, η_ξ], [η_ξᵀ, 2η_b]] in units of λ_g's."""
        eta = tuple(a + b for a, b in zip(dual, growth, strict=True)) if isinstance(growth, tuple) else dual
        of_matrix = _bordered(natural_global).largest_ratio(-_bordered(eta).array, enough)
        return max(of_matrix, float(-eta[2][0] / natural_global[2][0]))

    def whiten(self, natural: Natural, directions: Natural) -> Array:
        """√τ̄ L⁻¹(dξ − dS m), L⁻¹dS L⁻ᵀ/√2, and the gamma's at dβ = db − mᵀdξ + ½ mᵀdS m."""
        q = self.posterior(natural)
        d_xi, d_s, d_a, d_b = directions
        moved = d_s @ q.mean
        d_beta = d_b - ((d_xi - 0.5 * moved) @ q.mean)[:, None]
        shift = np.sqrt(q.shape / q.rate) * q.operator.root_transpose((d_xi - moved).T).T
        spread = q.operator.congruence(d_s).reshape(len(d_s), -1) / np.sqrt(2)
        own = np.array([q.shape]), np.array([q.rate])
        rows = [np.concatenate(self.ns.gamma.whiten(own, change)) for change in zip(d_a, d_beta, strict=True)]
        return np.concatenate([shift, spread, np.array(rows)], axis=1)

    def fisher_bound(self, natural: Natural) -> float:
        """τ̄v(1 + ‖m‖²) + v²/2 + g(2 + ‖m‖² + ‖m‖⁴/4), v the largest eigenvalue of S⁻¹, g the trace of the gamma's F."""
        q = self.posterior(natural)
        v, size = q.operator.largest_variance, float(q.mean @ q.mean)
        own = np.array([q.shape]), np.array([q.rate])
        units = [(np.array([1.0]), np.array([0.0])), (np.array([0.0]), np.array([1.0]))]
        g = sum(float(np.sum(np.square(self.ns.gamma.whiten(own, unit)))) for unit in units)
        return q.shape / q.rate * v * (1.0 + size) + 0.5 * v**2 + g * (2.0 + size + 0.25 * size**2)

    def chart(self, reference: Distribution) -> Chart:
        """(m, S) in units of a reference, log a and log β."""
        assert isinstance(reference, GaussianGamma)
        return GaussianGammaChart(self, reference)

    def pack(self, natural: Natural) -> Array:
        """ξ, the lower triangle of S, a and b."""
        return np.concatenate([natural[0], natural[1][np.tril_indices(self.dim)], natural[2], natural[3]])

    def _slots(self, message: Array) -> Natural:
        d = self.dim
        lower = np.zeros((d, d))
        lower[np.tril_indices(d)] = message[d:-2]
        return message[:d], lower + np.tril(lower, -1).T, message[-2:-1], message[-1:]

    def symmetrised(self, stacked: Natural) -> Natural:
        """Stacks whose matrices are symmetric to the last bit."""
        return stacked[0], 0.5 * (stacked[1] + np.swapaxes(stacked[1], -1, -2)), stacked[2], stacked[3]


def _bordered(natural: Natural) -> MatrixPrecision:
    """[[S, ξ], [ξᵀ, 2b]]."""
    xi, S, _, b = natural
    return MatrixPrecision(np.block([[S, xi[:, None]], [xi[None], 2.0 * b[None]]]), len(xi) + 1)


class GaussianGammaChart(Chart):
    """(√τ̄ D(m − m_ref), the triangle of D⁻¹SD⁻¹, log a, log β), D² the diagonal of the reference's S."""

    def __init__(self, family: GaussianGammaFamily, reference: GaussianGamma) -> None:
        self.family, self._reference = family, reference
        self._unit = np.sqrt(reference.operator.diagonal)
        self._root = np.sqrt(reference.shape / reference.rate)
        self._lower = np.tril_indices(reference.dim)

    def vector(self, q: Distribution) -> Array:
        """The point of a distribution."""
        assert isinstance(q, GaussianGamma)
        mean = self._root * (q.mean - self._reference.mean) * self._unit
        scaled = (q.precision / np.outer(self._unit, self._unit))[self._lower]
        return np.concatenate([mean, scaled, np.log([q.shape, q.rate])])

    def point(self, x: Array) -> tuple[Natural, Distribution] | None:
        """λ and the distribution of a point; None outside the domain."""
        d = len(self._unit)
        with np.errstate(over="ignore", under="ignore"):
            shape, rate = np.exp(x[-2:])
        lower = np.zeros((d, d))
        lower[self._lower] = x[d:-2]
        operator = MatrixPrecision((lower + np.tril(lower, -1).T) * np.outer(self._unit, self._unit), d)
        if not (np.isfinite(x).all() and 0 < shape < np.inf and 0 < rate < np.inf and operator.is_definite):
            return None
        mean = self._reference.mean + x[:d] / (self._root * self._unit)
        q = GaussianGamma.of(mean, operator, float(shape), float(rate))
        return self.family.natural(q), q


STRUCTURE, KERNELS = GaussianGammaFamily, GaussianGammaKernels()
