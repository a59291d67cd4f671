"""A likelihood is one file, wherever it lies: `badmm.solve` takes its objects, a configuration takes the file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.optimize import minimize

import badmm
from badmm import Gamma, Gaussian
from badmm.__main__ import main
from badmm.experiments.config import ConfigError, load

LIKELIHOODS = '''
"""Regression with errors that a wild response does not carry away, and a rate of waiting times."""

from __future__ import annotations

import numpy as np


class Hyperbolic:
    """ℓ(θ) = Σ_i √(1 + (a_i − y_i)²/s²), a = Xθ, by the delta method."""

    def __init__(self, X, y, scale: float = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"scale: expected a positive number, got {scale!r}")
        self.X, self.y, self.scale, self.dim = np.asarray(X), np.asarray(y), scale, np.shape(X)[1]

    def expectations(self, posterior):
        z = (self.X @ posterior.mean - self.y) / self.scale
        root = np.sqrt(1.0 + z * z)
        weight = 1.0 / (root**3 * self.scale**2)
        if posterior.whole_hessian:
            hessian = (self.X.T * weight) @ self.X
        else:
            hessian = (self.X.T**2) @ weight
        return float(root.sum()), self.X.T @ (z / root) / self.scale, hessian


class Waiting:
    """ℓ(r) = r Σ_i t_i − n log r, t exponential with rate r: conjugate to the gamma family."""

    dim = 1

    def __init__(self, y, exposure) -> None:
        self.count, self.time = float(np.sum(y)), float(np.sum(exposure))

    def constant_natural_gradient(self, family):
        return family.linear({"log(theta)": np.full(1, -self.count), "theta": np.full(1, self.time)})

    def natural_gradient(self, posterior):
        raise AssertionError("a conjugate client is solved without a call")
'''
CONVEX = """
name = "hyperbolic"
family = "full_gaussian"
[data]
source = "table.csv"
[split]
clients = 2
kind = "iid"
[likelihood]
kind = "own.py:Hyperbolic"
scale = 0.5
[run]
rounds = 30
"""
RATE = """
name = "waiting"
family = "gamma"
prior = { shape = 2.0, rate = 3.0 }
[data]
source = "table.csv"
exposure = "hours"
[split]
kind = "column"
column = "site"
[likelihood]
kind = "own.py:Waiting"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(LIKELIHOODS, encoding="utf-8")
    return path


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_likelihoods", path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = X @ [1.0, -2.0] + 0.1 * rng.normal(size=60)
    y[::10] += 50.0
    return X, y


def mode(X: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """argmin Σ √(1 + z²) + ½ ‖θ‖², by BFGS."""
    found = minimize(
        lambda t: np.sqrt(1 + ((X @ t - y) / scale) ** 2).sum() + 0.5 * t @ t, np.zeros(X.shape[1]), tol=1e-12
    )
    return np.asarray(found.x)


@pytest.mark.parametrize("family", ["full_gaussian", "diagonal_gaussian"])
def test_solve_takes_its_objects(file: Path, family: str) -> None:
    X, y = table()
    clients = [module(file).Hyperbolic(X[k::3], y[k::3], 0.5) for k in range(3)]
    result = badmm.solve(clients, family=family, prior=Gaussian(np.zeros(2), 1.0), tol=1e-9)
    assert result.converged
    assert result.posterior.mean == pytest.approx(mode(X, y, 0.5), abs=2e-6)


def test_a_configuration_takes_the_file(file: Path) -> None:
    X, y = table()
    rows = "\n".join(f"{a!r},{b!r},{c!r}" for (a, b), c in zip(X.tolist(), y.tolist(), strict=True))
    (file.parent / "table.csv").write_text(f"a,b,y\n{rows}\n", encoding="utf-8")
    (file.parent / "convex.toml").write_text(CONVEX, encoding="utf-8")
    out = file.parent / "out"
    arguments = ["run", str(file.parent / "convex.toml"), "--out", str(out), "--quiet"]
    assert main([*arguments, "--set", "data.standardize=false", "--set", "data.intercept=false"]) == 0
    assert load_file(out / "posterior.safetensors")["mean"] == pytest.approx(mode(X, y, 0.5), abs=1e-5)
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["converged"]
    assert load(out / "config.toml").likelihood.scale == 0.5  # type: ignore[attr-defined]


def test_a_rate_with_exposures_is_found_from_its_constructor(file: Path) -> None:
    (file.parent / "table.csv").write_text("y,hours,site\n2,1.5,0\n0,2.5,0\n3,4.0,1\n", encoding="utf-8")
    (file.parent / "rate.toml").write_text(RATE, encoding="utf-8")
    out = file.parent / "out"
    assert main(["run", str(file.parent / "rate.toml"), "--out", str(out), "--quiet"]) == 0
    found = load_file(out / "posterior.safetensors")
    assert (found["shape"][0], found["rate"][0]) == pytest.approx((2.0 + 5.0, 3.0 + 8.0), rel=1e-12)
    prior: dict[str, Any] = {"family": "gamma", "prior": Gamma(2.0, 3.0)}
    result = badmm.solve([module(file).Waiting([2, 0], [1.5, 2.5]), module(file).Waiting([3], [4.0])], **prior)
    assert result.natural[0] == pytest.approx([7.0])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("likelihood.shape=2.0", "likelihood.shape: expected one of kind, scale, got an unknown key"),
        ("likelihood.scale=wide", "likelihood.scale: expected a .*number, got 'wide'"),
        ("likelihood.kind=own.py:Nothing", "likelihood.kind: expected one of linear_regression"),
        ("likelihood.kind=absent.py:Hyperbolic", "likelihood.kind: expected a file or module that can be imported"),
        ("family=gamma", r"likelihood.kind: expected one of poisson_rate, exponential_rate \(family = gamma\)"),
        ("data.exposure=y", "data.exposure: expected no such key"),
    ],
)
def test_what_does_not_fit_is_named(file: Path, override: str, words: str) -> None:
    (file.parent / "convex.toml").write_text(CONVEX, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load(file.parent / "convex.toml", [override])


def test_a_setting_that_the_class_refuses_is_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "table.csv").write_text("a,y\n1,2\n3,4\n", encoding="utf-8")
    (file.parent / "convex.toml").write_text(CONVEX, encoding="utf-8")
    arguments = ["run", str(file.parent / "convex.toml"), "--out", str(file.parent / "out"), "--quiet"]
    assert main([*arguments, "--set", "likelihood.scale=-1.0"]) == 2
    assert capsys.readouterr().err.startswith("error: scale: expected a positive number, got -1.0")
