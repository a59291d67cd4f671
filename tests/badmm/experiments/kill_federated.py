"""Start a small run, SIGKILL it at a random moment of a random round, resume it, compare every byte; many times.

    python tests/badmm/experiments/kill_federated.py CONFIG.toml FOLDER TRIALS

The children are forked from a process that has everything imported and compiled, so that a trial takes a fraction of a
second. Prints one line a trial: seconds until the kill, rounds in the history by then, "same" or what differs.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from badmm.__main__ import main


def child(arguments: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(main(arguments))
    return pid


def ends_well(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file except measured times and the table that shows them."""
    times = ("times.jsonl", "summary.md")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in times)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def played(folder: Path) -> int:
    """Whole lines in the histories."""
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("history.jsonl"))


def run(config: str, folder: Path, trials: int) -> None:
    torch.set_num_threads(1)
    whole, broken = folder / "whole", folder / "broken"
    assert main(["run", config, "--quiet", "--out", str(folder / "warm"), "--set", "run.rounds=1"]) == 0
    started = time.monotonic()
    ends_well(child(["run", config, "--quiet", "--out", str(whole)]))
    duration = time.monotonic() - started
    expected = contents(whole)
    last = played(whole)
    draw = random.Random(0)
    for _ in range(trials):
        shutil.rmtree(broken, ignore_errors=True)
        started = time.monotonic()
        pid = child(["run", config, "--quiet", "--out", str(broken)])
        reach = draw.randrange(last)
        while played(broken) < reach:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, duration / last))
        delay = time.monotonic() - started
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        rounds = played(broken)
        ends_well(child(["run", config, "--quiet", "--out", str(broken), "--resume"]))
        found = contents(broken)
        differ = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        print(f"{delay:.3f} {rounds} {differ or 'same'}", flush=True)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
