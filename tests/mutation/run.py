"""python tests/mutation/run.py ROOM [--out DIR] [--sample N]: plant errors in a room with mutmut and count survivors.

mutmut changes one expression at a time and runs, in a fork of a process that has already imported everything, only the
tests that reach the changed function. It works on a copy of the tracked files, so the checkout is never changed.
`--sample` chooses that many planted errors at random, the same on every run.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = tomllib.loads((Path(__file__).parent / "rooms.toml").read_text(encoding="utf-8"))
PACKAGES = ("badmm", "badmm_kernels", "derive", "validation", "configs", "kernels")


def copy(room: str, out: Path) -> None:
    """The tracked files, with badmm_kernels at the top, where mutmut takes a file's path for its module's name."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        target = out / name.removeprefix("kernels/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    (out / "kernels").mkdir(exist_ok=True)
    link = out / "kernels" / "badmm_kernels"
    if not link.is_symlink():
        link.symlink_to("../badmm_kernels")
    settings = {
        "source_paths": ["badmm_kernels", "badmm"],
        "only_mutate": ROOMS[room]["mutate"],
        "also_copy": list(PACKAGES),
        "pytest_add_cli_args_test_selection": [t for t in ROOMS[room]["tests"] if (ROOT / t).exists()],
        "pytest_add_cli_args": ["-p", "no:cacheprovider"],
        "process_isolation": "forkserver",
        "use_git_change_detection": False,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    with (out / "pyproject.toml").open("a", encoding="utf-8") as stream:
        stream.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def outcomes(out: Path) -> dict[str, int | None]:
    """The exit status of the tests by planted error: 0 where none failed, None where none was run."""
    found: dict[str, int | None] = {}
    for path in sorted((out / "mutants").rglob("*.meta")):
        found |= json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def report(found: dict[str, int | None]) -> str:
    """Survivors by name, and their share of the planted errors that were tried."""
    tried = {name: status for name, status in found.items() if status is not None}
    survivors = sorted(name for name, status in tried.items() if status in (0, 5, 33))
    by_function = Counter(name.rsplit("__mutmut_", 1)[0] for name in survivors)
    lines = [f"{count:4d}  {name}" for name, count in by_function.most_common()]
    share = len(survivors) / len(tried) if tried else 0.0
    return "\n".join([*lines, f"{len(tried)} errors planted, {len(survivors)} survived ({share:.1%})"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", choices=ROOMS)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants")
    parser.add_argument("--sample", type=int, metavar="N")
    options = parser.parse_args()
    out = options.out.resolve() / options.room
    shutil.rmtree(out, ignore_errors=True)
    copy(options.room, out)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "2"]
    if options.sample:
        subprocess.run([*command, "no such error"], cwd=out, check=False)  # generates them and collects the tests
        names = sorted(outcomes(out))
        command += random.Random(0).sample(names, min(options.sample, len(names)))
    status = subprocess.run(command, cwd=out, check=False).returncode
    print(report(outcomes(out)))
    return status


if __name__ == "__main__":
    sys.exit(main())
