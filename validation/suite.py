"""The list of everything that is validated, as tasks that can be run, counted and shown."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from .check import Check, failed
from .checks import agreement as checks_agreement
from .checks import autograd as checks_autograd
from .checks import device as checks_device
from .checks import domain as checks_domain
from .checks import elementwise as checks_elementwise
from .checks import full as checks_full
from .checks import full_reductions as checks_full_reductions
from .checks import ivon as checks_ivon
from .checks import layout as checks_layout
from .checks import reductions as checks_reductions
from .checks import rounds as checks_rounds
from .checks import special as checks_special
from .points import DTYPES, ELEMENTWISE, FAMILIES, OPTIMIZERS

Scalars = Mapping[str, Callable[[float], float]]


class Load(Protocol):
    """What hands out kernel namespaces: `badmm_kernels.load`, or a test's own."""

    def __call__(self, family: str, device: str = "cpu") -> Any: ...


@dataclass(frozen=True)
class Task:
    """A piece of the validation that yields checks."""

    name: str
    family: str
    dtype: str
    work: Callable[[], Iterable[Check]]


@dataclass(frozen=True)
class Outcome:
    """The checks of one task and the time that it took, in seconds."""

    task: Task
    checks: tuple[Check, ...]
    seconds: float


def gamma_scalars() -> Scalars:
    """The scalar functions that kernels export for a user's own compiled code."""
    module = importlib.import_module("badmm_kernels.cpu.gamma")
    return {name: getattr(module, name) for name in ("lgamma", "digamma", "trigamma")}


def family_tasks(load: Load, family: str, device: str) -> Iterator[Task]:
    """Accuracy, autograd, layout and domain of one family, in both types."""
    modules: tuple[tuple[str, Any], ...]
    if family in ELEMENTWISE:
        modules = (("elementwise", checks_elementwise), ("reductions", checks_reductions), ("layout", checks_layout))
    else:
        modules = (("maps", checks_full), ("reductions", checks_full_reductions))
    modules += (("autograd", checks_autograd), ("rounds", checks_rounds), ("domain", checks_domain))
    if device == "cpu":
        modules += (("device functions", checks_device),)
    for dtype in DTYPES:
        for name, module in modules:
            yield Task(name, family, dtype, partial(loaded, load, device, family, dtype, module.checks))
        if family == "gamma":
            yield Task("inverse map", family, dtype, partial(loaded, load, device, family, dtype, inverse_map))


def optimizer_tasks(load: Load, name: str, device: str) -> Iterator[Task]:
    """Normals, accuracy and layout of one optimizer, in both types."""
    for dtype in DTYPES:
        yield Task("optimizer", name, dtype, partial(loaded, load, device, name, dtype, checks_ivon.checks))


def loaded(
    load: Load, device: str, family: str, dtype: str, checks: Callable[[Any, str, str], Iterable[Check]]
) -> Iterable[Check]:
    """The checks of one family's kernels, loaded only now so that a failure to load is this task's alone."""
    return checks(load(family, device), family, dtype)


def inverse_map(namespace: Any, family: str, dtype: str) -> list[Check]:
    """The gamma's inverse map, which has a measure of its own."""
    return [checks_special.inverse_check(namespace, dtype)]


def agreement_tasks(load: Load, families: Sequence[str], device: str) -> Iterator[Task]:
    """Families where they must agree; each pair is filed under its richer family."""
    pairs = (
        ("full_gaussian", "diagonal_gaussian", checks_agreement.full_as_diagonal),
        ("diagonal_gaussian", "isotropic_gaussian", checks_agreement.diagonal_as_isotropic),
    )
    for rich, poor, compare in pairs:
        for dtype in DTYPES if rich in families else ():
            yield Task(f"agreement with {poor}", rich, dtype, partial(paired, load, device, rich, poor, dtype, compare))


def paired(
    load: Load, device: str, rich: str, poor: str, dtype: str, compare: Callable[[Any, Any, str], Iterable[Check]]
) -> Iterable[Check]:
    """The checks of two families' kernels against each other."""
    return compare(load(rich, device), load(poor, device), dtype)


def tasks(
    load: Load, names: Sequence[str] = FAMILIES + OPTIMIZERS, device: str = "cpu", scalars: Scalars | None = None
) -> list[Task]:
    """Every kernel task of the families and optimizers asked for."""
    families = [name for name in names if name in FAMILIES]
    found = [task for family in families for task in family_tasks(load, family, device)]
    found += agreement_tasks(load, families, device)
    if "gamma" in families and device == "cpu":
        found.append(Task("special functions", "gamma", "float64", partial(special_functions, scalars)))
    found += [task for name in names if name in OPTIMIZERS for task in optimizer_tasks(load, name, device)]
    return found


def special_functions(scalars: Scalars | None) -> list[Check]:
    """lgamma, digamma and trigamma: those given, or those that the kernels export."""
    return checks_special.scalar_checks(scalars or gamma_scalars())


def attempt(task: Task) -> Outcome:
    """Run one task; an exception is a miss that says what was raised, never the end of the run."""
    start = time.perf_counter()
    try:
        checks = tuple(task.work())
    except Exception as error:  # a kernel under test may raise anything, and that is a finding
        checks = (failed(task.name, "error", task.family, task.dtype, f"{type(error).__name__}: {error}"),)
    return Outcome(task, checks, time.perf_counter() - start)


def run(work: Iterable[Task]) -> Iterator[Outcome]:
    """Outcomes in order, as they come."""
    for task in work:
        yield attempt(task)
