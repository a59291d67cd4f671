"""python -m validation [--device cpu|gpu|all] [--family NAME ...] [--json PATH] [--report PATH]

Checks every kernel of every family, in both types, and every likelihood against independent oracles; then one-round
convergence and the recovery of classic ADMM with the solver. Whatever is registered without an oracle fails by name.
Exits 0 if every check passed, 1 if any missed, 2 if it could not be run.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

# Read when BLAS and OpenMP are first loaded: the matrices here are small, and threads that wait for each other on a
# busy machine make the run many times slower.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from badmm_kernels import registry  # noqa: E402

from .check import Check  # noqa: E402
from .report.table import progress, show  # noqa: E402
from .suite import Job, Load, jobs, likelihood_jobs, run, without_oracle  # noqa: E402

SOLVER_MODULES = ("family_rounds", "one_round", "recovery")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m validation", description="Check every kernel and likelihood against independent oracles."
    )
    parser.add_argument(
        "--device", choices=("cpu", "gpu", "all"), default="cpu", help="whose kernels to check (default: cpu)"
    )
    names = registry.FAMILIES + registry.OPTIMIZERS
    parser.add_argument("--family", nargs="+", choices=names, metavar="NAME", help="families and optimizers to check, "
                        f"without likelihoods (default: all of {', '.join(names)}, and likelihoods)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the checks as JSON")
    parser.add_argument("--report", type=Path, metavar="PATH", help="write a self-contained HTML page with plots")
    return parser.parse_args(arguments)


def kernels_load(family: str, device: str = "cpu") -> object:
    """`badmm_kernels.load`, imported late so that `--help` costs nothing; on a GPU for NumPy's arrays."""
    namespace: object = importlib.import_module("badmm_kernels").load(family, device=device)
    return importlib.import_module(".on_device", __package__).OnDevice(namespace) if device == "gpu" else namespace


def refusal(load: Load, family: str) -> str:
    """Why there is nothing to check on the GPU, or nothing."""
    try:
        load(family, "gpu")
    except Exception as error:  # no driver, no kernels, no library: whatever the reason, it is shown
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ""


def solver_jobs(families: Sequence[str]) -> list[Job]:
    """Families that agree round by round, one-round convergence, recovery of classic ADMM; they need the solver."""

    modules = [importlib.import_module(f".runs.{name}", __package__) for name in SOLVER_MODULES]

    def checks_of(module: ModuleType) -> Callable[[], Iterable[Check]]:
        return lambda: [c for c in module.checks() if c.family in families]

    return [
        Job(module.__name__.rpartition(".")[2].replace("_", " "), "solver", "float64", checks_of(module))
        for module in modules
        if not set(module.FAMILIES).isdisjoint(families)
    ]


def validate(work: Sequence[Job]) -> list[Check]:
    """Run the jobs with a progress line; their checks."""
    found: list[Check] = []
    with progress(len(work)) as line:
        results = run(work)
        for job in work:
            line.starts(job)
            result = next(results)
            line.ends(result)
            found.extend(result.checks)
    return found


def on_device(load: Load, names: Sequence[str], where: str) -> list[Check]:
    """Every kernel check of one device, and a failed one for every kernel that none of them judged."""
    found = validate(jobs(load, names, where))
    return found + list(without_oracle(load, names, where, found))


def main(
    arguments: Sequence[str] | None = None,
    load: Load | None = None,
    extra: Callable[[Sequence[str]], list[Job]] = solver_jobs,
) -> int:
    """The command; ``load`` and ``extra`` let a test put other kernels or other jobs in the place of the real ones."""
    options = parse(arguments)
    for path in (options.json, options.report):
        if path and path.is_dir():
            print(f"validation: expected the path of a file, got the directory {path}", file=sys.stderr)
            return 2
    start, source = time.perf_counter(), load or kernels_load
    names = options.family or list(registry.FAMILIES + registry.OPTIMIZERS)
    notes: list[str] = []
    found: list[Check] = []
    if options.device in ("gpu", "all"):
        reason = refusal(source, names[0])
        if reason and options.device == "gpu":
            print(f"validation: --device gpu: {reason}", file=sys.stderr)
            return 2
        if reason:
            notes.append(f"GPU skipped: {reason}")
        else:
            found += on_device(source, names, "gpu")
    if options.device in ("cpu", "all"):
        found += on_device(source, names, "cpu")
        families = [name for name in names if name in registry.FAMILIES]
        found += validate((extra(families) if families else []) + ([] if options.family else likelihood_jobs()))
    seconds = time.perf_counter() - start
    show(found, seconds)
    for note in notes:
        print(note)
    save(options, found, seconds, notes)
    return 0 if found and all(item.passed for item in found) else 1


def save(options: argparse.Namespace, found: list[Check], seconds: float, notes: list[str]) -> None:
    """Write what was asked for."""
    if options.json or options.report:
        from .report import page as report  # matplotlib only where a page is made

        if options.json:
            report.write(options.json, report.as_json(found, seconds, notes))
        if options.report:
            report.write(options.report, report.as_html(found, seconds, notes))


if __name__ == "__main__":
    sys.exit(main())
