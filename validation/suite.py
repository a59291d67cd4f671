"""Everything that is validated, as jobs: whatever is registered has one, or a job that fails by name.

Families and optimizers come from `badmm_kernels`, likelihoods from `badmm.likelihoods`; oracles and checks are found by
name (`validation.oracles.lookup`). `without_oracle` compares the kernels that a namespace exports with those that a
check compared with an oracle, so that a kernel that no check knows fails by name, too.
"""

from __future__ import annotations

import importlib
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Protocol

from badmm_kernels import registry

from .check import Check, failed
from .checks import (
    agreement,
    autograd,
    device,
    domain,
    elementwise,
    full,
    full_reductions,
    layout,
    reductions,
    rounds,
    special,
)
from .checks import likelihoods as likelihood_checks
from .oracles import lookup
from .points import DTYPES

MISSING = "oracle"  # the group of checks that fail for want of one
# Groups that compare a kernel with an oracle; others compare kernels with each other or plant faults.
JUDGED = ("autograd", "backward error", "kl", "normals", "reduction", "residual", "special", "transcendental", "ulp")
SCALAR_FORMS = ("_f32", "_f64")
Judge = tuple[str, ModuleType]
STRUCTURES: dict[str, tuple[Judge, ...]] = {
    "coordinates": (("elementwise", elementwise), ("reductions", reductions), ("layout", layout)),
    "matrix": (("maps", full), ("reductions", full_reductions)),
}
EVERY: tuple[Judge, ...] = (("autograd", autograd), ("rounds", rounds), ("domain", domain))
ON_CPU: tuple[Judge, ...] = (("device functions", device), ("special functions", special))


class Load(Protocol):
    """What hands out kernel namespaces: `badmm_kernels.load`, or a test's own."""

    def __call__(self, family: str, device: str = "cpu") -> Any: ...


@dataclass(frozen=True)
class Job:
    """A piece of the validation that yields checks."""

    name: str
    family: str
    dtype: str
    work: Callable[[], Iterable[Check]]


@dataclass(frozen=True)
class JobResult:
    """The checks of one job and the time that it took, in seconds."""

    job: Job
    checks: tuple[Check, ...]
    seconds: float


def missing(kind: str, name: str, reason: str) -> Job:
    """A job that fails because something registered has no oracle."""
    return Job(MISSING, name, "-", lambda: [failed(f"{kind} {name}: no oracle", MISSING, name, "-", reason)])


def family_jobs(load: Load, family: str, where: str) -> Iterator[Job]:
    """Accuracy, autograd, layout and domain of one family, in both types."""
    try:
        structure = lookup.family(family).structure
    except lookup.NoOracleError as error:
        yield missing("family", family, str(error))
        return
    for dtype in DTYPES:
        for name, module in STRUCTURES[structure] + EVERY + (ON_CPU if where == "cpu" else ()):
            yield Job(name, family, dtype, partial(loaded, load, where, family, dtype, module.checks))


def optimizer_jobs(load: Load, name: str, where: str) -> Iterator[Job]:
    """Normals, accuracy and layout of one optimizer, in both types: `checks/NAME.py`, `oracles/optimizers/NAME.py`."""
    try:
        lookup.module("optimizers", name)
    except lookup.NoOracleError as error:
        yield missing("optimizer", name, str(error))
        return
    checks = importlib.import_module(f".checks.{name}", __package__).checks
    for dtype in DTYPES:
        yield Job("optimizer", name, dtype, partial(loaded, load, where, name, dtype, checks))


def loaded(
    load: Load, where: str, family: str, dtype: str, checks: Callable[[Any, str, str], Iterable[Check]]
) -> Iterable[Check]:
    """The checks of one family's kernels, loaded only now so that a failure to load is this job's alone."""
    return checks(load(family, where), family, dtype)


