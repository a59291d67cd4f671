"""A method is one file, wherever it lies: `badmm.solve`, a convex and a federated configuration take it from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import badmm
from badmm import Gaussian
from badmm.__main__ import main
from badmm.experiments.config import ConfigError, load
from badmm.likelihoods import LogisticRegression
from badmm.methods import ExactMethod
from tests.badmm.rounds.federated_problems import SMALL

METHOD = '''
"""Bayesian ADMM whose duals remember: η_k ← (1 − forget) [η_k + γρ (λ_g − λ_k)].

    client   q_k ← argmin E_q[ℓ_k]/τ − ⟨η_k, μ⟩ + ρ KL(q‖q_g)
    server   λ_g ← (1 − α) mean_k λ_k + α (λ_0 − Σ_k η_k)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from badmm.methods import PVI

FORGET = 0.25


@dataclass(frozen=True)
class Forgetful(PVI):
    """PVI with duals that shrink in every round."""

    name: ClassVar[str] = "forgetful"
    samples: int = 2

    @staticmethod
    def dual(ns, duals, server, clients, rho, damping, **fixed):
        return tuple((1.0 - FORGET) * slot for slot in PVI.dual(ns, duals, server, clients, rho, damping, **fixed))


class Unfinished(PVI):
    """Not a method of its own."""

    name = "unfinished"


Not_A_Method = int
'''
CONVEX = """
name = "convex"
family = "full_gaussian"
[data]
source = "breast_cancer"
components = 2
[split]
clients = 3
kind = "iid"
[likelihood]
kind = "logistic_regression"
[method]
name = "forgetful.py:Forgetful"
damping = 1.0
[run]
rounds = 3
tol = 0.0
"""
FEDERATED = '[methods.mine]\nmethod = "forgetful.py:Forgetful"\ntemperature = 0.1\nlocal.lr = 0.05\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "forgetful.py"
    path.write_text(METHOD, encoding="utf-8")
    return path


def clients() -> list[LogisticRegression]:
    rng = np.random.default_rng(4)
    return [LogisticRegression(rng.normal(size=(20, 2)), rng.integers(0, 2, 20)) for _ in range(3)]


def test_solve_takes_it_from_its_file_its_module_and_as_a_class(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: dict[str, Any] = {"family": "full_gaussian", "prior": Gaussian(np.zeros(2), 1.0), "damping": 1.0}
    states: list[badmm.SolverState] = []
    own = badmm.solve(clients(), method=f"{file}:Forgetful", rounds=40, callbacks=[states.append], **shared)
    # η = (1 − f) ∇L where the rounds end, so that λ_g = λ_0 − (1 − f) Σ ∇L: a prior that weighs more
    last, before = states[-1], states[-2]
    for slot in range(2):
        step = before.duals[slot] + (before.natural[slot] - last.clients[slot])
        assert last.duals[slot] == pytest.approx(0.75 * step, rel=1e-12, abs=1e-14)
        prior = (np.zeros(2), np.eye(2))[slot]
        assert last.natural[slot] == pytest.approx(prior - last.duals[slot].sum(axis=0), rel=1e-9, abs=1e-12)
    pvi = badmm.solve(clients(), method="pvi", **shared)
    assert np.abs(own.natural[1] - pvi.natural[1]).max() > 0.1
    monkeypatch.syspath_prepend(str(file.parent))
    import forgetful  # type: ignore[import-not-found]

    for method in ("forgetful:Forgetful", forgetful.Forgetful):
        again = badmm.solve(clients(), method=method, rounds=40, **shared)
        assert all(np.array_equal(a, b) for a, b in zip(own.natural, again.natural, strict=True))


def test_a_convex_configuration_runs_and_resumes_with_it(file: Path) -> None:
    (file.parent / "convex.toml").write_text(CONVEX, encoding="utf-8")
    arguments = ["run", str(file.parent / "convex.toml"), "--out", str(file.parent / "out"), "--quiet"]
    assert main(arguments) == 0
    assert main([*arguments, "--resume", "--set", "run.rounds=5"]) == 0
    lines = (file.parent / "out" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2, 3, 4, 5]
    written = load(file.parent / "out" / "config.toml")
    assert written.method.name == f"{file}:Forgetful"  # type: ignore[attr-defined]


def test_a_federated_configuration_runs_with_it_beside_others(file: Path) -> None:
    (file.parent / "federated.toml").write_text(SMALL + FEDERATED, encoding="utf-8")
    out = file.parent / "out"
    assert (
        main(["run", str(file.parent / "federated.toml"), "--out", str(out), "--set", "run.rounds=2", "--quiet"]) == 0
    )
    found = {entry["label"]: entry for entry in json.loads((out / "summary.json").read_text(encoding="utf-8"))}
    assert set(found) == {"scaffold", "pvi", "mine"}
    assert found["mine"]["flops"] == pytest.approx(2 * found["pvi"]["flops"])  # two samples a step
    assert found["mine"]["averaged"] is not None and np.isfinite(found["mine"]["nll"])


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("absent.py:Forgetful", "method: expected a file or module that can be imported, got absent.py"),
        ("no.such.module:Forgetful", "method: expected a file or module that can be imported, got no.such.module"),
        (
            "{file}:Nobody",
            "method: expected one of bayes_admm, pvi, newton, bregman_admm, or a subclass of .*file.py:Class",
        ),
        ("{file}:Not_A_Method", "method: expected one of .* a subclass of badmm.methods.admm.ExactMethod"),
        (ExactMethod | int, "method: expected one of"),
    ],
)
def test_what_is_no_method_is_refused(file: Path, method: Any, words: str) -> None:
    given = method.format(file=file) if isinstance(method, str) else method
    with pytest.raises(ValueError, match=words):
        badmm.solve(clients(), family="full_gaussian", prior=Gaussian(np.zeros(2), 1.0), method=given)


def test_a_file_with_an_error_is_named_and_read_again_when_mended(file: Path) -> None:
    file.write_text("import badmm.no_such_room\n", encoding="utf-8")
    shared: dict[str, Any] = {"family": "full_gaussian", "prior": Gaussian(np.zeros(2), 1.0), "rounds": 1}
    with pytest.raises(ValueError, match=r"method: expected a file .*forgetful.py \(No module named"):
        badmm.solve(clients(), method=f"{file}:Forgetful", **shared)
    file.write_text(METHOD, encoding="utf-8")
    assert badmm.solve(clients(), method=f"{file}:Forgetful", **shared).rounds == 1


def test_a_configuration_names_the_key_of_a_wrong_setting(file: Path) -> None:
    (file.parent / "federated.toml").write_text(SMALL + FEDERATED, encoding="utf-8")
    for override, words in (
        ("methods.mine.rho=2.0", "methods.mine.rho: expected one of method, local, precision, damping"),
        ("methods.mine.damping=2.0", r"methods.mine.damping: expected a number in \(0, 1\], got 2.0"),
        ("methods.mine.method=absent.py:Forgetful", "methods.mine.method: expected a file or module"),
    ):
        with pytest.raises(ConfigError, match=words):
            load(file.parent / "federated.toml", [override])
