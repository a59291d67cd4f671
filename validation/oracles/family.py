"""What the checks ask of a family: closed forms in mpmath, test points, gradients to differentiate.

A family's file subclasses `FactorisingOracle` (or `FamilyOracle`, for a matrix structure) and names one instance
`ORACLE`. A factorising family states its log-partition, entropy and maps by hand, one coordinate at a time; what
follows from them (KL, natural gradient, points) has a default here, computed at 50 digits or more, that a file may
replace by a closed form or by points at which its formulas cancel. Nothing is taken from the derivation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import mpmath
import numpy as np

from ..calls import Array, Call
from ..points import edges, generator, grown, spread
from ..ulps import Terms

Point = Sequence[Any]  # the mpmath inputs at one coordinate, slots in order
SlotTerms = list[Terms]
Slots = tuple[Array, ...]
Fault = tuple[int, float]  # the array of a call and the bad value to plant there
MAPS = ("natural_from_standard", "standard_from_natural", "expectation_from_natural", "natural_from_expectation")
NOT_FINITE = (np.nan, np.inf, -np.inf)


def jacobian(function: Callable[[Point], list[Any]], point: Point) -> Any:
    """d function_i / d x_j by central differences whose error is about the last third of the digits in use, relative
    to what the function changes by over a distance of |x_j|."""
    columns = []
    for j, x in enumerate(point):
        step = (abs(x) or mpmath.mpf(1)) * mpmath.mpf(10) ** (-mpmath.mp.dps // 3)
        above, below = (function((*point[:j], x + sign * step, *point[j + 1 :])) for sign in (1, -1))
        columns.append([(a - b) / (2 * step) for a, b in zip(above, below, strict=True)])
    return mpmath.matrix(columns).T


class Pair(NamedTuple):
    """Two natural parameters, arrays of rows, and where they lie to each other."""

    q: Slots
    p: Slots
    label: str


@dataclass(frozen=True)
class FamilyOracle(ABC):
    """A family as validation sees it; a dataclass field is a number that every function takes as a keyword."""

    structure: ClassVar[str] = "coordinates"
    differentiable: ClassVar[bool] = False  # whether it has the tensors of `oracles.autograd`

    @property
    def name(self) -> str:
        """The family's name: that of its file."""
        return type(self).__module__.rsplit(".", 1)[1]

    @property
    def fixed(self) -> dict[str, float]:
        """The keywords that functions of the family take."""
        return asdict(self)

    @abstractmethod
    def gradients(self, rng: np.random.Generator, size: int, rows: int) -> Slots:
        """Natural gradients of losses of `rows` clients, float64: subtracted, they keep a parameter in the domain."""

    def naturals(self, rng: np.random.Generator, size: int, rows: int, dtype: str) -> Slots:
        """Natural parameters of `rows` clients."""
        return cast(tuple(np.abs(slot) for slot in self.gradients(rng, size, rows)), dtype)

    def prior(self, rng: np.random.Generator, size: int) -> Slots:
        """One natural parameter, float64."""
        return tuple(np.abs(slot[0]) + 1.0 for slot in self.gradients(rng, size, 1))

    # ---- tensors, where `differentiable`; tensors in float64 ----

    def moderate(self, rng: np.random.Generator, size: int) -> Slots:
        """A natural parameter of moderate numbers, float64."""
        raise NotImplementedError

    def log_partition_tensor(self, natural: tuple[Any, ...]) -> Any:
        """A(lambda), summed over coordinates."""
        raise NotImplementedError

    def standard_tensors(self, natural: tuple[Any, ...]) -> tuple[Any, ...]:
        """What a loss is a function of: (mean, covariance) of a Gaussian, the standard parameters of another."""
        raise NotImplementedError

    def distribution(self, natural: tuple[Any, ...]) -> Any:
        """The distribution as one of torch's own, or None."""
        return None

    def loss(self, *standard: Any) -> Any:
        """A smooth loss of the standard parameters, a tensor."""
        raise NotImplementedError

    def gradient_arguments(self, natural: Slots) -> Slots:
        """The arguments of the kernel `natural_gradient` for that loss."""
        raise NotImplementedError

    def gradient_by_expectation(self, natural: Slots) -> Slots | None:
        """dL/dmu by automatic differentiation, where the loss is a function of mu in closed form."""
        return None


