"""Splits: every point once, no client too small, class structure as stated, the same from the same seed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from badmm.data import splits
from badmm.streams import Purpose, generator, sequence

LABELS = np.repeat(np.arange(10), 60)


def covers_once(rows: list[np.ndarray], count: int) -> bool:
    return bool(np.array_equal(np.sort(np.concatenate(rows)), np.arange(count)))


@given(st.integers(1, 40), st.integers(0, 2**32), st.integers(40, 200))
def test_iid_deals_equal_shares(clients: int, seed: int, count: int) -> None:
    labels = np.arange(count) % 7
    rows = splits.iid(labels, clients, seed)
    assert covers_once(rows, count)
    sizes = [len(part) for part in rows]
    assert max(sizes) - min(sizes) <= 1
    again = splits.iid(labels, clients, seed)
    assert all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))


@given(
    st.integers(1, 30),
    st.integers(0, 2**32),
    st.floats(0.01, 10),
    st.floats(0.01, 10),
    st.integers(1, 20),
    st.lists(st.integers(0, 9), min_size=600, max_size=600),
)
def test_dirichlet_covers_once_with_a_minimum(
    clients: int, seed: int, by_size: float, by_class: float, minimum: int, values: list[int]
) -> None:
    labels = np.array(values)
    options: dict[str, Any] = {"size_concentration": by_size, "class_concentration": by_class, "minimum": minimum}
    rows = splits.dirichlet(labels, clients, seed, **options)
    assert covers_once(rows, 600)
    assert min(len(part) for part in rows) >= minimum
    again = splits.dirichlet(labels, clients, seed, **options)
    assert all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))


def test_dirichlet_shares_are_the_stated_ones() -> None:
    """Against the formula on the same draws, with so many points that rounding hardly matters."""
    labels = np.repeat(np.arange(4), 100_000)
    rows = splits.dirichlet(labels, 5, seed=11)
    rng = generator(11, Purpose.SPLIT)
    size, mix = rng.dirichlet(np.ones(5)), rng.dirichlet(np.full(4, 0.5), size=5)
    want = size[:, None] * mix / (size[:, None] * mix).sum(axis=0)
    got = np.stack([np.bincount(labels[part], minlength=4) for part in rows]) / 100_000
    np.testing.assert_allclose(got, want, atol=1.1e-5)


def test_dirichlet_is_heterogeneous() -> None:
    mixes = [splits.class_mix(LABELS, splits.dirichlet(LABELS, 10, seed), 10) for seed in range(5)]
    assert np.mean([mix.max(axis=1).mean() for mix in mixes]) > 0.25  # iid: about 0.12
    np.testing.assert_allclose(mixes[0].sum(axis=1), 1.0)


@given(st.integers(0, 2**32), st.sampled_from([(100, 2, 10), (20, 3, 10), (5, 4, 10), (4, 5, 5), (30, 1, 10)]))
def test_shards_give_every_class_to_equally_many_clients(seed: int, numbers: tuple[int, int, int]) -> None:
    clients, classes, count = numbers
    each = 6
    places = clients * classes // count
    labels = np.repeat(np.arange(count), places * each + 3)
    rows = splits.shards(labels, clients, seed, classes=classes, points=classes * each)
    joined = np.concatenate(rows)
    assert len(np.unique(joined)) == len(joined) == clients * classes * each
    counts = np.stack([np.bincount(labels[part], minlength=count) for part in rows])
    assert set(np.unique(counts)) <= {0, each}
    assert ((counts > 0).sum(axis=1) == classes).all()
    assert ((counts > 0).sum(axis=0) == places).all()
    again = splits.shards(labels, clients, seed, classes=classes, points=classes * each)
    assert all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))


def test_shards_of_a_set_like_mnist() -> None:
    sizes = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    labels = np.repeat(np.arange(10), sizes)
    rows = splits.shards(labels, 100, seed=62)
    joined = np.concatenate(rows)
    assert len(np.unique(joined)) == len(joined)
    assert min(len(part) for part in rows) >= 2 * (5421 // 20)
    assert max(len(part) for part in rows) == 600
    exact = splits.shards(labels, 100, seed=62, reuse=True)
    assert {len(part) for part in exact} == {600}
    assert all(set(labels[a]) == set(labels[b]) for a, b in zip(rows, exact, strict=True))


def test_seeds_give_different_splits() -> None:
    for split in (splits.iid, splits.dirichlet):
        assert not all(np.array_equal(a, b) for a, b in zip(split(LABELS, 5, 1), split(LABELS, 5, 2), strict=True))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: splits.iid(LABELS, 0, 1), "clients: expected a positive integer, got 0"),
        (lambda: splits.iid(LABELS, 601, 1), "clients: expected clients · minimum of at most .* 600, got 601 · 1"),
        (lambda: splits.dirichlet(LABELS, 10, 1, minimum=61), "got 10 · 61"),
        (lambda: splits.dirichlet(LABELS, 10, 1, class_concentration=0), "class_concentration: expected a positive"),
        (lambda: splits.shards(LABELS, 7, 1, classes=2), "clients · classes to be a multiple of 10"),
        (lambda: splits.shards(LABELS, 10, 1, classes=11), "classes: expected at most the number of classes 10"),
        (lambda: splits.iid(LABELS, 3, -1), "seed, key: expected integers of at least 0"),
    ],
)
def test_errors_name_the_argument(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_streams_are_distinct_and_independent_of_order() -> None:
    keys = [(seed, purpose, r, k) for seed in (0, 1) for purpose in Purpose for r in range(3) for k in range(4)]
    words = {key: tuple(sequence(*key).generate_state(2)) for key in keys}
    assert len(set(words.values())) == len(keys)
    assert words == {key: tuple(sequence(*key).generate_state(2)) for key in reversed(keys)}


@pytest.mark.parametrize("seed", range(4))
def test_a_class_that_every_client_underflows_goes_by_size(seed: int) -> None:
    """Shares of 1e-400 are 0 for all: no client then gets the class alone, unless it has nearly all points anyway."""
    labels = np.repeat(np.arange(12), 4000)
    rows = splits.dirichlet(labels, 4, seed, size_concentration=50.0, class_concentration=1e-3)
    counts = np.stack([np.bincount(part, minlength=12) for part in (labels[r] for r in rows)])
    sizes = generator(seed, Purpose.SPLIT).dirichlet(np.full(4, 50.0))
    by_size = [c for c in range(12) if np.allclose(counts[:, c] / 4000, sizes, atol=1e-3)]
    mixes = generator(seed, Purpose.SPLIT)
    mixes.dirichlet(np.full(4, 50.0))
    underflowed = np.flatnonzero(mixes.dirichlet(np.full(12, 1e-3), size=4).sum(axis=0) == 0)
    assert len(underflowed)
    assert set(underflowed) <= set(by_size)


def test_reused_points_are_shared_evenly_before_any_is_reused_again() -> None:
    """Ten clients want 30 points each of classes of 50: every point of a class is used 6 times by its 10 places."""
    labels = np.repeat(np.arange(2), 50)
    rows = splits.shards(labels, 10, seed=3, classes=2, points=60, reuse=True)
    assert [len(part) for part in rows] == [60] * 10
    uses = np.bincount(np.concatenate(rows), minlength=100)
    assert uses.tolist() == [6] * 100
