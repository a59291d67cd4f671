"""A family or likelihood of a user's own: derived from a file outside the package, and refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from derive.__main__ import main
from derive.calculus.family import Family
from derive.claims import domain, lowered
from derive.claims.claim import check
from derive.ir.nodes import Reduction
from derive.lower.families import build_module
from derive.own import load

ROOT = Path(__file__).resolve().parents[2]
FAMILY = """
import sympy as sp
from badmm_derive.calculus.family import Family, Slot
theta, r = sp.symbols("theta r", positive=True)
FAMILY = Family(
    name="waiting",
    title="Waiting time",
    citation="any text on survival analysis",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(-theta,),
    base_measure=sp.S.One,
    natural=(Slot("rate", r, "positive"),),
    log_partition=-sp.log(r),
    standard=(Slot("rate", r, "positive"),),
    natural_of_standard=(r,),
    expectation=(Slot("negative_mean", sp.Symbol("mu", negative=True), "negative"),),
)
"""
LOSS = """
import sympy as sp
from badmm_derive.calculus.likelihood import Likelihood, Parameter, Response
a, y = sp.symbols("a y", real=True)
s = sp.Symbol("s", positive=True)
r = (y - a) / s
LIKELIHOOD = Likelihood(
    name="waiting",
    title="Logistic noise",
    citation="Balakrishnan, Handbook of the logistic distribution, 1992",
    predictor=a,
    responses=(Response("y", y, "real"),),
    loss=2 * sp.log(1 + sp.exp(-r)) + r + sp.log(s),
    parameters=(Parameter("scale", s, "scale of y around a"),),
)
"""
BETA = """
import sympy as sp
from badmm_derive.calculus.family import Family, Slot
theta, p, q = sp.symbols("theta p q", positive=True)
m, n = sp.symbols("m n", negative=True)
FAMILY = Family(
    name="waiting", title="Beta", citation="any", theta=theta, support=(sp.S.Zero, sp.S.One),
    statistics=(sp.log(theta), sp.log(1 - theta)), base_measure=1 / (theta * (1 - theta)),
    natural=(Slot("alpha", p, "positive"), Slot("beta", q, "positive")),
    log_partition=sp.loggamma(p) + sp.loggamma(q) - sp.loggamma(p + q),
    standard=(Slot("alpha", p, "positive"), Slot("beta", q, "positive")), natural_of_standard=(p, q),
    expectation=(Slot("mean_log", m, "negative"), Slot("mean_log_rest", n, "negative")),
)
"""
LOG_ODDS = """
import sympy as sp
from badmm_derive.calculus.family import Family, Slot
theta, p, n, q = sp.symbols("theta p n q", positive=True)
mu, nu = sp.Symbol("mu", real=True), sp.Symbol("nu", negative=True)
FAMILY = Family(
    name="waiting", title="Beta by its log-odds", citation="any", theta=theta, support=(sp.S.Zero, sp.S.One),
    statistics=(sp.log(theta) - sp.log(1 - theta), sp.log(1 - theta)), base_measure=1 / (theta * (1 - theta)),
    natural=(Slot("alpha", p, "positive"), Slot("total", n, "positive")), domain=(n - p,),
    log_partition=sp.loggamma(p) + sp.loggamma(n - p) - sp.loggamma(n),
    standard=(Slot("alpha", p, "positive"), Slot("beta", q, "positive")), natural_of_standard=(p, p + q),
    expectation=(Slot("mean_log_odds", mu, "real"), Slot("mean_log_rest", nu, "negative")),
)
"""
PAIR = """
import sympy as sp
from badmm_derive.calculus.family import Family, Slot
x, t, r, s = sp.symbols("x t r s", positive=True)
mu, nu = sp.symbols("mu nu", negative=True)
FAMILY = Family(
    name="waiting", title="Two waiting times", citation="any", theta=(x, t), support=((0, sp.oo), (0, sp.oo)),
    statistics=(-x, -t), base_measure=sp.S.One, natural=(Slot("first", r, "positive"), Slot("second", s, "positive")),
    log_partition=-sp.log(r) - sp.log(s), standard=(Slot("first", r, "positive"), Slot("second", s, "positive")),
    natural_of_standard=(r, s), expectation=(Slot("mu", mu, "negative"), Slot("nu", nu, "negative")),
)
"""
# what is broken: (file, what stands in it, what stands there instead, words of the one line)
BROKEN: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "A that is not T's": (FAMILY, "-sp.log(r),\n    st", "-2 * sp.log(r),\n    st", ("waiting.py", "integral - 1")),
    "a statistic that is not integrable": (
        FAMILY,
        "statistics=(-theta,)",
        "statistics=(theta,)",
        ("waiting.py", "does not decay"),
    ),
    "no citation": (FAMILY, "any text on survival analysis", " ", ("waiting.citation", "expected")),
    "an unsupported function": (FAMILY, "-sp.log(r),\n    st", "sp.besseli(1, r),\n    st", ("waiting", "besseli")),
    "coupled unknowns that are not positive": (
        BETA,
        'standard=(Slot("alpha", p, "positive")',
        'standard=(Slot("alpha", p, "real")',
        ("waiting.natural_of_expectation", "alpha (real)", "newton.py"),
    ),
    "a coupled domain that is not stated": (
        LOG_ODDS,
        " domain=(n - p,),",
        "",
        ("waiting.domain", "beta > 0, such as domain=(n - p,)", "got none"),
    ),
    "a coupled domain that A alone shows": (
        BETA,
        "sp.loggamma(q) - sp.loggamma(p + q)",
        "sp.loggamma(q - p) - sp.loggamma(q)",
        ("waiting.domain", "log-gamma", "domain=(-p + q,)", "log_partition"),
    ),
    "an inequality that members break": (LOG_ODDS, "domain=(n - p,)", "domain=(n - p, n - 1)", ("domain", "n - 1 > 0")),
    "an inequality that is no cone": (
        LOG_ODDS,
        "domain=(n - p,)",
        "domain=(n - p, n * (n**2 - p**2))",
        ("domain", "quadratic form"),
    ),
    "two variables that are not Gaussian": (PAIR, "", "", ("waiting.theta", "x, t", "conditional.py")),
    "a name twice": (
        BETA,
        'natural=(Slot("alpha", p, "positive"), Slot("beta"',
        'natural=(Slot("alpha", p, "positive"), Slot("alpha"',
        ("waiting.natural", "'alpha' twice"),
    ),
    "another name than the file's": (FAMILY, 'name="waiting"', 'name="other"', ("waiting.py", "'waiting'", "'other'")),
    "no Python": (FAMILY, "FAMILY = Family(", "FAMILY = Family((", ("waiting.py, line", "SyntaxError")),
    "a name that nothing defines": (FAMILY, "-sp.log(r),\n    st", "-sp.log(rate),\n    st", ("line", "NameError")),
    "a stray symbol": (
        FAMILY,
        "-sp.log(r),\n    st",
        '-sp.log(r) + sp.Symbol("c"),\n    st',
        ("waiting.log_partition", "['c']"),
    ),
    "slots of another number": (
        FAMILY,
        "statistics=(-theta,)",
        "statistics=(-theta, theta)",
        ("statistics", "1 slots"),
    ),
    "nothing stated": (FAMILY, "FAMILY = Family(", "OTHER = Family(", ("expected one FAMILY or one LIKELIHOOD",)),
    "a support that is none": (LOSS, '"real"),', '"whole"),', ("support of y", "'whole'")),
    "a loss of several forms of a": (
        LOSS,
        "+ sp.log(s),",
        "+ sp.log(1 + sp.exp(a) + sp.exp(a * s)),",
        ("likelihoods/waiting.py", "one linear form", "losses.py"),
    ),
    "a loss without a": (LOSS, "loss=2 * sp.log(1 + sp.exp(-r)) + r + sp.log(s)", "loss=y**2 / s", ("function of a",)),
}


@pytest.mark.parametrize(("text", "there", "instead", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    there: str,
    instead: str,
    words: tuple[str, ...],
) -> None:
    assert there in text
    path = tmp_path / "waiting.py"
    path.write_text(text.replace(there, instead) if there else text, encoding="utf-8")
    assert main([str(path), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert len(lines) == 1 and "Traceback" not in captured.err, captured.err
    for word in words:
        assert word in lines[0], lines[0]
    assert not (tmp_path / "out").exists()


def test_a_coupled_domain_of_ones_own_is_proved(tmp_path: Path) -> None:
    """The inverse map by Newton in the standard parameters, the margin of a linear form, refusals outside of it."""
    path = tmp_path / "waiting.py"
    path.write_text(LOG_ODDS, encoding="utf-8")
    stated = load(path)
    assert isinstance(stated, Family)
    proved = [check(claim) for claim in (*domain.claims(stated), *lowered.claims(stated))]
    assert [v.claim.name for v in proved] == [
        "stated domain",
        "margin",
        "lowered waiting",
        "Newton for the inverse map",
    ]
    assert all(v.holds for v in proved), [v.method for v in proved]
    kernels = {k.name: k for k in build_module(stated).kernels}
    partition = kernels["log_partition"]
    assert isinstance(partition, Reduction)
    (joint,) = partition.joint
    assert (joint.argument, joint.formula) == ("natural", "-alpha + total")


@pytest.mark.parametrize("text", [FAMILY, LOSS], ids=["family", "likelihood"])
def test_a_file_is_proved_written_and_solved_with(tmp_path: Path, text: str) -> None:
    (tmp_path / "waiting.py").write_text(text, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    use = """