class FactorisingOracle(FamilyOracle):
    """A factorising family: every formula is one coordinate's."""

    domains: ClassVar[tuple[str, ...]]  # of the natural slots: "real" or "positive"
    standard_domains: ClassVar[tuple[str, ...]]
    tolerances: ClassVar[Mapping[str, float]] = {}  # of transcendental maps in float64; other maps: 2 ulp
    ulps: ClassVar[Mapping[str, float]] = {}  # of maps that round more than four times, where 2 ulp are too few
    real_line: ClassVar[bool] = False  # whether theta is any real number, or positive
    discrete: ClassVar[bool] = False  # whether theta is a whole number
    theta_domains: ClassVar[tuple[str, ...]] = ()  # of theta's variables, where there are several
    joint_faults: ClassVar[tuple[Fault, ...]] = ()  # what `well_inside` cannot bear, though its slot can
    decades: ClassVar[float] = 4.0  # magnitudes of test points run over 10**-decades .. 10**decades
    edge_decades: ClassVar[float] = 0.0  # of the extreme ones; 0: twice as many
    ratios: ClassVar[tuple[float, ...]] = (1.0,)  # a mean in standard deviations, for the pairs of KL

    @abstractmethod
    def log_partition(self, natural: Point) -> Terms:
        """A(lambda)."""

    def entropy(self, natural: Point) -> Terms:
        """The entropy in nats; a family states it where it has a closed form."""
        raise NotImplementedError

    @abstractmethod
    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """lambda of the standard parameters."""

    @abstractmethod
    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """The standard parameters of lambda."""

    @abstractmethod
    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """mu = grad A(lambda)."""

    def log_density(self, point: Point) -> SlotTerms:
        """log q(theta) at (theta, *lambda); a family whose kernels have it states it."""
        raise NotImplementedError

    def whiten(self, point: Point) -> SlotTerms:
        """L^T v at (*lambda, *v), L the Cholesky factor of A's second derivative, which is that of mu."""
        count = len(self.domains)
        natural, direction = tuple(point[:count]), point[count:]
        with mpmath.workdps(100):
            factor = mpmath.cholesky(jacobian(self.expectation, natural))
        return [[factor[j, i] * direction[j] for j in range(i, count)] for i in range(count)]

    def natural_from_expectation(self, mu: Point) -> SlotTerms:
        """lambda of mu where that is a closed form; elsewhere the kernel is judged by its backward error."""
        raise NotImplementedError

    @property
    def has_entropy(self) -> bool:
        """Whether `entropy` is stated."""
        return type(self).entropy is not FactorisingOracle.entropy

    @property
    def has_inverse(self) -> bool:
        """Whether `natural_from_expectation` is stated."""
        return type(self).natural_from_expectation is not FactorisingOracle.natural_from_expectation

    def natural_gradient(self, point: Point) -> SlotTerms:
        """J^-T dL/d(standard), J = d mu / d(standard)."""
        count = len(self.standard_domains)
        standard, gradient = tuple(point[:count]), point[count:]
        with mpmath.workdps(100):
            inverse = jacobian(self.moments, standard).T ** -1
        return [[inverse[i, j] * gradient[j] for j in range(count)] for i in range(count)]

    def moments(self, standard: Point) -> list[Any]:
        """mu as numbers, of the standard parameters."""
        return self.expectation([mpmath.fsum(terms) for terms in self.natural_from_standard(standard)])

    def expectation(self, natural: Point) -> list[Any]:
        """mu as numbers, of lambda."""
        return [mpmath.fsum(terms) for terms in self.expectation_from_natural(natural)]

    def kl(self, q: Point, p: Point) -> Any:
        """A(p) - A(q) - <mu_q, p - q>, at 150 digits: what cancels here is far below the digits that are compared."""
        with mpmath.workdps(150):
            a_p, a_q = (mpmath.fsum(self.log_partition(point)) for point in (p, q))
            mu = [mpmath.fsum(terms) for terms in self.expectation_from_natural(q)]
            return a_p - a_q - mpmath.fsum(m * (x - y) for m, x, y in zip(mu, p, q, strict=True))

    def inverse_scale(self, mu: Point) -> list[Any]:
        """What a residual of the inverse map is relative to, by slot of mu."""
        return [abs(x) for x in mu]

    def formula(self, function: str) -> Callable[[Point], SlotTerms]:
        """The closed form of a map or of the natural gradient."""
        found: Callable[[Point], SlotTerms] = getattr(self, function)
        return found

    # ---- points ----

    def natural_points(self, rng: np.random.Generator, count: int, decades: float, dtype: str) -> Slots:
        """A natural parameter with magnitudes spread over 10**-decades .. 10**decades."""
        return tuple(spread(rng, count, decades, domain == "real", dtype) for domain in self.domains)

    def duals(self, rng: np.random.Generator, count: int, decades: float, dtype: str) -> Slots:
        """Any real numbers in every slot."""
        return tuple(spread(rng, count, decades, True, dtype) for _ in self.domains)

    def gradients(self, rng: np.random.Generator, size: int, rows: int) -> Slots:
        """Normals in a real slot, negative in a positive one."""
        shape = (rows, size)
        return tuple(rng.normal(size=shape) if d == "real" else -rng.uniform(0.1, 3.0, shape) for d in self.domains)

    def image(self, formula: Callable[[Point], SlotTerms], given: Slots, dtype: str) -> Slots:
        """A closed form at every coordinate of arrays, rounded to their type."""
        points = zip(*(map(mpmath.mpf, slot.astype(float).tolist()) for slot in given), strict=True)
        rows = [[float(mpmath.fsum(terms)) for terms in formula(point)] for point in points]
        return cast(tuple(np.array(rows).T), dtype)

    def map_calls(self, dtype: str, count: int) -> list[Call]:
        """The maps and the natural gradient at ordinary and extreme points."""
        rng = generator(self.name, "maps", dtype, count)
        ordinary = tuple(spread(rng, count, self.decades, d == "real", dtype) for d in self.standard_domains)
        extreme = tuple(
            edges(self.edge_decades or 2 * self.decades, [d == "real" for d in self.standard_domains], dtype)
        )
        few = min(count, max(count // 20, 8))  # the default of the natural gradient differentiates numerically
        gradient = tuple(spread(rng, few, 2.0, True, dtype) for _ in self.standard_domains)
        calls = [Call("natural_gradient", (*(slot[:few] for slot in ordinary), *gradient), kwargs=self.fixed)]
        for label, standard in (("generic", ordinary), ("edges", extreme)):
            natural = self.image(self.natural_from_standard, standard, dtype)
            calls.append(Call("natural_from_standard", standard, label, self.fixed))
            for function in ("standard_from_natural", "expectation_from_natural"):
                calls.append(Call(function, natural, label, self.fixed))
            if self.has_inverse:
                mu = self.image(self.expectation_from_natural, natural, dtype)
                calls.append(Call("natural_from_expectation", mu, label, self.fixed))
        return calls

    def density_calls(self, dtype: str, count: int) -> list[Call]:
        """The log-density at draws of any size, and the metric along directions of the parameter's own size."""
        rng = generator(self.name, "density", dtype, count)
        few = min(count, max(count // 20, 8))  # the metric's oracle differentiates numerically
        natural = self.ordinary(rng, (count,), dtype)
        theta = self.thetas(rng, count, dtype)
        short = tuple(slot[:few] for slot in natural)
        direction = tuple((slot * rng.normal(size=few)).astype(dtype) for slot in short)
        calls = [Call("whiten", (short, direction), kwargs=self.fixed)]
        if type(self).log_density is not FactorisingOracle.log_density:
            calls.append(Call("log_density", (theta, *natural), kwargs=self.fixed))
        return calls

    def thetas(self, rng: np.random.Generator, count: int, dtype: str) -> Array:
        """Values of theta."""
        return spread(rng, count, 2.0, self.real_line, dtype)

    def theta_slots(self, rng: np.random.Generator, count: int, dtype: str) -> Slots:
        """Values of each of theta's variables."""
        return (self.thetas(rng, count, dtype),)

    @property
    def domains_of_theta(self) -> tuple[str, ...]:
        """Of each of theta's variables."""
        return self.theta_domains or ("real" if self.real_line or self.discrete else "positive",)

    def well_inside(self, rng: np.random.Generator, size: int, dtype: str) -> Slots:
        """A natural parameter of moderate numbers."""
        return tuple(rng.uniform(0.5, 2.0, size).astype(dtype) for _ in self.domains)

    def calls(self, dtype: str, count: int) -> list[Call]:
        """Every map, the natural gradient, the log-density and the metric."""
        return [*self.map_calls(dtype, count), *self.density_calls(dtype, count)]

    def inverse_points(self, dtype: str, count: int) -> Slots:
        """Expectation parameters inside the domain, for an inverse map without a closed form."""
        rng = generator(self.name, "inverse", dtype, count)
        return self.image(self.expectation_from_natural, self.natural_points(rng, count, self.decades, dtype), dtype)

    def ordinary(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Slots:
        """Natural parameters for sums over coordinates."""
        return cast(
            tuple(
                rng.normal(size=size) * 3.0 if d == "real" else 10.0 ** rng.uniform(-3.0, 3.0, size)
                for d in self.domains
            ),
            dtype,
        )

    def deviation(self, natural: Slots, slot: int) -> Array:
        """The step of one slot that changes KL by about 1/2: A's second derivative to the power -1/2."""
        order = tuple(int(k == slot) * 2 for k in range(len(natural)))
        flat = zip(*(a.ravel().tolist() for a in natural), strict=True)
        with mpmath.workdps(30):
            second = [
                mpmath.diff(lambda *x: mpmath.fsum(self.log_partition(x)), tuple(map(mpmath.mpf, p)), order)
                for p in flat
            ]
            return np.array([float(x**-0.5) for x in second]).reshape(natural[0].shape)

    def near(self, rng: np.random.Generator, step: Array, ratio: float, dtype: str) -> Pair:
        """Pairs a step (by slot, in standard deviations of that slot) apart."""
        size = step.shape[1:]
        start = self.ordinary(rng, size, "float64")
        moved = []
        for slot, domain in enumerate(self.domains):
            by = step[slot] * self.deviation(start, slot)
            moved.append(start[slot] + by if domain == "real" else start[slot] * grown(by / start[slot]))
        return Pair(cast(tuple(moved), dtype), cast(start, dtype), "")

    def moderate_pair(self, rng: np.random.Generator, step: Array, dtype: str) -> Pair:
        """Pairs about a standard deviation, or a factor of exp(step), apart."""
        size = step.shape[1:]
        start = self.ordinary(rng, size, "float64")
        moved = tuple(
            slot + by if domain == "real" else slot * np.exp(by)
            for slot, by, domain in zip(start, step, self.domains, strict=True)
        )
        return Pair(cast(moved, dtype), cast(start, dtype), "moderately apart")

    def far(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Pair:
        """Pairs that have nothing to do with each other: parameters many decades apart."""
        q, p = (
            tuple(
                10.0 ** rng.uniform(-6.0, 6.0, size) * (rng.normal(size=size) if d == "real" else 1.0)
                for d in self.domains
            )
            for _ in range(2)
        )
        return Pair(cast(q, dtype), cast(p, dtype), "far apart")

    def expectation_faults(self, natural: Slots, place: int) -> tuple[Slots, list[Fault]]:
        """An expectation parameter in the domain, and what to plant at index `place` of its arrays."""
        mu = self.image(self.expectation_from_natural, natural, str(natural[0].dtype))
        return mu, [(slot, value) for slot in range(len(mu)) for value in NOT_FINITE]

    def columns(self, function: str, columns: list[Array]) -> list[Array]:
        """The arrays that a function's scalar form takes."""
        return columns


def cast(slots: Slots, dtype: str) -> Slots:
    """The slots in `dtype`."""
    return tuple(np.ascontiguousarray(slot, dtype=dtype) for slot in slots)
