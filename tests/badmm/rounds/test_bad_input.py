"""What a user gets for bad input: an error that names argument, expectation and value, and no half-written results.

One row a mistake. Kernels, distributions, likelihoods, `badmm.solve` with its clients, and the command line.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import badmm
import badmm_kernels
from badmm.__main__ import main
from badmm.likelihoods import (
    LinearRegression,
    LogisticRegression,
    PoissonRate,
    PoissonRegression,
    Quadratic,
    SoftmaxRegression,
)

ONES = np.ones(4)
EYE = np.eye(4)
QUADRATIC = Quadratic(np.eye(2), np.ones(2))
PRIOR = badmm.Gaussian(np.zeros(2), 1.0)


def kernel(family: str, name: str, *arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(badmm_kernels.load(family), name)(*arguments, **options)


def changed(array: np.ndarray, index: Any, value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def frozen(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.setflags(write=False)
    return array


def refuse(call: Callable[[], Any], words: tuple[str, ...]) -> None:
    with pytest.raises((ValueError, TypeError, RuntimeError)) as caught:
        call()
    message = str(caught.value)
    assert "expected" in message, message
    for word in words:
        assert word in message, f"{word!r} not in {message!r}"


KERNELS = {
    "unknown family": (lambda: badmm_kernels.load("cauchy"), ("family", "diagonal_gaussian", "'cauchy'")),
    "unknown device": (lambda: badmm_kernels.load("gamma", device="tpu"), ("device", "'cpu'", "'tpu'")),
    "wrong shape": (
        kernel("diagonal_gaussian", "natural_from_standard", ONES, np.ones(3)),
        ("precision", "(4,)", "(3,)"),
    ),
    "wrong dtype": (
        kernel("diagonal_gaussian", "natural_from_standard", ONES.astype(int), ONES),
        ("mean", "float32 or float64", "int64"),
    ),
    "mixed dtypes": (
        kernel("diagonal_gaussian", "natural_from_standard", ONES, ONES.astype(np.float32)),
        ("precision", "float64", "float32"),
    ),
    "no array": (
        kernel("diagonal_gaussian", "natural_from_standard", [1.0], ONES),
        ("mean", "array", "list"),
    ),
    "NaN": (
        kernel("diagonal_gaussian", "natural_from_standard", changed(ONES, 2, np.nan), ONES),
        ("mean", "finite", "nan", "index 2"),
    ),
    "negative precision": (
        kernel("diagonal_gaussian", "natural_from_standard", ONES, changed(ONES, 3, -0.3)),
        ("precision", "positive", "-0.3", "index 3"),
    ),
    "zero rate": (
        kernel("gamma", "natural_from_standard", ONES, changed(ONES, 1, 0.0)),
        ("rate", "positive", "0.0", "index 1"),
    ),
    "not positive definite": (
        kernel("full_gaussian", "standard_from_natural", ONES, changed(EYE, (1, 1), -1.0)),
        ("precision", "positive definite"),
    ),
    "not symmetric": (
        kernel("full_gaussian", "standard_from_natural", ONES, changed(EYE, (0, 1), 0.5)),
        ("precision", "symmetric"),
    ),
    "out of the wrong length": (
        kernel("diagonal_gaussian", "natural_from_standard", ONES, ONES, out=(np.empty(4),)),
        ("out", "2 arrays", "1"),
    ),
    "out of the wrong shape": (
        kernel("diagonal_gaussian", "natural_from_standard", ONES, ONES, out=(np.empty(4), np.empty(5))),
        ("out[1]", "(4,)", "(5,)"),
    ),
    "out of the wrong dtype": (
        kernel("diagonal_gaussian", "natural_from_standard", ONES, ONES, out=(np.empty(4), np.empty(4, np.float32))),
        ("out[1]", "float64", "float32"),
    ),
    "read-only out": (
        kernel("diagonal_gaussian", "natural_from_standard", ONES, ONES, out=(np.empty(4), frozen(ONES))),
        ("out[1]", "writable", "read-only"),
    ),
    "rho of zero": (
        kernel("diagonal_gaussian", "dual_update", (ONES, ONES), (ONES, ONES), (ONES, ONES), 0.0, 1.0),
        ("rho", "positive", "0"),
    ),
    "damping above one": (
        kernel("diagonal_gaussian", "dual_update", (ONES, ONES), (ONES, ONES), (ONES, ONES), 1.0, 1.5),
        ("damping", "(0, 1]", "1.5"),
    ),
    "a slot too few": (
        kernel("diagonal_gaussian", "kl", (ONES,), (ONES, ONES)),
        ("natural_q", "2", "1"),
    ),
}


@pytest.mark.parametrize(("call", "words"), KERNELS.values(), ids=KERNELS.keys())
def test_kernels(call: Callable[[], Any], words: tuple[str, ...]) -> None:
    refuse(call, words)


X, LABELS = np.ones((3, 2)), np.array([0, 1, 1])
ARGUMENTS = {
    "precision of the wrong shape": (lambda: badmm.Gaussian(np.zeros(2), np.ones(3)), ("precision", "(2,)", "(3,)")),
    "negative precision": (lambda: badmm.Gaussian(0.0, -2.0), ("precision", "positive", "-2")),
    "negative entry": (lambda: badmm.Gaussian(np.zeros(2), [1.0, -2.0]), ("precision", "positive", "-2.0", "index 1")),
    "indefinite precision": (
        lambda: badmm.Gaussian(np.zeros(2), [[1.0, 2.0], [2.0, 1.0]]),
        ("precision", "positive definite", "-1"),
    ),
    "mean with NaN": (lambda: badmm.Gaussian([0.0, np.nan], 1.0), ("mean", "finite", "nan", "index 1")),
    "zero shape": (lambda: badmm.Gamma(0.0, 1.0), ("shape", "positive", "0")),
    "negative rate": (lambda: badmm.Gamma(1.0, [2.0, -1.0]), ("rate", "positive", "-1.0", "index 1")),
    "text": (lambda: badmm.Gaussian("zero", 1.0), ("mean", "real numbers", "'zero'")),
    "X with NaN": (lambda: LogisticRegression(changed(X, (1, 0), np.nan), LABELS), ("X", "finite", "nan", "(1, 0)")),
    "X of one axis": (lambda: LogisticRegression(np.ones(3), LABELS), ("X", "2 axes", "(3,)")),
    "too few labels": (lambda: LogisticRegression(X, LABELS[:2]), ("y", "(3,)", "(2,)")),
    "labels of minus one": (lambda: LogisticRegression(X, [1, -1, 1]), ("y", "{0, 1}", "-1", "index 1")),
    "label too large": (lambda: SoftmaxRegression(X, [0, 1, 3], 3), ("y", "0, ..., 2", "3", "index 2")),
    "fractional counts": (lambda: PoissonRegression(X, [1, 0.5, 2]), ("y", "whole numbers", "0.5", "index 1")),
    "zero exposure": (lambda: PoissonRate([1, 2], [1.0, 0.0]), ("exposure", "positive", "0.0", "index 1")),
    "zero noise": (lambda: LinearRegression(X, np.ones(3), 0.0), ("noise_variance", "positive", "0")),
    "asymmetric Hessian": (lambda: Quadratic([[1.0, 2.0], [0.0, 1.0]], [0.0, 0.0]), ("hessian", "symmetric")),
}


@pytest.mark.parametrize(("call", "words"), ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_distributions_and_likelihoods(call: Callable[[], Any], words: tuple[str, ...]) -> None:
    refuse(call, words)


def solve(clients: Any = (QUADRATIC, QUADRATIC), **changes: Any) -> Callable[[], Any]:
    arguments: dict[str, Any] = {"family": "full_gaussian", "prior": PRIOR} | changes
    return lambda: badmm.solve(clients, **arguments)


class Client:
    """A client whose answer is given; called on behalf of `badmm.solve`."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def expectations(self, posterior: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


