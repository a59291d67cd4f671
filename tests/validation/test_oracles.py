"""Validation cannot look away: what is registered without an oracle fails by name, and oracles state what they say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import pytest

import badmm
import badmm_kernels
from badmm_kernels import registry
from tests.kernels.representative import REPRESENTATIVE
from validation import __main__ as command, oracles, suite
from validation.check import check
from validation.checks import likelihoods as likelihood_checks
from validation.checks.elementwise import coordinates
from validation.oracles import families, lookup
from validation.oracles.family import FactorisingOracle
from validation.points import generator

EXPONENTIAL = '''
"""The exponential family: T = -theta, lambda = rate, A = -log rate, b = 1."""

import mpmath

from validation.oracles.family import FactorisingOracle


class Exponential(FactorisingOracle):
    """Written as a user would, from the closed forms alone."""

    domains = ("positive",)
    standard_domains = ("positive",)

    def log_partition(self, natural):
        return [-mpmath.log(natural[0])]

    def entropy(self, natural):
        return [mpmath.mpf(1), -mpmath.log(natural[0])]

    def natural_from_standard(self, standard):
        return [[standard[0]]]

    def standard_from_natural(self, natural):
        return [[natural[0]]]

    def expectation_from_natural(self, natural):
        return [[-1 / natural[0]]]

    def natural_from_expectation(self, mu):
        return [[-1 / mu[0]]]


ORACLE = Exponential()
'''


def exponential_namespace() -> SimpleNamespace:
    """Kernels of the exponential family in NumPy, as correct as float64 is."""

    def positive(value: Any) -> Any:
        outside = ~((value > 0) & np.isfinite(value))
        if np.any(outside):
            raise ValueError(f"rate: expected positive, got {value[outside][0]} at index {np.argmax(outside)}")
        return value

    def reduce(values: Any, axis: Any) -> Any:
        return np.sum(values, axis=axis, dtype=np.float64) if axis is not None else float(np.sum(values))

    def kl(q: Any, p: Any, axis: Any = None) -> Any:
        ratio = positive(p[0]).astype(float) / positive(q[0])
        return reduce(np.where(abs(ratio - 1) < 0.4, 0, ratio - 1 - np.log(ratio)), axis)

    def log(rate: Any) -> Any:
        return np.log(positive(rate).astype(float))

    return SimpleNamespace(
        __all__=["natural_from_standard", "standard_from_natural", "expectation_from_natural", "entropy"],
        natural_from_standard=lambda rate: (positive(rate) + 0,),
        standard_from_natural=lambda rate: (positive(rate) + 0,),
        expectation_from_natural=lambda rate: (-1 / positive(rate),),
        natural_from_expectation=lambda mu: (-1 / -positive(-mu),),
        natural_gradient=lambda rate, gradient: (gradient * rate * rate,),
        log_partition=lambda rate, axis=None: reduce(-log(rate), axis),
        entropy=lambda rate, axis=None: reduce(1 - log(rate), axis),
        kl=kl,
    )


@pytest.fixture
def exponential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registered family whose oracle is one file outside the package."""
    (tmp_path / "exponential.py").write_text(EXPONENTIAL)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, "exponential"))


