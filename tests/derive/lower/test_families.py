"""From one record to a namespace of kernels."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import sympy as sp
from scipy import stats

from derive import generate
from derive.calculus.elementwise import calculus
from derive.calculus.family import Family, FamilyError, Slot
from derive.claims import families as claims_family, lowered
from derive.claims.claim import check
from derive.emit.numba.module import emit
from derive.families import load_families
from derive.lower.families import build_module

FAMILIES = load_families()
rate = sp.Symbol("rate", positive=True)
theta = sp.Symbol("theta", positive=True)

EXPONENTIAL = Family(
    name="exponential",
    title="Exponential",
    citation="a family the package does not ship",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(-theta,),
    base_measure=sp.S.One,
    natural=(Slot("rate", rate, "positive"),),
    log_partition=-sp.log(rate),
    standard=(Slot("rate", rate, "positive"),),
    natural_of_standard=(rate,),
    expectation=(Slot("negative_mean", sp.Symbol("mu", negative=True), "negative"),),
    module=__name__,
)


def planted(name: str, **changes: object) -> Family:
    return dataclasses.replace(FAMILIES[name], **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statistics": (theta,)}, r"statistics: expected 2 slots"),
        ({"log_partition": sp.Symbol("z")}, r"log_partition: expected only natural and fixed parameters, got \['z'\]"),
        ({"base_measure": sp.Symbol("z")}, r"base_measure: expected a function of theta alone, got \['z'\]"),
    ],
)
def test_inconsistent_family_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(FamilyError, match=message):
        planted("diagonal_gaussian", **changes)


def load_emitted(family: Family, folder: Path) -> ModuleType:
    path = folder / f"{family.name}.py"
    path.write_text(emit(build_module(family)), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(family.name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_new_family_is_one_record(tmp_path: Path) -> None:
    """A family the package does not ship: derived, proved, emitted and right, from its record alone."""
    claims = [*claims_family.claims(EXPONENTIAL), *lowered.claims(EXPONENTIAL)]
    assert all(check(c).holds for c in claims)
    assert lowered.unclaimed([build_module(EXPONENTIAL)], claims) == []
    ns = load_emitted(EXPONENTIAL, tmp_path)
    q, p = np.array([0.3, 2.0, 7.0]), np.array([1.0, 2.5, 0.2])
    assert ns.entropy(q) == pytest.approx(stats.expon(scale=1 / q).entropy().sum(), rel=1e-14)
    assert ns.kl((q,), (p,)) == pytest.approx((p / q - 1 - np.log(p / q)).sum(), rel=1e-13)
    np.testing.assert_allclose(ns.natural_from_expectation(*ns.expectation_from_natural(q))[0], q, rtol=1e-15)
    # ∂L/∂rate = F ∇_μ L with F = 1/rate².
    np.testing.assert_allclose(ns.natural_gradient(q, p)[0], p * q**2, rtol=1e-15)
    with pytest.raises(ValueError, match=r"rate: expected positive, got -1\.0 at index 1"):
        ns.entropy(np.array([1.0, -1.0]))


def test_a_family_file_that_changes_makes_its_module_stale() -> None:
    name = "kernels/badmm_kernels/cpu/gamma.py"
    changed = dataclasses.replace(build_module(FAMILIES["gamma"]), digest="0" * 16)
    assert emit(changed) != generate.expected(["gamma"])[name]


def test_natural_gradient_of_the_matrix_form_reads_as_in_the_paper() -> None:
    g, h, mean = (sp.Symbol(n, real=True) for n in ("g", "H", "m1"))
    first, second = calculus(FAMILIES["full_gaussian"]).natural_gradient
    assert sp.simplify(first[0, 0] - (g - h * mean)) == 0
    assert second[0, 0] == -h
