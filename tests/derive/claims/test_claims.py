"""Every claim holds, false ones fail, and each kernel is some claim's target."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import sympy as sp

from derive import generate
from derive.calculus import traces
from derive.calculus.elementwise import calculus
from derive.calculus.family import DIMENSION, Family
from derive.claims import admm as claims_admm, families as claims_family, lowered, traces as claims_traces
from derive.claims.claim import Claim, ClaimError, Verdict, check, zero
from derive.claims.every import groups
from derive.families import load_families
from derive.ir.nodes import ClientSum, FamilyModule, Let, Lit, Map, Var
from derive.lower.admm import expected_results, round_module
from derive.report import document
from derive.updates import admm

pytestmark = pytest.mark.slow

FAMILIES = load_families()
theta = sp.Symbol("theta", positive=True)


@cache
def proved(group: str) -> list[Verdict]:
    return [check(claim) for claim in groups()[group]()]


def every_verdict() -> list[Verdict]:
    return [verdict for group in groups() for verdict in proved(group)]


def every_claim() -> list[Claim]:
    return [verdict.claim for verdict in every_verdict()]


@pytest.mark.parametrize("group", groups())
def test_claims_hold(group: str) -> None:
    assert proved(group)
    assert {v.claim.name: v.method for v in proved(group) if not v.holds or not v.method} == {}


def test_the_claims_asked_for_are_there() -> None:
    claims = every_claim()
    names = {c.name for c in claims}
    assert {
        "normalisation",
        "gradient of A is E[T]",
        "inverse map",
        "gradient of KL in mu",
        "Fisher times natural gradient",
        "Bonnet",
        "Price",
        "client stationarity",
        "client line",
        "cavity",
        "Bregman dual line",
        "absent clients",
        "residuals",
        "dual equals natural gradient",
        "server stationarity",
        "sum form of the server",
        "fixed point",
        "classic ADMM",
        "PVI",
        "one-round theorem",
        "one round exact",
        "exact at alpha = gamma = 1",
        "later rate",
        "existence condition",
        "IVON step",
    } <= names
    assert len(claims) == len({(c.family, c.name) for c in claims})


def planted(name: str, **changes: object) -> Family:
    return dataclasses.replace(FAMILIES[name], **changes)  # type: ignore[arg-type]


xi, m = FAMILIES["diagonal_gaussian"].natural[0].symbol, FAMILIES["diagonal_gaussian"].standard[0].symbol
S = FAMILIES["diagonal_gaussian"].natural[1].symbol
a, b = (s.symbol for s in FAMILIES["gamma"].natural)


@pytest.mark.parametrize(
    ("family", "broken"),
    [
        (planted("diagonal_gaussian", log_partition=xi**2 / (2 * S) + sp.log(S) / 2), "normalisation"),
        (planted("diagonal_gaussian", log_partition=xi**2 / S - sp.log(S) / 2), "gradient of A is E[T]"),
        (planted("diagonal_gaussian", base_measure=sp.S.One), "normalisation"),
        (planted("diagonal_gaussian", natural_of_standard=(2 * S * m, S)), "Bonnet"),
        (planted("gamma", log_partition=sp.loggamma(a) - (a + 1) * sp.log(b)), "normalisation"),
        (planted("gamma", statistics=(sp.log(theta), theta)), "gradient of A is E[T]"),
    ],
)
def test_planted_family_error_is_caught(family: Family, broken: str) -> None:
    (claim,) = (claim for claim in claims_family.claims(family) if claim.name == broken)
    try:
        holds = check(claim).holds
    except Exception:  # a family this wrong may not even be integrable
        holds = False
    assert not holds


def test_zero_refuses_what_is_not() -> None:
    with pytest.raises(ClaimError, match="leaves"):
        zero(sp.Symbol("rho", positive=True) - 1)


def test_the_committed_derivation_is_current() -> None:
    committed = (generate.ROOT / "docs/derivation.md").read_text(encoding="utf-8")
    assert document(every_verdict()) == committed


def holding(names: set[str]) -> set[str]:
    """Those of the round's claims of these names that hold; every name is a claim's."""
    claims = {claim.name: claim for claim in claims_admm.claims()}
    return {name for name in names if check(claims[name]).holds}


@pytest.mark.parametrize("line", ["dual_update", "bregman_dual_update", "server_contribution", "contribution_change"])
def test_a_line_with_the_wrong_sign_is_caught(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(admm, line)()
    wrong = right.subs({admm.eta: -admm.eta}) if "bregman" not in line else 2 * admm.eta - right
    if line == "dual_update":
        wrong = admm.eta - admm.gamma * admm.rho * (admm.lam_g - admm.lam_k)
    monkeypatch.setattr(admm, line, lambda: wrong)
    expected = {
        "dual_update": {"dual equals natural gradient", "classic ADMM", "one-round theorem", "residuals"},
        "bregman_dual_update": {"Bregman dual line"},
        "server_contribution": {"sum form of the server"},
        "contribution_change": {"absent clients"},
    }
    assert holding(expected[line]) == set()


def test_a_wrong_lagrangian_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constraint with the other sign: every line that follows from it is another one."""
    for name in ("client_stationarity", "client_map", "multiplier", "dual_update", "bregman_dual_update"):
        monkeypatch.setattr(admm, name, getattr(admm, name).__wrapped__)
    monkeypatch.setattr(admm, "client_term", lambda: admm.Loss(admm.mu_k) + admm.eta * (admm.mu_k - admm.mu_g))
    assert holding({"client line", "fixed point", "classic ADMM", "PVI"}) == set()


