"""Fewer bits on the wire: rounds, bytes and the posterior: `python -m benchmarks.precision`.

Prints the table of docs/engines.md. The problems are those of the demo, a site per client; each is
solved to a gap of 1e-8 in files. Counts of rounds and bytes do not depend on the machine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import badmm
from badmm.demo import problems
from badmm.transports.files.precision import NAMES, PRECISIONS
from badmm.transports.files.share import numbered
from badmm.transports.sealed import load_tensors
from benchmarks.polled_sites import play
from benchmarks.simulated_sites import MEMORY

TOL = 1e-8
CASES = [(name, "full_gaussian") for name in problems.TITLES]
CASES += [(name, "diagonal_gaussian") for name in ("diabetes", "breast_cancer")]


def crossed(share: Path) -> int:
    """Bytes of λ and of terms in all letters between the server and one site."""
    folders = (share / "down", share / "up" / "site-0")
    letters = [folder / f"{number:06d}.safetensors" for folder in folders for number in numbered(folder)]
    return sum(a.nbytes for letter in letters for name, a in load_tensors(letter)[0].items() if name in NAMES)


def distance(result: badmm.Result, exact: badmm.Result) -> float:
    """The distance of λ_g in posterior standard deviations."""
    family = exact.state.family
    assert family is not None
    change = tuple((a - b)[None] for a, b in zip(result.natural, exact.natural, strict=True))
    return float(np.linalg.norm(family.whiten(exact.natural, change)))


def row(name: str, family: str, bits: str, exact: badmm.Result | None) -> tuple[str, badmm.Result]:
    """One problem in one format, beside the run in float64."""
    problem = problems.make(name, 0)
    own = {f"site-{k}": [client] for k, client in enumerate(problem.clients)}
    arguments: dict[str, Any] = {
        "family": family,
        "prior": problem.prior,
        "expectation": problem.expectation(family),
        "rounds": 100,
        "tol": TOL,
        "workers": 1,
    }
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        result = play(Path(folder), own, arguments, bits=bits)
        size = crossed(Path(folder) / "share")
    away = f"{distance(result, exact):.0e}" if exact is not None else "–"
    cells = [problem.title, family, bits, result.rounds, size, f"{result.history[-1].gap:.0e}", away]
    return f"| {' | '.join(map(str, cells))} |", result


def main() -> None:
    """Print the table."""
    print("| problem | family | on the wire | rounds | bytes of λ and terms, one site | gap | distance from float64 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, family in CASES:
        exact = None
        for bits in PRECISIONS:
            line, result = row(name, family, bits, exact)
            exact = exact or result
            print(line, flush=True)


if __name__ == "__main__":
    main()
