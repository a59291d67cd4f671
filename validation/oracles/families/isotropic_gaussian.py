"""The isotropic Gaussian at a fixed precision s: T = theta, natural parameter s m, expectation parameter m.

Its base measure is N(theta; 0, 1/s), one coordinate at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import torch

from ...calls import Array, Call
from ...points import LINEAR_DECADES, generator, spread
from ...ulps import Terms
from ..family import MAPS, FactorisingOracle, Pair, Point, Slots, SlotTerms, cast
from ..gaussian import Gaussian

# Fixed precisions that both types hold exactly, so that the oracle and the kernel start from one number.
PRECISIONS = (1.0, float(np.float32(0.3)), 2.0**-20, 1e4)


@dataclass(frozen=True)
class IsotropicGaussian(Gaussian, FactorisingOracle):
    """The family at one precision."""

    precision: float = PRECISIONS[1]

    domains = ("real",)
    standard_domains = ("real",)
    ratios = (0.0, 1.0, 1e2, 1e4)
    real_line = True
    tolerances = {"log_density": 1e-14}

    def log_partition(self, natural: Point) -> Terms:
        """lambda^2 / (2 s)."""
        return [natural[0] ** 2 / (2 * mpmath.mpf(self.precision))]

    def entropy(self, natural: Point) -> Terms:
        """log(2 pi e) / 2 - log(s) / 2."""
        return [mpmath.log(2 * mpmath.pi * mpmath.e) / 2, -mpmath.log(self.precision) / 2]

    def log_density(self, point: Point) -> SlotTerms:
        """log(s)/2 - log(2 pi)/2 + theta lambda - s theta^2/2 - lambda^2/(2 s): expanded, as the mean is rounded."""
        theta, natural = point
        precision = mpmath.mpf(self.precision)
        constants = [mpmath.log(precision) / 2, -mpmath.log(2 * mpmath.pi) / 2]
        return [[*constants, theta * natural, -precision * theta**2 / 2, -(natural**2) / (2 * precision)]]

    def kl(self, q: Point, p: Point) -> Any:
        """(lambda_q - lambda_p)^2 / (2 s)."""
        return (q[0] - p[0]) ** 2 / (2 * mpmath.mpf(self.precision))

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """s m."""
        return [[mpmath.mpf(self.precision) * standard[0]]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """lambda / s."""
        return [[natural[0] / mpmath.mpf(self.precision)]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """lambda / s."""
        return self.standard_from_natural(natural)

    def natural_from_expectation(self, mu: Point) -> SlotTerms:
        """s mu."""
        return self.natural_from_standard(mu)

    def natural_gradient(self, point: Point) -> SlotTerms:
        """g: with a fixed precision no Hessian enters."""
        return [[point[1]]]

    def map_calls(self, dtype: str, count: int) -> list[Call]:
        """The maps at several fixed precisions, and the natural gradient with and without a Hessian."""
        calls: list[Call] = []
        for precision in PRECISIONS:
            rng = generator("isotropic", dtype, precision)
            values = spread(rng, max(count // 4, 8), LINEAR_DECADES[dtype] / 2, True, dtype)
            label, fixed = f"precision {precision:.3g}", {"precision": precision}
            calls += [Call(function, (values,), label, fixed) for function in MAPS]
        rng = generator("isotropic", dtype, "gradient")
        mean, gradient, hessian = (spread(rng, count, 2.0, True, dtype) for _ in range(3))
        return [
            *calls,
            Call("natural_gradient", (mean, gradient, hessian)),
            Call("natural_gradient", (mean, gradient, None), "no Hessian"),
        ]

    def near(self, rng: np.random.Generator, step: Array, ratio: float, dtype: str) -> Pair:
        """Means `ratio` standard deviations from zero."""
        root = np.sqrt(self.precision)
        natural = ratio * root * rng.normal(size=step.shape[1:])
        return Pair(cast((natural + step[0] * root,), dtype), cast((natural,), dtype), f", mean {ratio:.0e} sd")

    def far(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Pair:
        """Means apart by up to 12 decades."""
        q, p = (rng.normal(size=size) * 10.0 ** rng.uniform(-6.0, 6.0, size) for _ in range(2))
        return Pair(cast((q,), dtype), cast((p,), dtype), "far apart")

    def columns(self, function: str, columns: list[Array]) -> list[Array]:
        """The scalar natural gradient takes no Hessian."""
        return columns[:2] if function == "natural_gradient" else columns

    def moderate(self, rng: np.random.Generator, size: int) -> Slots:
        """A mean of about one."""
        return (self.precision * rng.normal(size=size),)

    def log_partition_tensor(self, natural: tuple[Any, ...]) -> Any:
        """A(lambda)."""
        return (natural[0] ** 2).sum() / (2.0 * self.precision)

    def standard_tensors(self, natural: tuple[Any, ...]) -> tuple[Any, ...]:
        """(mean, variance)."""
        return self.standard_from_expectation((natural[0] / self.precision,))

    def standard_from_expectation(self, mu: tuple[Any, ...]) -> tuple[Any, ...]:
        """(mu, 1/s)."""
        return mu[0], torch.full_like(mu[0], 1.0 / self.precision)

    def distribution(self, natural: tuple[Any, ...]) -> Any:
        """Normals."""
        mean = natural[0] / self.precision
        return torch.distributions.Normal(mean, torch.full_like(mean, self.precision**-0.5))


ORACLE = IsotropicGaussian()
