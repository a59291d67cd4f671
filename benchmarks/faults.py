"""Seeded faults against the engine of files, and what became of the posterior: `python -m benchmarks.faults`.

Writes a table to docs/faults.md; exit status 1 where an answer is wrong.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from badmm.transports import atomic
from benchmarks.simulated_sites import KINDS, SAME, TOLERANCE, Outcome, play, undisturbed


def report(outcomes: list[Outcome]) -> str:
    """The table of all outcomes by kind."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.fault.kind].append(outcome)
    lines = [
        "# Faults and their outcomes",
        "",
        f"Written by `python -m benchmarks.faults`: {len(outcomes)} seeded faults, one a run, against the engine of",
        "files. Four sites with six clients solve a logistic regression under a full Gaussian to a gap of",
        f"{TOLERANCE:g}; a fault strikes one party at one message, and a party that dies is started again with what is",
        f"on its disk. *Same* counts runs that end within {SAME:g} of the posterior of one process without faults, *by",
        "name* runs that end with the reason instead of an answer, *wrong* all others. Rounds without a fault:",
        f"{undisturbed().rounds}.",
        "",
        "| fault | runs | struck | same | by name | wrong | largest error | rounds | restarts | refused files |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        some = groups.get(kind, [])
        if not some:
            continue
        verdicts = [one.verdict for one in some]
        errors = [one.error for one in some if not one.ended]
        rounds = [one.rounds for one in some if one.rounds]
        cells = [
            kind,
            len(some),
            sum(one.fault.struck for one in some),
            *(verdicts.count(word) for word in ("same posterior", "ended by name", "WRONG")),
            f"{max(errors):.0e}" if errors else "–",
            f"{min(rounds)}–{max(rounds)}" if rounds else "–",
            sum(one.restarts for one in some),
            sum(len(one.refused) for one in some),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    reasons = sorted({one.ended for one in outcomes if one.ended})
    if reasons:
        lines += ["", "How runs ended by name:", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Play the faults and write the table; 1 where an answer is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=340, help="faults, spread evenly over the kinds")
    parser.add_argument("--out", type=Path, default=Path("docs/faults.md"))
    options = parser.parse_args()
    outcomes = [play(KINDS[number % len(KINDS)], number // len(KINDS)) for number in range(options.count)]
    atomic.write_atomic(options.out, report(outcomes).encode())
    wrong = [outcome for outcome in outcomes if outcome.verdict == "WRONG"]
    for outcome in wrong:
        print(outcome)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
