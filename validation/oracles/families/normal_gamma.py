"""The normal-gamma family: T = (log tau, -tau, tau x, -tau x^2/2), lambda = (a, r + s m^2/2, s m, s)."""

from __future__ import annotations

import mpmath
import numpy as np

from ...calls import Array, Call
from ...points import generator, grown, spread
from ...ulps import Terms
from ..family import FactorisingOracle, Fault, Pair, Point, Slots, SlotTerms, cast

LARGEST_MEAN = 10.0  # times sqrt(r/s): there b - xi^2/(2 s) has lost two digits


class NormalGamma(FactorisingOracle):
    """Shapes, rates and precisions over six decades."""

    domains = ("positive", "positive", "real", "positive")
    standard_domains = ("positive", "positive", "real", "positive")
    theta_domains = ("real", "positive")
    joint_faults = ((1, 0.05), (2, 50.0))
    decades = 3.0
    tolerances = dict.fromkeys(
        ("expectation_from_natural", "natural_gradient", "log_density", "log_marginal", "margin", "whiten"), 1e-14
    )
    ulps = {"natural_change": 4.0}

    def rest(self, natural: Point) -> Terms:
        """r = b - xi^2/(2 s)."""
        _, b, xi, s = natural
        return [b, -(xi**2) / (2 * s)]

    def log_partition(self, natural: Point) -> Terms:
        """log Gamma(a) - a log r - log(s)/2."""
        a, s = natural[0], natural[3]
        return [mpmath.loggamma(a), -a * mpmath.log(mpmath.fsum(self.rest(natural))), -mpmath.log(s) / 2]

    def entropy(self, natural: Point) -> Terms:
        """The gamma's, and the mean over tau of log(2 pi e/(tau s))/2."""
        a, s = natural[0], natural[3]
        shape = a + mpmath.loggamma(a) + (mpmath.mpf(1) / 2 - a) * mpmath.digamma(a)
        logs = [mpmath.log(mpmath.fsum(self.rest(natural))), mpmath.log(s)]
        return [shape, *(-log / 2 for log in logs), (mpmath.log(2 * mpmath.pi) + 1) / 2]

    def log_marginal(self, point: Point) -> SlotTerms:
        """The gamma's (a - 1) log tau - r tau + a log r - log Gamma(a)."""
        tau, *natural = point
        a, r = natural[0], mpmath.fsum(self.rest(natural))
        return [[a * mpmath.log(tau), -mpmath.log(tau), -r * tau, a * mpmath.log(r), -mpmath.loggamma(a)]]

    def conditional(self, point: Point) -> SlotTerms:
        """Mean xi/s and precision tau s."""
        tau, _, _, xi, s = point
        return [[xi / s], [tau * s]]

    def log_density(self, point: Point) -> SlotTerms:
        """The gamma's, and that of a normal with mean xi/s and precision tau s."""
        x, *rest = point
        (mean,), (precision,) = self.conditional(rest)
        ((*gamma,),) = self.log_marginal(rest)
        normal = [mpmath.log(precision) / 2, -mpmath.log(2 * mpmath.pi) / 2, -precision * (x - mean) ** 2 / 2]
        return [[*gamma, *normal]]

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """(a, r + s m^2/2, s m, s)."""
        a, r, m, s = standard
        return [[a], [r, s * m**2 / 2], [s * m], [s]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """(a, r, xi/s, s)."""
        a, _, xi, s = natural
        return [[a], list(self.rest(natural)), [xi / s], [s]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """(digamma(a) - log r, -a/r, m a/r, -m^2 a/(2 r) - 1/(2 s))."""
        a, _, xi, s = natural
        r, m = mpmath.fsum(self.rest(natural)), xi / s
        return [[mpmath.digamma(a), -mpmath.log(r)], [-a / r], [m * a / r], [-(m**2) * a / (2 * r), -1 / (2 * s)]]

    def natural_change(self, point: Point) -> SlotTerms:
        """(da, dr + m^2 ds/2 + s m dm, m ds + s dm, ds)."""
        _, _, m, s, da, dr, dm, ds = point
        return [[da], [dr, m**2 * ds / 2, s * m * dm], [m * ds, s * dm], [ds]]

    def margin(self, point: Point) -> SlotTerms:
        """The largest rho at which 2 b s = xi^2 along rho lambda + eta: a root of a quadratic equation."""
        _, b, xi, s, _, db, dxi, ds = point
        with mpmath.workdps(100):
            square, half = 2 * b * s - xi**2, b * ds + s * db - xi * dxi
            root = mpmath.sqrt(half**2 - square * (2 * db * ds - dxi**2))
            return [[-half / square, root / square]]

    def inverse_scale(self, mu: Point) -> list[mpmath.mpf]:
        """|mu_1| + 1, since E log tau passes through zero, |mu_2|, the geometric mean of mu_2 and mu_4, |mu_4|."""
        return [abs(mu[0]) + 1, abs(mu[1]), mpmath.sqrt(mu[1] * mu[3]), abs(mu[3])]

    # ---- points: members are made of standard parameters, and keep their digits in lambda ----

    def standards(
        self, rng: np.random.Generator, size: tuple[int, ...], decades: float, largest: float = LARGEST_MEAN
    ) -> Slots:
        """Standard parameters; a mean is at most `largest`, and at least a thousandth of that, times sqrt(r/s)."""
        a, r, s = (10.0 ** rng.uniform(-decades, decades, size) for _ in range(3))
        m = np.sqrt(r / s) * largest * 10.0 ** rng.uniform(-3.0, 0.0, size) * rng.choice((-1.0, 1.0), size)
        return a, r, m, s

    @staticmethod
    def natural(standard: Slots, dtype: str) -> Slots:
        """lambda of standard parameters."""
        a, r, m, s = standard
        return cast((a, r + 0.5 * s * m**2, s * m, s), dtype)

    def natural_points(self, rng: np.random.Generator, count: int, decades: float, dtype: str) -> Slots:
        """Members with magnitudes spread over 10**-decades .. 10**decades."""
        return self.natural(self.standards(rng, (count,), decades), dtype)

    def inverse_points(self, dtype: str, count: int) -> Slots:
        """Means of members; in float32 of those in whose rounded lambda r keeps its digits."""
        rng, largest = generator("normal_gamma inverse", dtype, count), LARGEST_MEAN if dtype == "float64" else 0.5
        natural = self.natural(self.standards(rng, (count,), self.decades, largest), dtype)
        return self.image(self.expectation_from_natural, natural, dtype)

    def ordinary(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Slots:
        """Members for sums over coordinates."""
        return self.natural(self.standards(rng, size, 3.0), dtype)

    def well_inside(self, rng: np.random.Generator, size: int, dtype: str) -> Slots:
        """Members of moderate numbers."""
        a, xi, s = (rng.uniform(0.5, 2.0, size) for _ in range(3))
        return cast((a, rng.uniform(4.5, 6.0, size), xi, s), dtype)

    def gradients(self, rng: np.random.Generator, size: int, rows: int) -> Slots:
        """Those of normal samples: (-n/2, -sum y^2/2, -sum y, -n)."""
        count, mean, spread = rng.uniform(1.0, 5.0, (rows, size)), *rng.normal(size=(2, rows, size))
        return -0.5 * count, -0.5 * count * (mean**2 + spread**2 + 0.1), -count * mean, -count

    def near(self, rng: np.random.Generator, step: Array, ratio: float, dtype: str) -> Pair:
        """Steps of every standard parameter in its standard deviations."""
        a, r, m, s = self.standards(rng, step.shape[1:], 2.0)
        by_shape = np.minimum(1.0, 1.0 / np.sqrt(a))
        shape, rate, precision = a * grown(step[0] * by_shape), r * grown(step[1] * by_shape), s * grown(step[3])
        reach = LARGEST_MEAN * np.sqrt(rate / precision)
        moved = shape, rate, np.clip(m + step[2] * np.sqrt(r / (a * s)), -reach, reach), precision
        return Pair(self.natural(moved, dtype), self.natural((a, r, m, s), dtype), "")

    def moderate_pair(self, rng: np.random.Generator, step: Array, dtype: str) -> Pair:
        """Factors exp(step), and means that many standard deviations, apart."""
        a, r, m, s = self.standards(rng, step.shape[1:], 1.0)
        moved = a * np.exp(step[0]), r * np.exp(step[1]), m + step[2] * np.sqrt(r / (a * s)), s * np.exp(step[3])
        return Pair(self.natural(moved, dtype), self.natural((a, r, m, s), dtype), "moderately apart")

    def far(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Pair:
        """Members that have nothing to do with each other."""
        q, p = (self.natural(self.standards(rng, size, 3.0), dtype) for _ in range(2))
        return Pair(q, p, "far apart")

    def theta_slots(self, rng: np.random.Generator, count: int, dtype: str) -> Slots:
        """Any x, and tau > 0."""
        return spread(rng, count, 1.0, True, dtype), spread(rng, count, 1.0, False, dtype)

    def map_calls(self, dtype: str, count: int) -> list[Call]:
        """Maps at members, directions and gradients of any size."""
        rng = generator("normal_gamma maps", dtype, count)
        standard = cast(self.standards(rng, (count,), 2.0), dtype)
        natural = self.natural_points(rng, count, 2.0, dtype)
        change = tuple(spread(rng, count, 2.0, True, dtype) for _ in range(4))
        few = min(count, max(count // 20, 8))  # the natural gradient differentiates numerically
        short = tuple(slot[:few] for slot in (*standard, *change))
        nearly = tuple((-slot * (1.0 + 1e-6 * rng.normal(size=count))).astype(dtype) for slot in natural)
        return [
            Call("natural_gradient", short),
            Call("natural_from_standard", standard),
            Call("natural_change", (*standard, change)),
            Call("standard_from_natural", natural),
            Call("expectation_from_natural", natural),
            Call("margin", (natural, change)),
            Call("margin", (natural, nearly), "duals near multiples of lambda"),
        ]

    def density_calls(self, dtype: str, count: int) -> list[Call]:
        """Densities at draws of any size, the marginal and the conditional there, and the metric."""
        metric, _ = super().density_calls(dtype, count)
        rng = generator("normal_gamma density", dtype, count)
        natural, (x, tau) = self.ordinary(rng, (count,), dtype), self.theta_slots(rng, count, dtype)
        others = (Call(name, (tau, *natural)) for name in ("log_marginal", "conditional"))
        return [metric, Call("log_density", (x, tau, *natural)), *others]

    def expectation_faults(self, natural: Slots, place: int) -> tuple[Slots, list[Fault]]:
        """Also E log tau above log E tau, and E tau x^2 below (E tau x)^2/E tau."""
        mu, found = super().expectation_faults(natural, place)
        return mu, [*found, (0, 20.0), (1, 0.0), (1, 0.5), (3, 0.0), (2, 1e4)]


ORACLE = NormalGamma()
