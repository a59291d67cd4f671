"""python tests/mutation/run.py ROOM [--sample N] [--seeds S ...]: plant errors in a room, count what no test notices.

mutmut changes one expression of a function at a time. Each error meets, in a fork of one pytest session, the tests of
the room that reach its function, the cheapest first, until one fails. An error that no test reaches survives, as does
one that only tests beyond the budget could notice. A copy of the checkout is changed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from planting import ROOT, copy, plant
from scipy.stats import binomtest

ROOMS = tomllib.loads((Path(__file__).parent / "rooms.toml").read_text(encoding="utf-8"))


def tried(out: Path, names: list[str], room: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The outcome by error, from one pytest session in the copy."""
    settings = {"names": names, "jobs": options.jobs, "budget": options.budget, "results": str(out / "results.jsonl")}
    (out / "planted.json").write_text(json.dumps(settings), encoding="utf-8")
    tests = [name for name in room["tests"] if (out / name.partition("::")[0]).exists()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.mutation.forks", "-p", "no:cacheprovider"]
    command += ["--planted", str(out / "planted.json"), *tests]
    command += [f"--deselect={name}" for name in room.get("without", ())]
    environment = os.environ | {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    with (out / "pytest.log").open("w", encoding="utf-8") as log:
        status = subprocess.run(command, cwd=out, env=environment, stdout=log, stderr=log, check=False).returncode
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines() if status == 0 else []
    if len(lines) != len(names):
        raise SystemExit(f"error: pytest ended with status {status}; see {out / 'pytest.log'}")
    return {one["name"]: one for one in map(json.loads, lines)}


def report(room: str, found: list[dict[str, Any]], planted: dict[str, str]) -> str:
    """The survivors with their changed lines, and their share with its 95% interval (Clopper-Pearson)."""
    survivors = sorted((one for one in found if one["outcome"] != "killed"), key=lambda one: str(one["name"]))
    lines = [f"{one['name']}: {one['outcome']} ({one['tests']} tests)\n{planted[one['name']]}" for one in survivors]
    ended = Counter(one["signal"] for one in found if one.get("signal"))
    interval = binomtest(len(survivors), len(found)).proportion_ci(0.95)
    return "\n".join([
        *lines,
        f"{room}: {len(found)} of {len(planted)} errors tried, {len(survivors)} survived "
        f"({len(survivors) / len(found):.1%}, 95% interval {interval.low:.1%} to {interval.high:.1%})"
        + "".join(f", {count} ended by {name}" for name, count in ended.items()),
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", choices=ROOMS)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants", help="folder of the copies")
    parser.add_argument("--sample", type=int, metavar="N", help="errors to try, drawn at random (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="a sample each")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="try these errors instead")
    parser.add_argument("--budget", type=float, default=20.0, metavar="SECONDS", help="CPU seconds of tests per error")
    parser.add_argument("--jobs", type=int, default=2, help="errors tried at a time")
    options = parser.parse_args()
    room, out = ROOMS[options.room], options.out.resolve() / options.room
    copy(out)
    planted = plant(out, room["mutate"])
    every = options.names or sorted(planted)
    if unknown := set(every) - set(planted):
        raise SystemExit(f"error: --names: expected errors of the room, got {sorted(unknown)[0]!r}")
    size = min(options.sample or len(every), len(every))
    samples = {seed: random.Random(seed).sample(every, size) for seed in options.seeds}
    outcomes = tried(out, sorted(set().union(*samples.values())), room, options)
    for seed, names in samples.items():
        print(report(f"{options.room}, seed {seed}", [outcomes[name] for name in names], planted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
