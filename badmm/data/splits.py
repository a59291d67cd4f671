"""Ways to deal labelled training points to clients: iid, Dirichlet, and a few classes a client.

Each returns one sorted array of row indices a client, from the SPLIT stream of `seed`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from badmm.checks import positive_integer, positive_number
from badmm.streams import Purpose, generator

Rows = list[NDArray[np.intp]]
Labels = NDArray[np.int64]


def iid(labels: Labels, clients: int, seed: int) -> Rows:
    """Equal shares at random (sizes differ by one at most); ValueError unless 1 ≤ clients ≤ points."""
    _check_clients(labels, clients, 1)
    order = generator(seed, Purpose.SPLIT).permutation(len(labels))
    return [np.sort(part) for part in np.array_split(order, clients)]


def dirichlet(
    labels: Labels,
    clients: int,
    seed: int,
    *,
    size_concentration: float = 1.0,
    class_concentration: float = 0.5,
    minimum: int = 1,
) -> Rows:
    """Client sizes and class mixes from Dirichlet distributions (arXiv:2506.13150, appendix; arXiv:2501.17325).

        sizes ~ Dirichlet(size_concentration 1_K),   mix_k ~ Dirichlet(class_concentration 1_C)
        client k's share of class c = sizes_k mix_kc / Σ_j sizes_j mix_jc

    Every point goes to exactly one client. A client left with fewer than `minimum` points takes points at random from
    whichever client has most. ValueError unless clients · minimum ≤ points.
    """
    _check_clients(labels, clients, minimum)
    positive_number(size_concentration, "size_concentration")
    positive_number(class_concentration, "class_concentration")
    rng = generator(seed, Purpose.SPLIT)
    classes = np.unique(labels)
    sizes = rng.dirichlet(np.full(clients, size_concentration))
    mixes = rng.dirichlet(np.full(len(classes), class_concentration), size=clients)
    shares = sizes[:, None] * mixes
    total = shares.sum(axis=0)
    # a tiny concentration can underflow a whole class; it is then dealt by size alone
    shares = np.where(total > 0, shares / np.where(total > 0, total, 1.0), sizes[:, None])
    owner = np.empty(len(labels), dtype=np.intp)
    for index, label in enumerate(classes):
        rows = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(shares[:-1, index]) * len(rows)).astype(np.intp)
        for client, part in enumerate(np.split(rows, cuts)):
            owner[part] = client
    _fill(owner, clients, minimum, rng)
    return [np.flatnonzero(owner == client) for client in range(clients)]


def shards(
    labels: Labels, clients: int, seed: int, *, classes: int = 2, points: int = 600, reuse: bool = False
) -> Rows:
    """`points` points a client, equally many of each of `classes` classes; every class goes to equally many clients.

    A client's first class is the one assigned least so far, the others are drawn from those with places left (a class
    with as many places left as there are clients left is taken first, so that the deal always ends). A class with too
    few points for its clients (MNIST has fewer than 20 · 300 of most) deals them out evenly, which keeps the clients
    disjoint and makes some smaller; with `reuse` its points are dealt again from the start instead, so that every
    client has exactly `points`. ValueError where the numbers do not divide.
    """
    _check_clients(labels, clients, 1)
    values = np.unique(labels)
    for name, value in (("classes", classes), ("points", points)):
        positive_integer(value, name)
    if classes > len(values):
        raise ValueError(f"classes: expected at most the number of classes {len(values)}, got {classes}")
    if clients * classes % len(values) or points % classes:
        raise ValueError(
            f"clients, classes, points: expected clients · classes to be a multiple of {len(values)} and points of "
            f"classes, got {clients}, {classes}, {points}"
        )
    places = clients * classes // len(values)
    rng = generator(seed, Purpose.SPLIT)
    given = _assign(clients, classes, len(values), places, rng)
    piles = []
    for value in values:
        rows = rng.permutation(np.flatnonzero(labels == value))
        each = points // classes
        if reuse:
            piles.append(list(np.resize(rows, places * each).reshape(places, each)))
        else:
            piles.append([part[:each] for part in np.array_split(rows, places)])
    return [np.sort(np.concatenate([piles[index].pop() for index in chosen])) for chosen in given]


def class_mix(labels: Labels, rows: Rows, num_classes: int) -> NDArray[np.float64]:
    """The share of every class in every client's points, (K, C)."""
    counts = np.stack([np.bincount(labels[part], minlength=num_classes) for part in rows])
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _assign(clients: int, classes: int, count: int, places: int, rng: np.random.Generator) -> list[list[int]]:
    left = np.full(count, places)
    given = []
    for remaining in range(clients, 0, -1):
        most = np.flatnonzero(left == left.max())
        chosen = [int(rng.choice(most))]
        while len(chosen) < classes:
            free = np.setdiff1d(np.flatnonzero(left > 0), chosen)
            due = free[left[free] == remaining]
            chosen.append(int(rng.choice(due if due.size else free)))
        left[chosen] -= 1
        given.append(chosen)
    return given


def _fill(owner: NDArray[np.intp], clients: int, minimum: int, rng: np.random.Generator) -> None:
    counts = np.bincount(owner, minlength=clients)
    for client in range(clients):
        while counts[client] < minimum:
            largest = int(counts.argmax())
            owner[rng.choice(np.flatnonzero(owner == largest))] = client
            counts[largest] -= 1
            counts[client] += 1


def _check_clients(labels: Labels, clients: int, minimum: int) -> None:
    positive_integer(clients, "clients")
    positive_integer(minimum, "minimum")
    if clients * minimum > len(labels):
        raise ValueError(
            f"clients: expected clients · minimum of at most the number of points {len(labels)}, got "
            f"{clients} · {minimum}"
        )
