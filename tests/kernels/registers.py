"""Registers of every CUDA kernel on three architectures, by NVRTC and ptxas, kept in registers.json.

    python -m tests.kernels.registers [--all]

compiles what has changed since (all with --all) and writes the table. A kernel's row holds the digest of all the code
that it is compiled from, so that a test compiles what has changed and only that. Nothing that spills is written.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from derive.parallel import mapped
from tests.kernels import nvrtc
from tests.kernels.cuda_text import SOURCES, allowed, digests, with_kernels

TABLE = Path(__file__).with_suffix(".json")
Row = list[Any]  # digest, then the registers on each of nvrtc.ARCHITECTURES


def version() -> str:
    """The version of NVRTC, whose registers these are."""
    return importlib.metadata.version(nvrtc.WHEEL)


def kept() -> dict[str, dict[str, Row]]:
    """By source and kernel the rows of the table; none where another NVRTC made it."""
    found: dict[str, Any] = {"nvrtc": "", "kernels": {}}
    if TABLE.exists():
        found = json.loads(TABLE.read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Row]] = found["kernels"] if found["nvrtc"] == version() else {}
    return rows


def changed(source: str, rows: dict[str, Row]) -> list[str]:
    """The kernels of a source that differ from those that its rows are of."""
    return [name for name, digest in digests(source).items() if rows.get(name, [""])[0] != digest]


def compiled(source: str, names: Collection[str]) -> dict[str, list[nvrtc.Usage]]:
    """What the named kernels of a source take, on each architecture."""
    found: dict[str, list[nvrtc.Usage]] = {name: [] for name in names}
    for architecture in nvrtc.ARCHITECTURES if names else ():
        usages = nvrtc.usages(nvrtc.compile_text(with_kernels(source, names), architecture)[1])
        for name in names:
            found[name].append(usages[name])
    return found


def faults(source: str, found: dict[str, list[nvrtc.Usage]]) -> Iterator[str]:
    """The kernels that keep a stack or spill, or take more registers than their launch bounds leave."""
    limits = allowed(source)
    for name, usages in found.items():
        for architecture, u in zip(nvrtc.ARCHITECTURES, usages, strict=True):
            if u.stack or u.spill_stores or u.spill_loads or not 0 < u.registers <= limits[name]:
                at = f"{source}, {name}, {architecture}"
                yield f"{at}: expected at most {limits[name]} registers and no stack, got {u}"


def write(rows: dict[str, dict[str, Row]]) -> None:
    """Write the table, a line a kernel, to a temporary name that is renamed."""
    parts = []
    for source, own in sorted(rows.items()):
        lines = ",\n".join(f"   {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(own.items()))
        parts.append(f"  {json.dumps(source)}: {{\n{lines}\n  }}")
    head = f'{{\n "nvrtc": {json.dumps(version())},\n "architectures": {json.dumps(nvrtc.ARCHITECTURES)},\n'
    temporary = TABLE.with_name(f".{TABLE.name}.{os.getpid()}")
    body = ",\n".join(parts)
    temporary.write_text(f'{head} "kernels": {{\n{body}\n }}\n}}\n', encoding="utf-8")
    os.replace(temporary, TABLE)


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.registers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--all", action="store_true", help="compile every kernel anew")
    before = {} if parser.parse_args().all else kept()
    rows: dict[str, dict[str, Row]] = {}
    wrong: list[str] = []
    names = {source: changed(source, before.get(source, {})) for source in SOURCES}
    each = mapped(lambda source: compiled(source, names[source]), SOURCES, least=2)
    for source, found in zip(SOURCES, each, strict=True):
        own, marks = before.get(source, {}), digests(source)
        wrong += (here := list(faults(source, found)))
        spoiled = {name for name in found for fault in here if f", {name}, " in fault}
        measured = {name: [marks[name], *(u.registers for u in usages)] for name, usages in found.items()}
        valid = {name: row for name, row in own.items() if marks.get(name) == row[0]} | measured
        rows[source] = {name: row for name, row in valid.items() if name not in spoiled}
        write(before | rows)
        print(f"{source}: {len(found)} of {len(marks)} kernels compiled", flush=True)
    write(rows)
    print("\n".join(wrong), file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