import numpy as np, badmm, badmm_kernels
from badmm.families import registry
from badmm.likelihoods import PoissonRate, regression
path = "kernels_of_mine/waiting.py"
if "LIKELIHOOD" in open("waiting.py").read():
    Noise = regression(badmm_kernels.load_likelihood(path), "Noise")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 2))
    y = X @ [1.0, -2.0] + 0.3 * rng.logistic(size=90)
    clients = [Noise(X[k::3], y[k::3], scale=0.3) for k in range(3)]
    found = badmm.solve(clients, family="full_gaussian", prior=badmm.Gaussian(np.zeros(2), 0.01 * np.eye(2)))
    assert found.converged and abs(found.posterior.mean - [1.0, -2.0]).max() < 0.2
else:
    Waiting = registry.distribution(path)
    clients = [PoissonRate(np.zeros((1, 2)), e) for e in (0.5, 2.0)]
    found = badmm.solve(clients, family=path, prior=Waiting([1.5, 2.5]), rounds=1)
    assert abs(found.posterior.parameters()["rate"] - [4.0, 5.0]).max() < 1e-12
"""
    derive = [sys.executable, "-m", "derive", "waiting.py", "--out", "kernels_of_mine"]
    for command in (derive, [sys.executable, "-c", use]):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "kernels_of_mine" / "waiting.h").is_file()
