"""The sections of the validation: one per registered family, optimizer or likelihood and kind of check.

Families and optimizers come from `badmm_kernels`, likelihoods from `badmm.likelihoods`; oracles and checks are found by
name (`validation.oracles.lookup`). Something registered without an oracle has a section that fails by name.
`without_oracle` fails by name for every exported kernel that no check compares with an oracle.
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
    likelihoods as likelihood_checks,
    reductions,
    rounds,
    special,
)
from .oracles import lookup
from .points import DTYPES

MISSING = "oracle"  # the group of checks that fail because an oracle is missing
# Groups that compare a kernel with an oracle; the others compare kernels with each other or plant faults.
ORACLE_GROUPS = (
    "autograd",
    "backward error",
    "kl",
    "normals",
    "reduction",
    "residual",
    "special",
    "transcendental",
    "ulp",
)
SCALAR_FORMS = ("_f32", "_f64")
NamedChecks = tuple[str, ModuleType]
STRUCTURES: dict[str, tuple[NamedChecks, ...]] = {
    "coordinates": (("elementwise", elementwise), ("reductions", reductions), ("layout", layout)),
    "matrix": (("maps", full), ("reductions", full_reductions)),
}
EVERY: tuple[NamedChecks, ...] = (("autograd", autograd), ("rounds", rounds), ("domain", domain))
ON_CPU: tuple[NamedChecks, ...] = (("device functions", device), ("special functions", special))


class Load(Protocol):
    """A function that returns a kernel namespace: `badmm_kernels.load`, or one that a test supplies."""

    def __call__(self, family: str, device: str = "cpu") -> Any: ...


@dataclass(frozen=True)
class Section:
    """A part of the validation; `work` yields its checks."""

    name: str
    family: str
    dtype: str
    work: Callable[[], Iterable[Check]]


@dataclass(frozen=True)
class SectionResult:
    """The checks of one section and its run time in seconds."""

    section: Section
    checks: tuple[Check, ...]
    seconds: float


def missing(kind: str, name: str, reason: str) -> Section:
    """Return the failing section of something registered without an oracle."""
    return Section(MISSING, name, "-", lambda: [failed(f"{kind} {name}: no oracle", MISSING, name, "-", reason)])


def family_sections(load: Load, family: str, where: str) -> Iterator[Section]:
    """Yield accuracy, autograd, layout and domain of one family in both dtypes."""
    try:
        structure = lookup.family(family).structure
    except lookup.NoOracleError as error:
        yield missing("family", family, str(error))
        return
    for dtype in DTYPES:
        for name, module in STRUCTURES[structure] + EVERY + (ON_CPU if where == "cpu" else ()):
            yield Section(name, family, dtype, partial(load_and_check, load, where, family, dtype, module.checks))


def optimizer_sections(load: Load, name: str, where: str) -> Iterator[Section]:
    """Yield `checks/NAME.py` of one optimizer in both dtypes; its oracle is `oracles/optimizers/NAME.py`."""
    try:
        lookup.module("optimizers", name)
    except lookup.NoOracleError as error:
        yield missing("optimizer", name, str(error))
        return
    checks = importlib.import_module(f".checks.{name}", __package__).checks
    for dtype in DTYPES:
        yield Section("optimizer", name, dtype, partial(load_and_check, load, where, name, dtype, checks))


def load_and_check(
    load: Load, where: str, family: str, dtype: str, checks: Callable[[Any, str, str], Iterable[Check]]
) -> Iterable[Check]:
    """Load a family's kernels and return their checks; a failure to load fails this section alone."""
    return checks(load(family, where), family, dtype)


def agreement_sections(load: Load, families: Sequence[str], where: str) -> Iterator[Section]:
    """Yield the comparisons of two families that must agree, as sections of the larger family."""
    pairs = (
        ("full_gaussian", "diagonal_gaussian", agreement.full_as_diagonal),
        ("diagonal_gaussian", "isotropic_gaussian", agreement.diagonal_as_isotropic),
    )
    for large, small, compare in pairs:
        for dtype in DTYPES if large in families else ():
            work = partial(compared, load, where, large, small, dtype, compare)
            yield Section(f"agreement with {small}", large, dtype, work)


def compared(
    load: Load, where: str, large: str, small: str, dtype: str, compare: Callable[[Any, Any, str], Iterable[Check]]
) -> Iterable[Check]:
    """Load the kernels of two families and return the checks that compare them."""
    return compare(load(large, where), load(small, where), dtype)


def likelihood_sections(namespace: ModuleType | None = None) -> list[Section]:
    """Return one section per concrete likelihood of `badmm.likelihoods`, compared with the loss of its oracle."""
    source = namespace or importlib.import_module("badmm.likelihoods")
    found = []
    for name in likelihoods_of(source):
        try:
            cases = lookup.module("likelihoods", lookup.file_of(name)).cases
        except lookup.NoOracleError as error:
            found.append(missing("likelihood", name, str(error)))
            continue
        found.append(Section("likelihood", name, "float64", partial(likelihood_checks.checks, name, cases)))
    return found


def likelihoods_of(namespace: ModuleType) -> list[str]:
    """Return the names of the exported concrete classes whose instances can be clients of a solver."""
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


def kernel_sections(load: Load, names: Sequence[str] | None = None, where: str = "cpu") -> list[Section]:
    """Return all kernel sections of the named families and optimizers; None means all."""
    chosen = names if names is not None else registry.FAMILIES + registry.OPTIMIZERS
    families = [name for name in chosen if name in registry.FAMILIES]
    found = [section for family in families for section in family_sections(load, family, where)]
    found += agreement_sections(load, families, where)
    optimizers = [name for name in chosen if name in registry.OPTIMIZERS]
    return found + [section for name in optimizers for section in optimizer_sections(load, name, where)]


def exported(namespace: Any, where: str) -> list[str]:
    """Return the names of a namespace's kernels: its exports and, on a CPU, their scalar forms."""
    names = list(getattr(namespace, "__all__", ()))
    forms = [n for n in dir(namespace) if n.endswith(SCALAR_FORMS) and not n.startswith("_")]
    return names + forms if where == "cpu" else names


def without_oracle(load: Load, names: Sequence[str], where: str, found: Iterable[Check]) -> Iterator[Check]:
    """Yield a failed check per exported kernel that no check compares with an oracle."""
    compared_kernels: dict[str, set[str]] = {name: set() for name in names}
    for item in found:
        # a scalar form is compared with its array kernel, which is compared with an oracle
        if item.family in compared_kernels and item.group in (*ORACLE_GROUPS, "device functions"):
            compared_kernels[item.family].add(item.kernel)
    for name in names:
        if not compared_kernels[name]:  # its sections failed already, by name
            continue
        for kernel in exported(load(name, where), where):
            if kernel not in compared_kernels[name]:
                reason = "exported, and no check compares it with an oracle"
                yield failed(f"kernel {name}.{kernel}: no oracle", MISSING, name, "-", reason)


def attempt(section: Section) -> SectionResult:
    """Run one section; an exception becomes a failed check that names it and does not end the run."""
    start = time.perf_counter()
    try:
        checks = tuple(section.work())
    except Exception as error:  # a kernel under test may raise anything
        reason = f"{type(error).__name__}: {error}"
        checks = (failed(section.name, "error", section.family, section.dtype, reason),)
    return SectionResult(section, checks, time.perf_counter() - start)


def run(sections: Iterable[Section]) -> Iterator[SectionResult]:
    """Run the sections in order and yield each result when it is ready."""
    for section in sections:
        yield attempt(section)
