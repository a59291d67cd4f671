"""Two gloo processes: python -m tests.badmm.ivon.ranks MODULE FUNCTION RANK FOLDER writes what the function returns.

Programs of their own, in the checkout's folder: what a spawned process imports would depend on the paths of the test's.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[3]
WORLD = 2


def ends(work: Callable[[int], Any], folder: Path, seconds: float = 240.0) -> list[Any]:
    """What `work(rank)`, a function of a module, returns on every rank, as JSON holds it."""
    command = [sys.executable, "-m", "tests.badmm.ivon.ranks", work.__module__, work.__name__]
    path = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        for rank in ranks:
            shown, _ = rank.communicate(timeout=seconds)
            assert rank.returncode == 0, shown
    finally:
        for rank in ranks:
            rank.kill()
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(WORLD)]


def main(module: str, function: str, rank: int, folder: Path) -> None:
    """One rank; the process group's threads must end with it, or they may abort the interpreter as it ends."""
    work = getattr(importlib.import_module(module), function)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD)
    (folder / f"{rank}.json").write_text(json.dumps(work(rank)), encoding="utf-8")
    dist.barrier()  # neither leaves while the other still talks to it
    group = weakref.ref(dist.group.WORLD)
    dist.destroy_process_group()
    assert group() is None, "the group's threads outlive it and may abort the interpreter as it ends"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
