"""Losses over chunks of rows equal the losses of all rows, whatever the likelihood and the chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from badmm import Gaussian, solve
from badmm.data.chunks import read_chunks
from badmm.likelihoods import (
    LinearRegression,
    LogisticRegression,
    PoissonRegression,
    SoftmaxRegression,
    Streamed,
    StudentTRegression,
)
from badmm.likelihoods.base import GaussianLikelihood

RNG = np.random.default_rng(4)
N, D = 90, 3
X = RNG.normal(size=(N, D))
Y = RNG.integers(0, 3, N)
W = RNG.integers(0, 3, N).astype(float)
MAKERS: dict[str, Callable[[slice], GaussianLikelihood]] = {
    "logistic": lambda rows: LogisticRegression(X[rows], Y[rows] > 0, weights=W[rows], offset=0.1 * Y[rows]),
    "poisson": lambda rows: PoissonRegression(X[rows], Y[rows], weights=W[rows]),
    "student t": lambda rows: StudentTRegression(X[rows], X[rows] @ np.ones(D), 4.0, 0.7),
    "linear": lambda rows: LinearRegression(X[rows], Y[rows].astype(float), 0.5, weights=W[rows]),
    "softmax": lambda rows: SoftmaxRegression(X[rows], Y[rows], 3, weights=W[rows]),
}


def in_chunks(make: Callable[[slice], GaussianLikelihood], size: int) -> Streamed:
    return Streamed(lambda: (make(slice(start, start + size)) for start in range(0, N, size)))


@pytest.mark.parametrize("expectation", ["auto", "delta", "monte_carlo"])
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("size", [37, N])
def test_any_chunks_give_the_loss_of_all_rows(name: str, expectation: Any, size: int) -> None:
    whole, parts = MAKERS[name](slice(0, N)), in_chunks(MAKERS[name], size)
    for precision in (np.array(2.0), np.arange(1.0, whole.dim + 1), 2.0 * np.eye(whole.dim) + 1.0):
        q = Gaussian(np.linspace(-0.5, 0.5, whole.dim), precision)
        for ask in ("expectations", "curvature"):
            expected = getattr(whole.configured(expectation, 3), ask)(q)
            for a, b in zip(getattr(parts.configured(expectation, 3), ask)(q), expected, strict=True):
                assert a == pytest.approx(b, rel=1e-12, abs=1e-12)
    assert parts.configured(expectation).at_mean == whole.configured(expectation).at_mean


def test_a_federation_does_not_tell_the_difference() -> None:
    prior = Gaussian(np.zeros(D), 1.0)
    for name in ("logistic", "linear"):
        other = MAKERS[name](slice(0, 30))
        options: dict[str, Any] = {"family": "full_gaussian", "prior": prior}
        whole = solve([MAKERS[name](slice(0, N)), other], **options)
        parts = solve([in_chunks(MAKERS[name], 20), other], **options)
        assert parts.rounds == whole.rounds
        assert parts.posterior.mean == pytest.approx(whole.posterior.mean, rel=1e-9)


def test_chunks_are_read_one_at_a_time_and_constant_losses_once() -> None:
    alive: list[int] = []

    class Counted(LinearRegression):
        def __init__(self, rows: slice) -> None:
            super().__init__(X[rows], Y[rows].astype(float), 1.0)
            alive.append(1)

    def chunks() -> Iterator[GaussianLikelihood]:
        yield from (Counted(slice(start, start + 30)) for start in range(0, N, 30))

    client = Streamed(chunks)
    assert len(alive) == 1  # the first tells the length of θ, and no more is read
    solve([client], family="full_gaussian", prior=Gaussian(np.zeros(D), 1.0))
    few = len(alive)
    solve([client], family="full_gaussian", prior=Gaussian(np.zeros(D), 1.0), rounds=1)
    assert len(alive) - few <= few


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([1, 2], "chunks: expected a function that yields likelihoods, got list"),
        (lambda: iter(()), "chunks: expected at least one likelihood, got none"),
        (lambda: [X], "chunks: expected likelihoods, got ndarray in chunk 0"),
    ],
)
def test_what_is_no_chunk_is_refused(chunks: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Streamed(chunks)


def test_a_chunk_of_another_length_is_named() -> None:
    client = Streamed(lambda: [MAKERS["logistic"](slice(0, 9)), LogisticRegression(X[:, :2], Y > 0)])
    with pytest.raises(ValueError, match=r"expected 3 parameters .* got 2 .* in chunk 1"):
        client.expectations(Gaussian(np.zeros(D), 1.0))


def test_a_csv_in_chunks_is_the_whole_file(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(y=(Y > 0).astype(int), site=["01", "2", "x"] * (N // 3))
    path = tmp_path / "rows.csv"
    path.write_text("\ufeff" + frame.to_csv(index=False), encoding="utf-8")
    parts = list(read_chunks(path, 40, text=["site"]))
    assert [len(part) for part in parts] == [40, 40, 10]
    whole = pd.concat(parts)
    assert list(whole.columns) == list(frame.columns)
    assert whole["site"].tolist() == frame["site"].tolist()
    client = Streamed(lambda: (LogisticRegression(p[["a", "b", "c"]], p["y"]) for p in read_chunks(path, 40, ["site"])))
    assert client.columns == ("a", "b", "c")
    q = Gaussian(np.ones(D), 1.0)
    assert client.expectations(q)[0] == pytest.approx(LogisticRegression(X, Y > 0).expectations(q)[0])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.txt", "a\n1\n", "expected a name that ends in .csv or .parquet"),
        ("rows.csv", None, "expected an existing file, got none"),
        ("ragged.csv", "a,b\n1,2\n1,2,3\n", "ragged.csv: line 3: expected 2 values, got 3"),
        ("empty.csv", "", "empty.csv: expected a header of column names"),
    ],
)
def test_a_file_that_is_none_is_named(name: str, content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        list(read_chunks(tmp_path / name))
