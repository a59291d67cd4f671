"""Data sets, preparation and splits: every row goes to one client, seeds decide, skews are what their names say."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from badmm.data import tables as data


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("diabetes", (442, 10), None), ("breast_cancer", (569, 30), 2), ("digits", (1797, 64), 10)],
)
def test_data_sets(name: str, shape: tuple[int, int], classes: int | None) -> None:
    loaded = data.load_dataset(name)
    assert loaded.X.shape == shape
    assert loaded.num_classes == classes
    assert len(loaded.names) == shape[1]
    if classes:
        assert sorted(set(loaded.y.tolist())) == list(range(classes))


def test_unknown_data_set() -> None:
    with pytest.raises(ValueError, match=r"name: expected one of diabetes, .*, got 'iris2'"):
        data.load_dataset("iris2")


@given(
    kind=st.sampled_from(data.SPLITS),
    rows=st.integers(1, 60),
    share=st.floats(0, 1),
    classes=st.sampled_from([0, 1, 2, 5]),
    seed=st.integers(0, 100),
)
def test_every_row_goes_to_one_client(kind: str, rows: int, share: float, classes: int, seed: int) -> None:
    clients = 1 + int(share * (rows - 1))
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, 3))
    y = rng.integers(0, classes, rows) if classes else rng.standard_normal(rows)
    parts = data.split(kind, X, y, clients, seed)
    assert len(parts) == clients
    assert min(map(len, parts)) >= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(rows))
    again = data.split(kind, X, y, clients, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_label_split_skews_labels_and_iid_does_not() -> None:
    loaded = data.load_dataset("digits")

    def spread(kind: str) -> float:
        parts = data.split(kind, loaded.X, loaded.y, 10, seed=0)
        shares = [np.bincount(loaded.y[part], minlength=10) / len(part) for part in parts]
        return float(np.std(shares, axis=0).mean())

    assert spread("iid") < 0.03 < 0.1 < spread("label")


def test_feature_split_separates_clients() -> None:
    loaded = data.load_dataset("breast_cancer")
    parts = data.split("feature", loaded.X, loaded.y, 5)
    radius = [loaded.X[part, 0].mean() for part in parts]
    assert max(radius) > 1.5 * min(radius)


@pytest.mark.parametrize(
    ("kind", "clients", "words"),
    [("random", 2, "kind: expected one of iid"), ("iid", 0, "got 0"), ("label", 9, "got 9")],
)
def test_bad_splits(kind: str, clients: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        data.split(kind, np.ones((4, 1)), np.zeros(4, dtype=int), clients)


def test_split_by_column() -> None:
    parts = data.split_by_column(np.array(["b", "a", "b"]))
    assert [part.tolist() for part in parts] == [[1], [0, 2]]


def test_preparation_is_fitted_on_its_rows() -> None:
    X = np.random.default_rng(0).normal(3.0, 5.0, (50, 4))
    X[:, 2] = 7.0
    prepared = data.prepare(X, ("a", "b", "c", "d"))
    Z = prepared(X)
    assert prepared.names == ("intercept", "a", "b", "c", "d")
    np.testing.assert_allclose(Z[:, 1:].mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(Z[:, 1:].std(0), [1, 1, 0, 1], atol=1e-14)
    np.testing.assert_allclose(prepared(X[:1]), Z[:1])


def test_principal_components_are_uncorrelated_and_ordered() -> None:
    X = data.load_dataset("digits").X
    Z = data.prepare(X, (), components=5, intercept=False)(X)
    covariance = np.cov(Z.T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)
    assert covariance[0, 0] == pytest.approx(1.0)
    assert np.all(np.diff(np.diag(covariance)) < 0)


def test_too_many_components() -> None:
    with pytest.raises(ValueError, match=r"components: expected at most 3 .*, got 4"):
        data.prepare(np.ones((9, 3)), (), components=4)


def test_hold_out_is_a_partition() -> None:
    training, test = data.hold_out(11, 0.2, seed=3)
    assert len(test) == 2
    np.testing.assert_array_equal(np.sort(np.concatenate([training, test])), np.arange(11))
