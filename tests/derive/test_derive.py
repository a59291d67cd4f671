"""The symbolic layer: every claim holds, false ones fail, and what is generated is what is committed."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import sympy as sp
from scipy import stats

from derive import generate, paths
from derive.__main__ import main
from derive.calculus.elementwise import calculus
from derive.calculus.family import Family, FamilyError, Slot
from derive.claims import admm as claims_admm
from derive.claims import families as claims_family
from derive.claims.claim import Claim, ClaimError, Verdict, check, zero
from derive.claims.every import every_claim
from derive.emit.numba.family import emit
from derive.families import load_families
from derive.lower.families import build_module
from derive.report import document

CLAIMS = list(every_claim())
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


@cache
def proved(number: int) -> Verdict:
    return check(CLAIMS[number])


@pytest.mark.parametrize("number", range(len(CLAIMS)), ids=lambda k: f"{CLAIMS[k].family}: {CLAIMS[k].name}")
def test_claim_holds(number: int) -> None:
    verdict = proved(number)
    assert verdict.holds, verdict.method
    assert verdict.method


def test_the_claims_asked_for_are_there() -> None:
    names = {c.name for c in CLAIMS}
    assert {
        "normalisation",
        "gradient of A is E[T]",
        "inverse map",
        "gradient of KL in mu",
        "Fisher times natural gradient",
        "Bonnet",
        "Price",
        "client stationarity",
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
    assert len(CLAIMS) == len({(c.family, c.name) for c in CLAIMS})


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
    failed = []
    for claim in claims_family.claims(family):
        try:
            holds = check(claim).holds
        except Exception:  # a family this wrong may not even be integrable
            holds = False
        failed += [] if holds else [claim.name]
    assert broken in failed


def test_zero_refuses_what_is_not() -> None:
    with pytest.raises(ClaimError, match="leaves"):
        zero(sp.Symbol("rho", positive=True) - 1)


def test_wrong_round_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from derive.updates import admm

    wrong = admm.eta - admm.gamma * admm.rho * (admm.lam_g - admm.lam_k)
    monkeypatch.setattr(admm, "dual_update", lambda: wrong)
    failed = {c.name for c in claims_admm.claims() if not check(c).holds}
    assert {"dual equals natural gradient", "classic ADMM", "one-round theorem"} <= failed


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
    assert all(check(c).holds for c in claims_family.claims(EXPONENTIAL))
    ns = load_emitted(EXPONENTIAL, tmp_path)
    q, p = np.array([0.3, 2.0, 7.0]), np.array([1.0, 2.5, 0.2])
    assert ns.entropy(q) == pytest.approx(stats.expon(scale=1 / q).entropy().sum(), rel=1e-14)
    assert ns.kl((q,), (p,)) == pytest.approx((p / q - 1 - np.log(p / q)).sum(), rel=1e-13)
    np.testing.assert_allclose(ns.natural_from_expectation(*ns.expectation_from_natural(q))[0], q, rtol=1e-15)
    # ∂L/∂rate = F ∇_μ L with F = 1/rate².
    np.testing.assert_allclose(ns.natural_gradient(q, p)[0], p * q**2, rtol=1e-15)
    with pytest.raises(ValueError, match=r"rate: expected positive, got -1\.0 at index 1"):
        ns.entropy(np.array([1.0, -1.0]))


def test_generated_files_are_current() -> None:
    assert generate.differences(generate.expected(), paths.ROOT) == []


@pytest.fixture
def written(tmp_path: Path) -> Path:
    generate.write(generate.expected(), tmp_path)
    return tmp_path


def test_check_fails_on_a_hand_edited_file(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written / "kernels/badmm_kernels/cpu/gamma.py"
    path.write_text(path.read_text(encoding="utf-8").replace("fma(p, w,", "fma(p, -w,", 1), encoding="utf-8")
    assert main(["--check", "--out", str(written)]) == 1
    out = capsys.readouterr().out
    assert "edited by hand: kernels/badmm_kernels/cpu/gamma.py" in out
    assert "-        p = fma(p, -w," in out and "+        p = fma(p, w," in out
    assert "python -m derive" in out


@pytest.mark.parametrize(
    "name",
    [
        "kernels/badmm_kernels/include/badmm/gamma.h",
        "kernels/badmm_kernels/include/badmm/special.h",
        "kernels/badmm_kernels/include/badmm_kernels.f90",
    ],
)
def test_check_covers_the_header(name: str, written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written / name
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("GENERATED", "Generated", 1), encoding="utf-8")
    assert main(["--check", "--out", str(written)]) == 1
    assert f"edited by hand: {name}" in capsys.readouterr().out
    path.write_text(text, encoding="utf-8")
    orphan = path.with_name(f"beta{path.suffix}")
    orphan.write_text(text, encoding="utf-8")
    assert main(["--check", "--out", str(written)]) == 1
    assert f"orphaned: {orphan.relative_to(written)}" in capsys.readouterr().out
    assert generate.remove_orphans(generate.expected(), written) == [str(orphan.relative_to(written))]


def test_check_fails_on_a_missing_file(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (written / "kernels/badmm_kernels/cpu/full_gaussian.py").unlink()
    assert main(["--check", "--out", str(written)]) == 1
    assert "missing: kernels/badmm_kernels/cpu/full_gaussian.py" in capsys.readouterr().out


def test_check_fails_on_an_orphan_and_generation_removes_it(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orphan = written / "kernels/badmm_kernels/cpu/beta.py"
    orphan.write_text((written / "kernels/badmm_kernels/cpu/gamma.py").read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["--check", "--out", str(written)]) == 1
    assert "orphaned: kernels/badmm_kernels/cpu/beta.py" in capsys.readouterr().out
    assert generate.remove_orphans(generate.expected(), written) == ["kernels/badmm_kernels/cpu/beta.py"]
    assert main(["--check", "--out", str(written)]) == 0


def test_a_family_file_that_changes_makes_its_module_stale() -> None:
    name = "kernels/badmm_kernels/cpu/gamma.py"
    changed = dataclasses.replace(build_module(FAMILIES["gamma"]), digest="0" * 16)
    assert emit(changed) != generate.expected(["gamma"])[name]


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_output_does_not_depend_on_hashing(seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "derive", "--check"],
        cwd=paths.ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("stage", ["family", "calculus", "ir", "source"])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_show_prints_a_stage(stage: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--show", stage]) == 0
    out = capsys.readouterr().out
    expected = {"family": "log_partition", "calculus": "Natural gradient", "ir": "dual_update", "source": "GENERATED"}
    assert expected[stage] in out


def test_unknown_family_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["beta"]) == 2
    assert "expected one of diagonal_gaussian" in capsys.readouterr().err


def test_a_failing_claim_stops_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def false() -> str:
        raise ClaimError("planted")

    monkeypatch.setattr("derive.__main__.every_claim", lambda names: [Claim("planted", "round", "0=1", false)])
    assert main(["--out", str(tmp_path)]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_committed_derivation_is_current() -> None:
    committed = (paths.ROOT / "docs/derivation.md").read_text(encoding="utf-8")
    assert document([proved(k) for k in range(len(CLAIMS))]) == committed


def test_natural_gradient_of_the_matrix_form_reads_as_in_the_paper() -> None:
    g, h, mean = (sp.Symbol(n, real=True) for n in ("g", "H", "m1"))
    first, second = calculus(FAMILIES["full_gaussian"]).natural_gradient
    assert sp.simplify(first[0, 0] - (g - h * mean)) == 0
    assert second[0, 0] == -h


def test_no_generated_text_names_the_version_of_a_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp, "__version__", "0.0.another")
    assert generate.differences(generate.expected(), paths.ROOT) == []
