"""What a client sends and receives in a round, counted and on the disk: `python -m benchmarks.engines`.

Prints the table of docs/engines.md. Counted bytes do not depend on the machine; those of files do by a few digits.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import badmm
from badmm.demo import problems
from badmm.transports.files import FilesServer, FilesSite

ROUNDS = 4


def soon(_: float) -> None:
    """Look again at once: nobody else is waited for."""
    time.sleep(0.005)


def on_disk(clients: list[Any], arguments: dict[str, Any]) -> tuple[int, int]:
    """Bytes of the files of a site's last whole round: up, down."""
    with tempfile.TemporaryDirectory() as folder:
        share = Path(folder) / "share"

        def follow(k: int) -> None:
            badmm.solve(
                [clients[k]], transport=FilesSite(share, f"site-{k}", Path(folder) / str(k), wait=soon), **arguments
            )

        threads = [threading.Thread(target=follow, args=(k,)) for k in range(len(clients))]
        for thread in threads:
            thread.start()
        badmm.solve(
            [], transport=FilesServer(share, [f"site-{k}" for k in range(len(clients))], wait=soon), **arguments
        )
        for thread in threads:
            thread.join()
        up = sorted((share / "up" / "site-0").glob("0*"))[-2:]
        down = sorted((share / "down").glob("0*"))[-3:-1]  # the last message says that the run is done
        return sum(path.stat().st_size for path in up), sum(path.stat().st_size for path in down)


def row(name: str, family: str) -> str:
    """One problem under one family."""
    problem = problems.make(name, 0)
    expectation = problem.expectation(family)
    arguments: dict[str, Any] = {
        "family": family,
        "prior": problem.prior,
        "expectation": expectation,
        "rounds": ROUNDS,
        "workers": 1,
    }
    result = badmm.solve(problem.clients, **arguments)
    count = sum(slot.size if slot.ndim == 1 else len(slot) * (len(slot) + 1) // 2 for slot in result.natural)
    last, before = result.history[-1], result.history[-2]
    clients = len(problem.clients)
    up, down = (last.bytes_up - before.bytes_up) // clients, (last.bytes_down - before.bytes_down) // clients
    cells = [problem.title, family, count, up, down, *on_disk(problem.clients, arguments)]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Print the table."""
    print("| problem | family | numbers in λ | up, counted | down, counted | up, files | down, files |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in problems.TITLES:
        for family in ("full_gaussian", "diagonal_gaussian"):
            print(row(name, family), flush=True)


if __name__ == "__main__":
    main()