SOLVE = {
    "no clients": (solve(clients=[]), ("clients", "at least one", "empty list")),
    "no client object": (solve(clients=[QUADRATIC, 3]), ("clients", "expectations", "int", "index 1")),
    "unknown family": (solve(family="cauchy"), ("family", "full_gaussian", "'cauchy'")),
    "unknown method": (solve(method="sgd"), ("method", "bayes_admm", "'sgd'")),
    "no prior": (solve(prior=3.0), ("prior", "Gaussian", "float")),
    "the other prior": (solve(prior=badmm.Gamma(1.0, 1.0)), ("prior", "Gaussian", "Gamma")),
    "prior too short": (solve(prior=badmm.Gaussian(np.zeros(3), 1.0)), ("clients", "length 3", "got 2", "index 0")),
    "rho of zero": (solve(rho=0.0), ("rho", "positive", "0.0")),
    "negative rho": (solve(rho=-1), ("rho", "positive", "-1")),
    "rho of NaN": (solve(rho=float("nan")), ("rho", "positive", "nan")),
    "rho a word": (solve(rho="large"), ("rho", '"auto"', "'large'")),
    "alpha above one": (solve(alpha=1.5), ("alpha", "(0, 1]", "1.5")),
    "damping of zero": (solve(damping=0.0), ("damping", "(0, 1]", "0.0")),
    "temperature of zero": (solve(temperature=0.0), ("temperature", "positive", "0.0")),
    "unknown expectation": (solve(expectation="exact"), ("expectation", "quadrature", "'exact'")),
    "no rounds": (solve(rounds=0), ("rounds", "positive integer", "0")),
    "negative tol": (solve(tol=-1.0), ("tol", "-1.0")),
    "a gradient of the wrong shape": (
        solve(clients=[Client((0.0, np.zeros(3), np.eye(2)))]),
        ("client 0", "expected_gradient", "(2,)", "(3,)"),
    ),
    "a Hessian of the wrong shape": (
        solve(clients=[Client((0.0, np.zeros(2), np.ones(2)))]),
        ("client 0", "expected_hessian", "(2, 2)", "(2,)"),
    ),
    "two values for three": (
        solve(clients=[Client((0.0, np.zeros(2)))]),
        ("client 0", "(loss, gradient, hessian)", "got"),
    ),
    "a client of NaN": (
        solve(clients=[QUADRATIC, Client((0.0, np.array([0.0, np.nan]), np.eye(2)))]),
        ("client 1", "finite", "nan"),
    ),
}