class TestNothingIsOverlooked:
    def test_a_family_without_an_oracle_fails_by_name(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, "dirichlet"))
        assert command.main(["--family", "dirichlet"], extra=lambda _: []) == 1
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("MISS"))
        assert "family dirichlet: no oracle" in line
        assert "validation/oracles/families/dirichlet.py" in line

    def test_an_optimizer_without_an_oracle_fails_by_name(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(registry, "OPTIMIZERS", (*registry.OPTIMIZERS, "adam"))
        assert command.main(["--family", "adam"], extra=lambda _: []) == 1
        assert "optimizer adam: no oracle" in capsys.readouterr().out

    def test_a_likelihood_without_an_oracle_fails_by_name(self) -> None:
        namespace = ModuleType("likelihoods")
        kind = type("CauchitRegression", (badmm.likelihoods.LogisticRegression,), {})
        vars(namespace).update(CauchitRegression=kind, NOT_A_CLASS=3, __all__=["CauchitRegression", "NOT_A_CLASS"])
        (result,) = suite.run(suite.likelihood_sections(namespace))
        (item,) = result.checks
        assert not item.passed
        assert item.name == "likelihood CauchitRegression: no oracle"
        assert "cauchit_regression.py" in item.detail

    def test_every_likelihood_has_its_file_and_no_file_is_orphaned(self) -> None:
        names = suite.likelihoods_of(badmm.likelihoods)
        assert {"LogisticRegression", "PoissonRate", "SoftmaxRegression"} <= set(names)
        folder = Path(oracles.__file__).parent / "likelihoods"
        files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        assert files == {lookup.file_of(name) for name in names}

    def test_a_planted_kernel_that_no_check_knows_fails_by_name(self) -> None:
        right = badmm_kernels.load("isotropic_gaussian")
        planted = SimpleNamespace(**vars(right))
        planted.blend = planted.blend_f32 = right.dual_update
        planted.__all__ = [*right.__all__, "blend"]
        found = [
            check(f"{name}: generic", group, "isotropic_gaussian", "float64", 0.0, 1.0)
            for group, names in (("ulp", right.__all__), ("device functions", suite.exported(right, "cpu")))
            for name in names
        ]
        load = lambda family, device="cpu": planted  # noqa: E731
        misses = list(suite.without_oracle(load, ["isotropic_gaussian"], "cpu", found))
        assert [item.name for item in misses] == [
            "kernel isotropic_gaussian.blend: no oracle",
            "kernel isotropic_gaussian.blend_f32: no oracle",
        ]
        assert not any(item.passed for item in misses)

    def test_layout_alone_is_no_oracle(self) -> None:
        namespace = SimpleNamespace(__all__=["kl", "entropy"])
        found = [
            check("kl: sum", "kl", "gamma", "float64", 0.0, 1.0),
            check("entropy: out=", "layout", "gamma", "float64", 0.0, 1.0),
        ]
        (miss,) = suite.without_oracle(lambda family, device="cpu": namespace, ["gamma"], "cpu", found)
        assert miss.name == "kernel gamma.entropy: no oracle"

    @pytest.mark.parametrize("name", REPRESENTATIVE + registry.OPTIMIZERS)
    def test_every_exported_kernel_is_judged(self, name: str) -> None:
        """The real checks of the real kernels, cut down to few points where they allow it."""
        few: dict[str, Any] = {"reductions": {"count": 4, "large": False}, "elementwise": {"count": 8, "map_count": 8}}
        few |= {"layout": None, "domain": None, "device functions": {"count": 3}, "special functions": {"count": 8}}
        few |= {"maps": {"sizes": (1, 2)}, "optimizer": {"count": 8, "large": False}}
        found = []
        for job in suite.kernel_sections(command.kernels_load, [name]):
            options = few.get(job.name, {})
            if options is None or "agreement" in job.name:
                continue
            checks = job.work.args[-1]  # type: ignore[attr-defined]
            if job.name == "reductions" and lookup.family(name).structure == "matrix":
                options = {"sizes": (2,), "large": False}
            found += checks(badmm_kernels.load(name), name, job.dtype, **options)
        assert list(suite.without_oracle(command.kernels_load, [name], "cpu", found)) == []


@pytest.mark.usefixtures("exponential")
class TestAFamilyOfAUsersOwn:
    def test_its_oracle_is_found_by_name_and_its_points_follow(self) -> None:
        family = coordinates("exponential")
        assert family.name == "exponential"
        assert {call.function for call in family.map_calls("float64", 20)} == {
            "natural_from_standard",
            "standard_from_natural",
            "expectation_from_natural",
            "natural_from_expectation",
            "natural_gradient",
        }
        with mpmath.workdps(40):  # dL/dmu = dL/d(rate) rate^2
            (terms,) = family.natural_gradient([mpmath.mpf(3), mpmath.mpf("0.5")])
            assert abs(mpmath.fsum(terms) - mpmath.mpf("4.5")) < 1e-25

    def test_right_kernels_pass_and_wrong_ones_do_not(self) -> None:
        from validation.checks.elementwise import map_check
        from validation.checks.reductions import sum_checks

        namespace, family = exponential_namespace(), coordinates("exponential")

        def verdicts(kernels: Any) -> list[bool]:
            with mpmath.workdps(50):
                calls = family.map_calls("float64", 50)
                found = [map_check(kernels, "exponential", "float64", call) for call in calls]
                found += sum_checks(kernels, "exponential", "float64", "entropy", 3)
            return [item.passed for item in found]

        assert all(verdicts(namespace))
        wrong = SimpleNamespace(**vars(namespace))
        wrong.natural_gradient = lambda rate, gradient: (gradient * rate,)
        assert not all(verdicts(wrong))
        wrong = SimpleNamespace(**vars(namespace))
        wrong.entropy = lambda rate, axis=None: namespace.entropy(rate, axis) + 1e-12 * rate.size
        assert not all(verdicts(wrong))


@pytest.mark.parametrize("name", lookup.structured("coordinates"))
class TestClosedForms:
    """The formulas of one file agree with each other: each is stated by hand, none from another."""

    def points(self, family: FactorisingOracle) -> list[list[Any]]:
        naturals = family.natural_points(generator("closed forms", family.name), 12, 1.0, "float64")
        return [list(map(mpmath.mpf, point)) for point in zip(*(slot.tolist() for slot in naturals), strict=True)]

    def test_the_expectation_is_the_derivative_of_the_log_partition(self, name: str) -> None:
        family = coordinates(name)
        with mpmath.workdps(50):
            for point in self.points(family):
                for slot, terms in enumerate(family.expectation_from_natural(point)):
                    order = tuple(int(k == slot) for k in range(len(point)))
                    derivative = mpmath.diff(lambda *x: mpmath.fsum(family.log_partition(x)), tuple(point), order)
                    assert abs(mpmath.fsum(terms) - derivative) < 1e-15 * (1 + abs(derivative))

    def test_kl_and_natural_gradient_follow_from_it(self, name: str) -> None:
        family = coordinates(name)
        with mpmath.workdps(50):
            points = self.points(family)
            for q, p in pairwise(points):
                bregman = FactorisingOracle.kl(family, q, p)
                assert abs(family.kl(q, p) - bregman) < 1e-25 * (1 + abs(bregman))
            # a Gaussian's is a function of gradient and Hessian, which the autograd checks cover
            if name not in ("diagonal_gaussian", "isotropic_gaussian"):
                for point in points:
                    standard = [mpmath.fsum(terms) for terms in family.standard_from_natural(point)]
                    gradient = [mpmath.mpf(g) for g in ("0.3", "-1.7", "0.6", "-0.2")]
                    given = [*standard, *gradient[: len(point)]]
                    followed = FactorisingOracle.natural_gradient(family, given)
                    for stated, other in zip(family.natural_gradient(given), followed, strict=True):
                        total = mpmath.fsum(other)
                        assert abs(mpmath.fsum(stated) - total) < 1e-15 * (1 + abs(total))


class TestLikelihoods:
    @pytest.mark.parametrize(
        "name",
        ["PoissonRegression", "Quadratic", "SoftmaxRegression", "ExponentialRate", "Trials", "GaussianRegression"],
    )
    def test_expectations_wrong_in_the_ninth_digit_are_caught(self, name: str) -> None:
        cases = list(lookup.module("likelihoods", lookup.file_of(name)).cases())
        assert all(item.passed for item in likelihood_checks.checks(name, lambda: cases))
        for case in cases:
            object.__setattr__(case, "client", Wrong(case.client))
        assert not any(item.passed for item in likelihood_checks.checks(name, lambda: cases))


class Wrong:
    """A client whose every answer is too large by 1e-9 of itself."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.client, name)
        if name == "configured":
            return lambda *args: Wrong(value(*args))

        def answer(*args: Any) -> Any:
            result = value(*args)
            return tuple(x * (1 + 1e-9) for x in result) if isinstance(result, tuple) else result * (1 + 1e-9)

        return answer
