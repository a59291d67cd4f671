"""A family is one file and its oracle: derived, validated, solved, stored, resumed and configured with nothing else.

Everything happens in a copy of the four packages, in processes of their own.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
FAMILY = '''
"""The time until a failure: T(θ) = −θ, λ = hazard."""
import sympy as sp
from ..calculus.family import Family, Slot
theta, h = sp.symbols("theta h", positive=True)
FAMILY = Family(
    name="waiting_time",
    title="Waiting time",
    citation="any text on survival analysis",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(-theta,),
    base_measure=sp.S.One,
    natural=(Slot("hazard", h, "positive"),),
    log_partition=-sp.log(h),
    standard=(Slot("hazard", h, "positive"),),
    natural_of_standard=(h,),
    expectation=(Slot("negative_mean", sp.Symbol("mu", negative=True), "negative"),),
)
'''
ORACLE = '''
"""The waiting time's closed forms."""
import mpmath
from ..family import FactorisingOracle
class WaitingTime(FactorisingOracle):
    domains = standard_domains = ("positive",)
    tolerances = {"log_density": 1e-14}
    def log_partition(self, natural):
        return [-mpmath.log(natural[0])]
    def entropy(self, natural):
        return [mpmath.mpf(1), -mpmath.log(natural[0])]
    def log_density(self, point):
        return [[mpmath.log(point[1]), -point[1] * point[0]]]
    def natural_from_standard(self, standard):
        return [[standard[0]]]
    standard_from_natural = natural_from_standard
    def expectation_from_natural(self, natural):
        return [[-1 / natural[0]]]
    natural_from_expectation = expectation_from_natural
    def natural_gradient(self, point):
        return [[point[0] ** 2 * point[1]]]
    def kl(self, q, p):
        return p[0] / q[0] - 1 - mpmath.log(p[0] / q[0])
ORACLE = WaitingTime()
'''
DERIVE = """
from derive import generate
from derive.claims.claim import check
from derive.claims.families import claims
from derive.families import load_families
verdicts = [check(claim) for claim in claims(load_families()["waiting_time"])]
assert verdicts and all(v.holds for v in verdicts), verdicts
files = generate.expected()
written = generate.write(files, generate.ROOT)
assert "kernels/badmm_kernels/cpu/waiting_time.py" in written
assert generate.differences(files, generate.ROOT) == []
print(len(verdicts))
"""
SOLVE = """
import badmm, numpy as np
from badmm.likelihoods import PoissonRate
clients = [PoissonRate(np.zeros((1, 2)), e) for e in (0.5, 2.0, 4.0)]
prior = badmm.WaitingTime([1.5, 2.5])
result = badmm.solve(clients, family="waiting_time", prior=prior, rounds=1)
assert np.allclose(result.posterior.hazard, [8.0, 9.0], rtol=1e-14, atol=0)
assert np.allclose(result.posterior.mean, [1 / 8, 1 / 9]) and np.allclose(result.posterior.variance, [1 / 64, 1 / 81])
assert result.posterior.sample(5).shape == (5, 2)
state = badmm.SolverState.from_arrays(*result.state.to_arrays())
again = badmm.solve(clients, family="waiting_time", prior=prior, state=state, rounds=3)
assert again.converged and np.allclose(again.posterior.hazard, [8.0, 9.0], rtol=1e-14, atol=0)
print(result.posterior)
"""
CONFIG = """
name = "failures"
family = "waiting_time"
[data]
source = "hours.csv"
target = "failures"
exposure = "hours"
test_fraction = 0.0
[split]
kind = "column"
column = "site"
[likelihood]
kind = "poisson_rate"
[prior]
hazard = 1.5
[run]
rounds = 1
tol = 0.0
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four packages with one more family."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("derive", "kernels", "badmm", "validation"):
        # with the compiled kernels, which Numba knows by the time and size of their sources; not what it writes now
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("*.tmp.*"))
    (root / "derive" / "families" / "waiting_time.py").write_text(FAMILY, encoding="utf-8")
    (root / "validation" / "oracles" / "families" / "waiting_time.py").write_text(ORACLE, encoding="utf-8")
    python(root, "-c", DERIVE)
    return root


def python(root: Path, *arguments: str, code: int = 0) -> str:
    path = os.pathsep.join((str(root), str(root / "kernels")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_family_file_is_of_twenty_lines() -> None:
    assert len(FAMILY.strip().splitlines()) <= 20


def test_it_is_validated(tree: Path) -> None:
    report = tree / "checks.json"
    shown = python(tree, "-m", "validation", "--family", "waiting_time", "--json", str(report))
    assert "MISS" not in shown
    names = report.read_text(encoding="utf-8")
    assert all(f"{kernel}:" in names for kernel in ("whiten", "log_density", "kl", "natural_gradient", "dual_update"))


def test_it_is_solved_in_one_round_and_resumed(tree: Path) -> None:
    assert "WaitingTime(hazard=array([8., 9.]))" in python(tree, "-c", SOLVE)


def test_a_configuration_runs_stores_draws_and_resumes(tree: Path) -> None:
    (tree / "failures.toml").write_text(CONFIG, encoding="utf-8")
    (tree / "hours.csv").write_text("failures,hours,site\n0,0.5,0\n0,2.0,1\n0,4.0,1\n", encoding="utf-8")
    out = tree / "result"
    python(tree, "-m", "badmm", "run", "failures.toml", "--out", str(out), "--quiet")
    assert load_file(out / "posterior.safetensors")["hazard"] == pytest.approx([8.0], rel=1e-14)
    assert (out / "posterior.png").stat().st_size > 10_000
    more = ("--resume", "--set", "run.rounds=2")
    python(tree, "-m", "badmm", "run", "failures.toml", "--out", str(out), "--quiet", *more)
    rounds = [json.loads(line)["round"] for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rounds == [1, 2]
    wrong = python(tree, "-m", "badmm", "run", "failures.toml", "--set", "prior.rate=2.0", code=2)
    assert "prior.rate: expected one of hazard, got an unknown key (family = waiting_time)" in wrong
