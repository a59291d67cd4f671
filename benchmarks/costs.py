"""What a round costs as clients and parameters grow: a model, and what of it fits here: `python -m benchmarks.costs`.

Writes docs/costs.md. Sums are timed in seconds of the processor, of one core; peaks of memory are those of NumPy's
arrays. Both hardly depend on what else runs.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from badmm.transports.atomic import write_atomic
from badmm.transports.messages import Reply, combine
from benchmarks.machine import describe

MODEL = [(10, 1e4), (100, 1e5), (1_000, 1e6), (10_000, 1e7), (10**6, 1e7), (10, 1e9), (10**6, 1e9)]
MEASURED = [(10, 10**4), (100, 10**4), (1_000, 10**4), (10_000, 10**4), (10, 10**6), (100, 10**6), (10, 10**7)]
LINK, MEMORY, DISK = 1.25e9, 24e9, 1e12
"""Bytes per second of a link of 10 Gbit/s; bytes of memory and disk of a server."""

HEAD = """# What a round costs

Written by `python -m benchmarks.costs`. P is the count of numbers in λ: d for a fixed precision, 2d for a diagonal, and
d + d(d + 1)/2 for a full Gaussian; n rows of d columns per client, K clients at S sites.

| per round | a client | sums alone (MPI, torch.distributed) | terms by site (files, Flower) |
| --- | --- | --- | --- |
| bytes down | 8P + 40 | 8P per rank | S (8P + 1,000) |
| bytes up | 8P + 48 | 8P per rank | S (8P + 1,000) |
| memory | λ_k, η_k: 16P; 8P per line that is mixed | λ_g, Σ c_k: 16P; 16P per line | 8P S beside that |
| disk | 8P (4 + lines) at a site of files | a checkpoint, 8P (2 + 2 lines) | the letters of all rounds |
| arithmetic, diagonal | O(nd) per evaluation | O(P) | O(PS) |
| arithmetic, full | O(nd²) + d³/3 per evaluation | d³/3 | d³/3 + O(PS) |

`--bits` takes 8P to 4P or 2P once there is something to send differences to.

## What ends first

By the table, with 16P + 8P S of memory for terms of K = S sites, 16P for sums, and one link of 10 Gbit/s into the
server that all terms come through. Lines are those of mixing, 9 for a full Gaussian and 21 for others. A full Gaussian
has P = 1e7 at d = 4,471 and P = 1e9 at d = 44,720.

| K | P | bytes up in all | over one link | memory, sums | memory, terms by site | what ends first, at 24 GB and 1 TB |
| --- | --- | --- | --- | --- | --- | --- |"""
MIDDLE = """
Sums do not grow with K: a tree or an `Allreduce` of R ranks moves 2 · 8P per rank whatever K is, so that a million
clients cost what their arithmetic costs. The engines that keep terms by site hold K of them: that is the price of
refusing one, and of absent sites that keep their term.

## Measured here

`combine`, which adds replies in their order, on replies that come one at a time, as at a server of sums. {machine}.

| K | P | seconds of a core | GB of replies per second | peak memory beside one reply |
| --- | --- | --- | --- | --- |"""
FOOT = """
Peak memory is two sums of 8P, whatever K is: the running one and the next. Larger K and P are the model's alone."""


def model(clients: float, numbers: float) -> str:
    """A row of the model."""
    up, sums, terms = 8 * clients * numbers, 16 * numbers, 16 * numbers + 8 * clients * numbers
    ends = [
        "memory of terms by site" if terms > MEMORY else "",
        "memory of sums" if sums > MEMORY else "",
        "the link: over an hour per round" if up / LINK > 3600 else "",
        "the letters of ten rounds on the disk" if 10 * up > DISK else "",
    ]
    cells = [f"{clients:,.0f}", f"{numbers:.0e}", _size(up), _time(up / LINK), _size(sums), _size(terms)]
    return f"| {' | '.join(cells)} | {', '.join(filter(None, ends)) or 'none of these'} |"


def _size(count: float) -> str:
    for unit, scale in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds > 3600 else f"{seconds:.2g} s"


def measured(clients: int, numbers: int) -> str:
    """Add so many replies of that size."""
    array = np.random.default_rng(0).normal(size=numbers)

    def replies() -> Iterator[Reply]:
        return (Reply(0, "", sums={"contribution": array}) for _ in range(clients))

    tracemalloc.start()
    combine(replies())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    began = time.process_time()
    combine(replies())
    took = time.process_time() - began
    rate = 8 * clients * numbers / took / 1e9
    return f"| {clients:,} | {numbers:.0e} | {took:.2g} | {rate:.2g} | {peak / (8 * numbers):.2f} · 8P |"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/costs.md"))
    options = parser.parse_args()
    rows = [model(*one) for one in MODEL]
    lines = [HEAD, *rows, MIDDLE.format(machine=describe()), *(measured(*one) for one in MEASURED), FOOT]
    write_atomic(options.out, ("\n".join(lines) + "\n").encode())
    print("\n".join(lines))


if __name__ == "__main__":
    main()
