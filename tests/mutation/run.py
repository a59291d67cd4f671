"""python -m tests.mutation.run ROOM [--sample N] [--seeds S ...]: plant errors in a room, count what no test notices.

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from tests.mutation.planting import ROOT, Planted, copy, plant

ROOMS = tomllib.loads((Path(__file__).parent / "rooms.toml").read_text(encoding="utf-8"))
SLOW = ROOMS.pop("slow")


def tried(
    out: Path, planted: Mapping[str, Planted], room: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """The outcome by switch, from one pytest session in the copy."""
    switches = [one.switch for one in planted.values()]
    random.Random(0).shuffle(switches)  # so that those tried so far are a sample too
    settings = {
        "names": switches,
        "jobs": options.jobs,
        "budget": options.budget,
        "results": str(out / "results.jsonl"),
    }
    (out / "planted.json").write_text(json.dumps(settings), encoding="utf-8")
    tests = [name for name in options.tests or room["tests"] if (out / name.partition("::")[0]).exists()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.mutation.forks", "-p", "no:cacheprovider"]
    command += ["--planted", str(out / "planted.json"), *tests]
    command += [f"--deselect={name}" for name in SLOW]
    environment = os.environ | {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    with (out / "pytest.log").open("w", encoding="utf-8") as log:
        status = subprocess.run(command, cwd=out, env=environment, stdout=log, stderr=log, check=False).returncode
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines() if status == 0 else []
    if len(lines) != len(switches):
        raise SystemExit(f"error: pytest ended with status {status}; see {out / 'pytest.log'}")
    return {one["name"]: one for one in map(json.loads, lines)}


def report(room: str, found: Mapping[str, Mapping[str, Any]], planted: Mapping[str, Planted]) -> str:
    """The survivors with their changed lines, and their share with its 95% interval (Clopper-Pearson)."""
    survivors = [name for name in sorted(found) if found[name]["outcome"] != "killed"]
    lines = [
        f"{name}: {found[name]['outcome']} ({found[name]['tests']} tests)\n{planted[name].change}" for name in survivors
    ]
    ended = Counter(one["signal"] for one in found.values() if one.get("signal"))
    interval = binomtest(len(survivors), len(found)).proportion_ci(0.95)
    total = (
        f"{room}: {len(found)} tried, {len(survivors)} survived ({len(survivors) / len(found):.1%}, "
        f"95% interval {interval.low:.1%} to {interval.high:.1%})"
    )
    return "\n".join([*lines, ", ".join([total, *(f"{count} ended by {name}" for name, count in ended.items())])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", choices=ROOMS)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants", help="folder of the copies")
    parser.add_argument("--sample", type=int, metavar="N", help="errors to try, drawn at random (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="a sample each")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="try these errors instead")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="run these instead of the room's")
    parser.add_argument("--budget", type=float, default=20.0, metavar="SECONDS", help="CPU seconds of tests per error")
    parser.add_argument("--jobs", type=int, default=2, help="errors tried at a time")
    options = parser.parse_args()
    room, out = ROOMS[options.room], options.out.resolve() / options.room
    samples: dict[int, list[str]] = {}
    count = 0

    def choose(names: list[str]) -> list[str]:
        nonlocal count
        count = len(names)
        if unknown := set(options.names or ()) - set(names):
            raise SystemExit(f"error: --names: expected errors of the room, got {sorted(unknown)[0]!r}")
        wanted = options.names or names
        size = min(options.sample or len(wanted), len(wanted))
        samples.update({seed: random.Random(seed).sample(wanted, size) for seed in options.seeds})
        return sorted(set().union(*samples.values()))

    copy(out)
    planted = plant(out, room["mutate"], choose)
    outcomes = tried(out, planted, room, options)
    for seed, names in samples.items():
        found = {name: outcomes[planted[name].switch] for name in names}
        print(report(f"{options.room}, seed {seed}, of {count} errors", found, planted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