@pytest.mark.parametrize(("call", "words"), SOLVE.values(), ids=SOLVE.keys())
def test_solve(call: Callable[[], Any], words: tuple[str, ...]) -> None:
    refuse(call, words)


def test_a_client_that_raises_is_named_and_its_error_kept() -> None:
    cause = ZeroDivisionError("the disk is full")
    with pytest.raises(
        badmm.ClientError, match="client 1: expectations raised ZeroDivisionError: the disk is full"
    ) as caught:
        solve(clients=[QUADRATIC, Client(cause)])()
    assert caught.value.__cause__ is cause
    assert caught.value.client == 1


CONFIG = """
name = "small"
family = "full_gaussian"
[data]
source = "{source}"
[split]
clients = 3
[likelihood]
kind = "linear_regression"
"""
COMMANDS = {
    "malformed TOML": ("name = = 3", [], ("case.toml", "valid TOML", "line 1, column 8")),
    "unknown key": (CONFIG, ["--set", "method.speed=3"], ("method.speed", "one of name, rho", "unknown key")),
    "rho of zero": (CONFIG, ["--set", "method.rho=0"], ("method.rho", "> 0", "got 0")),
    "no such data": (CONFIG, ["--set", "data.source=iris"], ("data.source", "diabetes", "iris")),
    "no such file": (CONFIG, ["--set", "data.source=gone.csv"], ("data.source", "existing", "gone.csv")),
    "labels out of range": (
        CONFIG,
        ["--set", "likelihood.kind=softmax_regression"],
        ("data.source", "class labels", "diabetes"),
    ),
    "more clients than rows": (CONFIG, ["--set", "split.clients=1000"], ("clients", "between 1 and", "1000")),
}


@pytest.mark.parametrize(("text", "extra", "words"), COMMANDS.values(), ids=COMMANDS.keys())
def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, extra: list[str], words: tuple[str, ...]
) -> None:
    config, out = tmp_path / "case.toml", tmp_path / "result"
    config.write_text(text.replace("{source}", "diabetes"))
    assert main(["run", str(config), "--out", str(out), *extra]) == 2
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1, printed.err
    for word in ("error: ", "expected", "got", *words):
        assert word in lines[0], f"{word!r} not in {lines[0]!r}"
    assert not out.exists()


def test_a_client_lost_on_the_way_leaves_whole_files_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = tmp_path / "case.toml", tmp_path / "result"
    config.write_text(CONFIG.replace("{source}", "breast_cancer").replace("linear", "logistic"))
    # the penalty that is exact on quadratics loses a client on logistic regression (existence condition)
    arguments = ["method.rho=0.1", "method.alpha=0.5", "method.damping=1.0", "split.clients=10"]
    code = main(["run", str(config), "--out", str(out), "--quiet", *(f"--set={argument}" for argument in arguments)])
    assert code == 3
    assert "rho > " in capsys.readouterr().err
    names = {path.name for path in out.iterdir()}
    assert "posterior.safetensors" not in names
    assert not [name for name in names if name.endswith(".tmp")]
