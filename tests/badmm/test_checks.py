"""What is taken for a number: numbers and truth values, whatever NumPy would cast besides."""

import datetime
import decimal
import fractions

import numpy as np
import pandas as pd
import pytest

import badmm
from badmm.checks import non_negative_number, positive_integer, positive_number, real_array
from badmm.likelihoods import LinearRegression, LogisticRegression, PoissonRegression, SoftmaxRegression


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5, True],
        np.array([1, 2, 3], dtype=np.uint8),
        np.array([True, False]),
        np.array([1.5], dtype=np.float32),
        [np.float64(1.0), np.int8(2)],
        [fractions.Fraction(1, 2), decimal.Decimal("0.25"), 3],
        np.ma.array([1.0, 2.0]),
        np.ma.array([1.0, 2.0], mask=[False, False]),
        pd.Series([1.0, 2.0]),
        pd.Series([1, 2], dtype="Int64"),
        [[1.0, 2.0], np.array([3.0, 4.0])],
        3.0,
        np.array([1, None, 2])[[0, 2]],
    ],
)
def test_numbers_are_taken(value) -> None:
    assert real_array(value, "x").dtype == np.float64


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.array(["2024-01-01"], "M8[D]"), "dates"),
        (np.array(["2024-01-01"], "M8[ns]"), "dates"),
        (np.array([3], "m8[h]"), "durations"),
        ([np.datetime64("2024-01-01")], "dates"),
        ([datetime.date(2024, 1, 1)], r"datetime.date\(2024, 1, 1\) at index 0"),
        ([1.0, np.datetime64("2024-01-01")], "real numbers"),
        (pd.Series(pd.to_datetime(["2024-01-01"])), "dates"),
        (np.array([1 + 2j]), "complex numbers"),
        ([1.0, 1j], "1j at index 1"),
        (np.array(["1", "2"]), "text"),
        (["1", "2"], "'1' at index 0"),
        ([1.0, "2"], "'2' at index 1"),
        (np.array([b"1"]), "bytes"),
        (pd.Series(["1", "2"]), "'1'"),
        (pd.Categorical(["a", "b"]), "'a'"),
        (np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]), "records"),
        (np.array([1.0, None]), "None at index 1"),
        ([1.0, None], "None at index 1"),
        (pd.Series([1, None], dtype="Int64"), "at index 1"),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), r"'x' at index \(0, 1\)"),
        (np.ma.array([1.0, 2.0], mask=[False, True]), "masked"),
        ([np.ma.array([1.0, 2.0], mask=[False, True]), np.array([1.0, 2.0])], "masked"),
        ([1.0, np.ma.masked], "masked"),
        ([[1.0], [2.0, 3.0]], "an array of real numbers, got list"),
        ({"a": 1}, "got {'a': 1}"),
        ("text", "text"),
        ([decimal.Decimal("nan")], "NaN"),
        ([10**400, 1.0], "got an integer of over 300 digits at index 0"),
        ([1.0, -(10**5000)], "got an integer of over 300 digits at index 1"),
        (np.array([fractions.Fraction(10**400), 1], dtype=object), "Fraction"),
        (decimal.Decimal("1e400"), "finite, got inf"),
        ([np.timedelta64(1, "s"), 1.0], "timedelta64"),
        (np.array([np.timedelta64(1, "s"), 1.0], dtype=object), "timedelta64"),
        ([1.0, float("nan")], "finite, got nan at index 1"),
    ],
)
def test_all_else_is_refused_in_one_short_line(value, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        real_array(value, "x")
    assert str(caught.value).startswith("x: expected ") and len(str(caught.value)) < 300


@pytest.mark.parametrize("check", [positive_number, non_negative_number, positive_integer])
@pytest.mark.parametrize(
    "value",
    [np.timedelta64(1, "s"), pytest.param(-(10**5000), id="huge"), "x" * 1000, True, None, np.array(2.0), 1j],
)
def test_what_is_no_number_is_refused_in_one_short_line(check, value) -> None:
    with pytest.raises(ValueError, match=r"x: expected a .*, got .") as caught:
        check(value, "x")
    assert len(str(caught.value)) < 120


def test_a_wrong_entry_of_many_is_named() -> None:
    rows: list = [[float(i)] for i in range(20_000)]
    rows[137] = ["n/a"]
    with pytest.raises(ValueError, match=r"X: expected real numbers, got 'n/a' at index \(137, 0\)"):
        LogisticRegression(rows, [0] * 20_000)


FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), columns=["age", "bmi"])
COUNTS = np.arange(30) % 3


@pytest.mark.parametrize(
    "make",
    [
        lambda X: LinearRegression(X, COUNTS, 1.0),
        lambda X: LogisticRegression(X, COUNTS > 1),
        lambda X: PoissonRegression(X, COUNTS),
        lambda X: SoftmaxRegression(X, COUNTS, 3),
    ],
)
@pytest.mark.parametrize("other", [FRAME[["bmi", "age"]], FRAME.rename(columns={"bmi": "BMI"})])
def test_columns_that_differ_between_clients_are_refused(make, other: pd.DataFrame) -> None:
    dimension = make(FRAME).dim
    prior = badmm.Gaussian(np.zeros(dimension), 1.0)
    for clients in ([make(FRAME), make(FRAME)], [make(FRAME), make(FRAME.to_numpy())]):
        badmm.solve(clients, family="diagonal_gaussian", prior=prior, rounds=1)
    with pytest.raises(ValueError, match=r"clients: expected the columns of client 0 .* at client 1"):
        badmm.solve([make(FRAME), make(other)], family="diagonal_gaussian", prior=prior, rounds=1)


def test_large_class_labels_need_no_identity_matrix() -> None:
    loss = SoftmaxRegression(np.ones((3, 1)), [0, 40_000, 2], 40_001)
    assert loss.dim == 40_001
