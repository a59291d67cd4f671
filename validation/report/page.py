"""Reports as JSON and as a self-contained HTML page: all checks, their errors, and the environment."""

from __future__ import annotations

import base64
import html
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ..check import Check
from . import figures
from .table import closeness, summary

PACKAGES = ("numpy", "scipy", "numba", "torch", "mpmath")

STYLE = """
:root { --ink: #1f2328; --soft: #59636e; --line: #d9dee3; --paper: #f6f8fa; --good: #1a7f37; --bad: #d1242f; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.5rem 5rem; color: var(--ink);
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.9rem; margin: 0 0 .2rem; letter-spacing: -.01em; } h2 { margin: 2.8rem 0 .6rem; font-size: 1.25rem; }
p.lead { color: var(--soft); margin: 0 0 1.6rem; } p.note { color: var(--soft); font-size: .9rem; max-width: 46rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; }
.tile { flex: 1 1 9rem; border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem;
        background: var(--paper); }
.tile b { display: block; font-size: 1.55rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.good b { color: var(--good); } .bad b { color: var(--bad); }
img { width: 100%; height: auto; display: block; margin: .6rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .32rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.miss td { background: #fff1f1; } .pass { color: var(--good); } .fail { color: var(--bad); font-weight: 600; }
details { border: 1px solid var(--line); border-radius: .6rem; margin: .5rem 0; padding: .5rem .9rem; }
summary { cursor: pointer; font-weight: 600; } summary span { color: var(--soft); font-weight: 400; }
.scroll { overflow-x: auto; }
"""


def write(path: Path, text: str) -> None:
    """Write a file atomically: to a temporary name in the same folder, which is then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def environment() -> dict[str, str]:
    """Return the versions of Python and packages, and the machine."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def as_json(checks: Sequence[Check], seconds: float, notes: Sequence[str]) -> str:
    """Return the run as JSON text."""
    record = {
        "passed": all(item.passed for item in checks),
        "checks": [item.as_dict() for item in checks],
        "missed": sum(not item.passed for item in checks),
        "seconds": round(seconds, 3),
        "notes": list(notes),
        "environment": environment(),
    }
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def image(data: bytes | None, text: str) -> str:
    """Return an `img` element with embedded PNG data."""
    if data is None:
        return ""
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def tile(value: str, caption: str, kind: str = "") -> str:
    """Return one of the figures at the top of the page."""
    return f'<div class="tile {kind}"><b>{html.escape(value)}</b><span>{html.escape(caption)}</span></div>'


def verdict(passed: bool) -> str:
    """Return "pass" or "MISS" as coloured text."""
    return '<span class="pass">pass</span>' if passed else '<span class="fail">MISS</span>'


def rows_of(checks: Sequence[Check]) -> str:
    """Return checks as table rows, in descending order of error over tolerance."""
    lines = []
    for item in sorted(checks, key=closeness, reverse=True):
        lines.append(
            f'<tr class="{"" if item.passed else "miss"}"><td>{html.escape(item.name)}</td>'
            f"<td>{html.escape(item.dtype)}</td>"
            f'<td class="n">{item.value:.3g}</td><td class="n">{item.tolerance:.3g}</td>'
            f"<td>{verdict(item.passed)}</td><td>{html.escape(item.detail)}</td></tr>"
        )
    return "".join(lines)


HEAD = (
    '<tr><th>check</th><th>type</th><th class="n">error</th><th class="n">tolerance</th><th></th>'
    "<th>measured in</th></tr>"
)


def details(checks: Sequence[Check]) -> str:
    """Return tables of all checks, folded by family and group."""
    parts = []
    for family in figures.families_of(checks):
        mine = [item for item in checks if item.family == family]
        parts.append(f"<h2>{html.escape(figures.label(family))}</h2>")
        for group in sorted({item.group for item in mine}):
            items = [item for item in mine if item.group == group]
            missed = sum(not item.passed for item in items)
            state = f"{missed} missed" if missed else "all pass"
            parts.append(
                f"<details{' open' if missed else ''}><summary>{html.escape(group)} <span>{len(items)} checks, {state}"
                f'</span></summary><div class="scroll"><table>{HEAD}{rows_of(items)}</table></div></details>'
            )
    return "".join(parts)


def overview(checks: Sequence[Check]) -> str:
    """Return the table of the terminal: one row per family, dtype and group."""
    lines = [
        '<tr><th>family</th><th>type</th><th>evidence</th><th class="n">checks</th><th class="n">worst error</th>'
        '<th class="n">tolerance</th><th></th></tr>'
    ]
    for row in summary(checks):
        kind = "" if row.misses == 0 else "miss"
        lines.append(
            f'<tr class="{kind}"><td>{html.escape(row.family)}</td><td>{html.escape(row.dtype)}</td>'
            f'<td>{html.escape(row.group)}</td><td class="n">{row.count}</td><td class="n">{row.worst.value:.3g}</td>'
            f'<td class="n">{row.worst.tolerance:.3g}</td><td>{verdict(row.misses == 0)}</td></tr>'
        )
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def plots(checks: Sequence[Check]) -> str:
    """Return the plots, each with a sentence."""
    parts = [
        "<h2>Error over tolerance</h2>",
        image(figures.error_over_tolerance(checks), "every check at its error over its tolerance"),
    ]
    rounding = figures.histograms(
        checks, "ulp", "error / tolerance of 2 ulp of the formula's largest term (the sum over clients has its own)"
    )
    if rounding:
        parts += [
            "<h2>Rounding errors</h2>",
            '<p class="note">Kernels without transcendental functions, at every test point: ordinary, extreme and '
            "cancelling ones. Logarithmic counts.</p>",
            image(rounding, "histograms of errors in ulps"),
        ]
    rounds = figures.convergence(checks)
    if rounds:
        parts += [
            "<h2>Convergence</h2>",
            '<p class="note">Error by round, one line per problem.</p>',
            image(rounds, "error by round"),
        ]
    return "".join(parts)


def as_html(checks: Sequence[Check], seconds: float, notes: Sequence[str]) -> str:
    """Return the run as one HTML page without external references."""
    missed = sum(not item.passed for item in checks)
    points = sum(max(len(item.samples), 1) for item in checks)
    worst = max((closeness(item) for item in checks), default=0.0)
    tiles = (
        tile("pass" if missed == 0 else f"{missed} missed", "verdict", "good" if missed == 0 else "bad")
        + tile(str(len(checks)), "checks")
        + tile(f"{points:,}", "measured errors")
        + tile(f"{worst:.2f}", "largest error / tolerance")
        + tile(f"{seconds:.0f} s", "run time")
    )
    setting = ", ".join(f"{name} {version}" for name, version in environment().items())
    remarks = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Validation of the kernels</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>Validation of the kernels</h1>"
        f'<p class="lead">Oracles that share no code with the derivation: 50-digit arithmetic, '
        f"automatic differentiation, closed forms, independent solvers.</p>"
        f'<div class="tiles">{tiles}</div>{remarks}{plots(checks)}'
        f"<h2>By family, type and evidence</h2>{overview(checks)}"
        f'{details(checks)}<h2>Setting</h2><p class="note">{html.escape(setting)}. Made by '
        f"<code>python -m validation --report PATH</code>.</p></body></html>\n"
    )
