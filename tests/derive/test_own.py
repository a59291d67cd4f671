"""A family or likelihood of a user's own: derived from a file outside the package, and refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from derive.__main__ import main

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
        'natural=(Slot("alpha", p, "positive")',
        'natural=(Slot("alpha", p, "real")',
        ("waiting.natural_of_expectation", "alpha (real)", "newton.py"),
    ),
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