def test_a_rule_of_traces_that_is_false_is_caught() -> None:
    s = calculus(FAMILIES["full_gaussian"], 2)
    assert all(prove(s) for _, _, prove in claims_traces.RULES)
    (jacobi,) = (prove for name, _, prove in claims_traces.RULES if name == "Jacobi's rule")
    twice = dataclasses.replace(s, at=dataclasses.replace(s.at, natural=(s.at.natural[0], 2 * s.at.natural[1])))
    with pytest.raises((ClaimError, ValueError)):
        jacobi(twice)


modules = cache(generate.build)


def test_every_kernel_is_the_target_of_a_claim() -> None:
    assert lowered.unclaimed(modules().values(), every_claim()) == []
    targets = {t for c in every_claim() for t in c.targets}
    assert {"round.round_update", "full_gaussian.kl", "gamma.natural_from_expectation", "ivon.update_sample"} <= targets


@pytest.mark.parametrize("name", [*FAMILIES])
def test_a_planted_kernel_without_a_claim_is_named(name: str) -> None:
    module = modules()[name]
    assert isinstance(module, FamilyModule)
    planted_kernel = dataclasses.replace(module.kernels[-1], name="planted")
    extended = dataclasses.replace(module, kernels=(*module.kernels, planted_kernel))
    assert lowered.unclaimed([extended], every_claim()) == [f"{module.name}.planted"]


@pytest.mark.parametrize("name", ["round_update", "contribution_change", "server_total"])
def test_a_kernel_that_is_not_its_line_fails_its_claim(name: str) -> None:
    """A claim that names a kernel runs it: one lowered from something else is found."""
    module = round_module()
    (other,) = (k for k in module.kernels if k.name == "primal_residual")
    (own,) = (k for k in module.kernels if k.name == name)
    assert isinstance(other, Map)
    wrong: Map | ClientSum
    if isinstance(own, ClientSum):
        wrong = dataclasses.replace(own, term=other.results[0], body=(Let("lambda_g", Lit("0.5")),))
    else:
        assert isinstance(own, Map)
        extra = (Let("lambda_g", Var("lambda_k")),)
        wrong = dataclasses.replace(own, results=other.results * len(own.results), body=(*own.body, *extra))
    spoiled = dataclasses.replace(module, kernels=tuple(wrong if k is own else k for k in module.kernels))
    with pytest.raises(ClaimError, match=name):
        lowered.lines(spoiled, expected_results())


def test_normal_form_knows_the_rules_of_the_trace() -> None:
    xi, s = (slot.symbol for slot in FAMILIES["full_gaussian"].natural)
    assert traces.normal(sp.Trace(s * xi * xi.T) - sp.Trace(xi.T * s * xi)) == 0
    assert traces.normal(sp.Trace(s * s.I)) == DIMENSION
    assert traces.normal(sp.Trace(xi.T * s * xi) - sp.Trace(xi.T * s.I * xi)) != 0
