"""What the solver needs of a family beside its kernels: priors in, posteriors out, the domain and its margin."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import polygamma

import badmm_kernels
from badmm.checks import Array, cholesky_factor
from badmm.families.distributions import Distribution, Gamma, Gaussian

Natural = tuple[Array, ...]


class Family:
    """A family's kernels bound to one prior. `natural` tuples hold one float64 array a slot.

    Raises `ValueError` for an unknown family and for a prior that is not of the family.
    """

    def __init__(self, name: str, prior: Distribution) -> None:
        self.ns: Any = badmm_kernels.load(name)
        self.name = name
        prior = _fit_prior(name, prior)
        self.prior = prior
        self.dim = prior.dim
        # the isotropic family's precision is no parameter: its kernels take it by keyword
        self._fixed: dict[str, float] = {}
        if isinstance(prior, Gaussian) and name == "isotropic_gaussian":
            self._fixed = {"precision": float(prior.precision)}
        self.prior_natural = self.natural(prior)
        self.shapes = tuple(slot.shape for slot in self.prior_natural)

    @property
    def gaussian(self) -> bool:
        """Whether clients are asked for E[ℓ], E[∇ℓ], E[∇²ℓ]."""
        return self.name != "gamma"

    @property
    def fixed_precision(self) -> float | None:
        """The isotropic family's precision; None for the others."""
        return self._fixed.get("precision")

    @property
    def message_doubles(self) -> int:
        """Numbers in one λ as sent: a symmetric matrix counts its d(d+1)/2 distinct entries."""
        return sum(n * (n + 1) // 2 if len(s) == 2 else n for s in self.shapes for n in s[:1])

    def natural(self, distribution: Distribution) -> Natural:
        """λ of a distribution of this family."""
        if isinstance(distribution, Gamma):
            return self._tuple(self.ns.natural_from_standard(distribution.shape, distribution.rate))
        if self._fixed:
            return self._tuple(self.ns.natural_from_standard(distribution.mean, **self._fixed))
        return self._tuple(self.ns.natural_from_standard(distribution.mean, distribution.precision))

    def posterior(self, natural: Natural) -> Distribution:
        """The distribution with natural parameter λ; raises `ValueError` outside the domain."""
        standard = self._tuple(self.ns.standard_from_natural(*natural, **self._fixed))
        if self.name == "gamma":
            return Gamma._trusted(*standard)
        if self._fixed:
            return Gaussian._trusted(standard[0], np.asarray(self._fixed["precision"]))
        return Gaussian._trusted(*standard)

    def expectation(self, natural: Natural) -> Natural:
        """μ of one λ, or of a stack of them."""
        return self._tuple(self.ns.expectation_from_natural(*natural, **self._fixed))

    def log_partition(self, natural: Natural) -> float:
        """A(λ)."""
        return float(self.ns.log_partition(*natural, **self._fixed))

    def natural_gradient(self, q: Distribution, gradient: Array, hessian: Array | None) -> Natural:
        """∇_μ L from E[∇ℓ] and E[∇²ℓ] (Gaussian families; Bonnet, Price)."""
        assert isinstance(q, Gaussian)
        return self._tuple(self.ns.natural_gradient(q.mean, gradient, hessian))

    def kl(self, q: Natural, p: Natural) -> float:
        """KL(q‖p) in nats."""
        return float(self.ns.kl(q, p, **self._fixed))

    def in_domain(self, natural: Natural) -> bool:
        """Whether λ is finite and its precision (gamma: shape and rate) is positive definite."""
        if not all(np.isfinite(slot).all() for slot in natural):
            return False
        if self.name == "isotropic_gaussian":
            return True
        if self.name == "gamma":
            return all(bool((slot > 0).all()) for slot in natural)
        if self.name == "diagonal_gaussian":
            return bool((natural[1] > 0).all())
        return cholesky_factor(natural[1]) is not None

    def required_rho(self, natural_global: Natural, dual: Natural, growth: Natural | Array | None) -> float:
        """The infimum of the ρ for which ρ λ_g + η (+ the loss's own growth) lies in the domain; may be negative.

        `growth` is G∞: for a Gaussian a matrix with ℓ(θ) ≥ ½ θᵀG∞θ − O(‖θ‖) (None: ℓ grows at most linearly); for
        the other families, and wherever ∇L is constant, −∇L as a natural-shaped tuple.
        """
        if self.name == "gamma":
            extra: Natural = growth if isinstance(growth, tuple) else tuple(np.zeros(s) for s in self.shapes)
            ratios = zip(natural_global, dual, extra, strict=True)
            return max(float(np.max(-(eta + more) / slot)) for slot, eta, more in ratios)
        if isinstance(growth, tuple):
            growth = growth[1] if len(growth) == 2 else None
        if self.name == "isotropic_gaussian":
            lowest = 0.0 if growth is None else float(np.linalg.eigvalsh(growth)[0])
            return -lowest / self._fixed["precision"]
        if self.name == "diagonal_gaussian" and (growth is None or growth.ndim == 1):
            return float(np.max(-(dual[1] + (0.0 if growth is None else growth)) / natural_global[1]))
        return self._largest_ratio(-(self._matrix(dual[1]) + self._matrix(growth)), self._matrix(natural_global[1]))

    def _matrix(self, slot: Array | None) -> Array:
        if slot is None:
            return np.zeros((self.dim, self.dim))
        return np.diag(slot) if slot.ndim == 1 else slot

    @staticmethod
    def _largest_ratio(numerator: Array, denominator: Array) -> float:
        # whitened first: LAPACK's generalized subset solver can fail to converge at condition 1e10
        inverse = Gaussian._trusted(np.zeros(len(denominator)), denominator).inverse_cholesky
        return float(np.linalg.eigvalsh(inverse @ numerator @ inverse.T)[-1])

    def whiten(self, natural: Natural, directions: Natural, posterior: Distribution | None = None) -> Array:
        """Changes of λ (n, ...) as rows (n, size) whose 2-norm is the Fisher metric's at λ (gamma: dλ/λ).

        Gaussians: L⁻¹(dξ − dS m) and L⁻¹ dS L⁻ᵀ/√2, since F⁻¹ weighs dλ by the covariance of the statistics' dual.
        `posterior` is q_λ where it is at hand, with its factor.
        """
        q = self.posterior(natural) if posterior is None else posterior
        count = len(directions[0])
        if isinstance(q, Gamma):
            return np.concatenate([d / slot for d, slot in zip(directions, natural, strict=True)], axis=1)
        if len(directions) == 1:
            return directions[0] / np.sqrt(q.precision)
        d_xi, d_s = directions
        if self.name == "diagonal_gaussian":
            mean = (d_xi - d_s * q.mean) / np.sqrt(q.precision)
            return np.concatenate([mean, d_s / q.precision / np.sqrt(2)], axis=1)
        inverse = q.inverse_cholesky
        mean = (d_xi - d_s @ q.mean) @ inverse.T
        return np.concatenate([mean, (inverse @ d_s @ inverse.T).reshape(count, -1) / np.sqrt(2)], axis=1)

    def fisher_bound(self, natural: Natural) -> float:
        """An upper bound on the largest eigenvalue of the Fisher information F(λ) = ∇²A(λ), in μ's units over λ's.

        Gaussians, with v the largest variance: F acts on (dξ, dS) as dm = Σ(dξ − dS m), and a second slot of at most
        v²/2 + v|m|²; so v(1 + |m|²) + v²/2. Gamma: the trace ψ′(shape) + shape/rate².
        """
        q = self.posterior(natural)
        if isinstance(q, Gamma):
            return float(np.max(polygamma(1, q.shape) + q.shape / q.rate**2))
        if self.name == "isotropic_gaussian":
            return float(1.0 / q.precision)
        if self.name == "diagonal_gaussian":
            v = 1.0 / q.precision
            return float(np.max(v * (1.0 + q.mean**2) + 0.5 * v**2))
        v_max = float(1.0 / np.linalg.eigvalsh(q.precision)[0])
        return v_max * (1.0 + float(q.mean @ q.mean)) + 0.5 * v_max**2

    def stack(self, naturals: list[Natural]) -> Natural:
        """One natural-shaped tuple with a leading client axis."""
        return tuple(np.stack([natural[slot] for natural in naturals]) for slot in range(len(self.shapes)))

    @staticmethod
    def _tuple(values: Any) -> Natural:
        return tuple(np.asarray(value, dtype=np.float64) for value in values)


def _fit_prior(name: str, prior: Distribution) -> Distribution:
    """The prior in the family's own shape; a scalar precision is spread over a diagonal, a vector over a matrix."""
    wanted = Gamma if name == "gamma" else Gaussian
    if not isinstance(prior, wanted):
        raise ValueError(f"prior: expected badmm.{wanted.__name__} for family {name!r}, got {type(prior).__name__}")
    if isinstance(prior, Gamma):
        return prior
    axes = {"isotropic_gaussian": 0, "diagonal_gaussian": 1, "full_gaussian": 2}.get(name)
    if axes is None:
        raise ValueError(f"family: expected one that badmm can solve, got {name!r}")
    precision = prior.precision
    if precision.ndim > axes:
        kinds = ("a scalar", "a scalar or vector", "a scalar, vector or matrix")
        raise ValueError(f"prior: expected {kinds[axes]} precision for family {name!r}, got shape {precision.shape}")
    if axes >= 1:
        precision = np.broadcast_to(precision, (prior.dim,)) if precision.ndim == 0 else precision
    if axes == 2 and precision.ndim == 1:
        precision = np.diag(precision)
    return Gaussian(prior.mean, precision)