def agreement_jobs(load: Load, families: Sequence[str], where: str) -> Iterator[Job]:
    """Families where they must agree; each pair is filed under its richer family."""
    pairs = (
        ("full_gaussian", "diagonal_gaussian", agreement.full_as_diagonal),
        ("diagonal_gaussian", "isotropic_gaussian", agreement.diagonal_as_isotropic),
    )
    for rich, poor, compare in pairs:
        for dtype in DTYPES if rich in families else ():
            yield Job(f"agreement with {poor}", rich, dtype, partial(paired, load, where, rich, poor, dtype, compare))


def paired(
    load: Load, where: str, rich: str, poor: str, dtype: str, compare: Callable[[Any, Any, str], Iterable[Check]]
) -> Iterable[Check]:
    """The checks of two families' kernels against each other."""
    return compare(load(rich, where), load(poor, where), dtype)


def likelihood_jobs(namespace: ModuleType | None = None) -> list[Job]:
    """Every concrete likelihood that `badmm.likelihoods` exports, against the loss that its oracle states."""
    source = namespace or importlib.import_module("badmm.likelihoods")
    found = []
    for name in likelihoods_of(source):
        try:
            cases = lookup.module("likelihoods", lookup.file_of(name)).cases
        except lookup.NoOracleError as error:
            found.append(missing("likelihood", name, str(error)))
            continue
        found.append(Job("likelihood", name, "float64", partial(likelihood_checks.checks, name, cases)))
    return found


def likelihoods_of(namespace: ModuleType) -> list[str]:
    """The concrete classes that a namespace exports and that a solver could take as a client."""
    classes = {
        name: getattr(namespace, name) for name in namespace.__all__ if inspect.isclass(getattr(namespace, name))
    }
    return [
        name
        for name, kind in classes.items()
        if not inspect.isabstract(kind)
        and not getattr(kind, "_is_protocol", False)
        and (hasattr(kind, "expectations") or hasattr(kind, "natural_gradient"))
    ]


def jobs(load: Load, names: Sequence[str] | None = None, where: str = "cpu") -> list[Job]:
    """Every kernel job of the families and optimizers asked for; by default, of all."""
    chosen = names if names is not None else registry.FAMILIES + registry.OPTIMIZERS
    families = [name for name in chosen if name in registry.FAMILIES]
    found = [job for family in families for job in family_jobs(load, family, where)]
    found += agreement_jobs(load, families, where)
    return found + [j for name in chosen if name in registry.OPTIMIZERS for j in optimizer_jobs(load, name, where)]


def exported(namespace: Any, where: str) -> list[str]:
    """The kernels of a namespace: what it exports and, on a CPU, the scalar forms beside them."""
    names = list(getattr(namespace, "__all__", ()))
    forms = [n for n in dir(namespace) if n.endswith(SCALAR_FORMS) and not n.startswith("_")]
    return names + forms if where == "cpu" else names


def without_oracle(load: Load, names: Sequence[str], where: str, found: Iterable[Check]) -> Iterator[Check]:
    """A failed check for every exported kernel that no check compared with an oracle."""
    judged: dict[str, set[str]] = {name: set() for name in names}
    for item in found:
        # a scalar form is judged by equality with its array kernel, which has an oracle of its own
        if item.family in judged and item.group in (*JUDGED, "device functions"):
            judged[item.family].add(item.kernel)
    for name in names:
        if not judged[name]:  # its jobs failed already, by name
            continue
        for kernel in exported(load(name, where), where):
            if kernel not in judged[name]:
                reason = "exported, and no check compares it with an oracle"
                yield failed(f"kernel {name}.{kernel}: no oracle", MISSING, name, "-", reason)


def attempt(job: Job) -> JobResult:
    """Run one job; an exception is a miss that says what was raised, never the end of the run."""
    start = time.perf_counter()
    try:
        checks = tuple(job.work())
    except Exception as error:  # a kernel under test may raise anything, and that is a finding
        checks = (failed(job.name, "error", job.family, job.dtype, f"{type(error).__name__}: {error}"),)
    return JobResult(job, checks, time.perf_counter() - start)


def run(work: Iterable[Job]) -> Iterator[JobResult]:
    """Results in order, as they come."""
    for job in work:
        yield attempt(job)
