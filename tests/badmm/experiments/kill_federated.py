"""Start a small run, SIGKILL it at a random moment of a round, resume it, compare every byte; in rounds from first to
last.

    python tests/badmm/experiments/kill_federated.py CONFIG.toml FOLDER TRIALS

The children are forked from a process that has everything imported and compiled, so that a trial takes a fraction of a
second. Only the last trial draws its pictures, which takes as long as the rest. Prints one line per trial: seconds
until the kill, rounds in the history by then, "same" or what differs.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure

from badmm.__main__ import main
from badmm.experiments.plots import networks as pictures


def without_pictures() -> None:
    """Draw and write nothing where a run would draw."""
    pictures.curves = pictures.reliability = lambda *_: Figure()  # type: ignore[assignment]
    Figure.savefig = lambda *_, **__: None  # type: ignore[method-assign]


def child(arguments: list[str], drawn: bool = True) -> int:
    pid = os.fork()
    if pid == 0:
        if not drawn:
            without_pictures()
        os._exit(main(arguments))
    return pid


def ends_well(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def contents(folder: Path, drawn: bool = True) -> dict[str, bytes]:
    """Every file except measured times and the table that shows them, and except pictures unless they are drawn."""
    times = ("times.jsonl", "summary.md")
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in times)
    files = sorted(path for path in found if drawn or path.suffix != ".png")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def played(folder: Path) -> int:
    """Whole lines in the histories."""
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("history.jsonl"))


def run(config: str, folder: Path, trials: int) -> None:
    torch.set_num_threads(1)
    whole, broken = folder / "whole", folder / "broken"
    assert main(["run", config, "--quiet", "--out", str(folder / "warm"), "--set", "run.rounds=1"]) == 0
    ends_well(child(["run", config, "--quiet", "--out", str(whole)]))
    last = played(whole)
    # of the rounds alone: pictures take as long as many of them
    lines = [line for path in whole.rglob("times.jsonl") for line in path.read_text().splitlines()]
    round_takes = sum(json.loads(line)["seconds"] for line in lines) / last
    draw = random.Random(0)
    for trial in range(trials):
        drawn = trial == trials - 1
        shutil.rmtree(broken, ignore_errors=True)
        started = time.monotonic()
        pid = child(["run", config, "--quiet", "--out", str(broken)], drawn)
        reach = trial * last // trials
        while played(broken) < reach:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, round_takes))
        delay = time.monotonic() - started
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        rounds = played(broken)
        ends_well(child(["run", config, "--quiet", "--out", str(broken), "--resume"], drawn))
        expected, found = contents(whole, drawn), contents(broken, drawn)
        differ = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        print(f"{delay:.3f} {rounds} {differ or 'same'}", flush=True)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
