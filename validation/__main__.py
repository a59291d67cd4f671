"""python -m validation [--device cpu|gpu|all] [--family NAME ...] [--json PATH] [--report PATH]

Checks every kernel of every family in both dtypes and every likelihood against independent oracles, then one-round
convergence and the recovery of classic ADMM with the solver. A registered family, optimizer, likelihood or kernel
without an oracle fails by name. The exit status is 0 if every check passed, 1 if one missed, 2 if the run was refused.
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

# BLAS and OpenMP read these variables when they are loaded. The matrices here are small, and threads that wait for each
# other on a busy machine make the run many times slower.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from badmm_kernels import registry  # noqa: E402

from .check import Check  # noqa: E402
from .report.table import progress, show  # noqa: E402
from .suite import Load, Section, kernel_sections, likelihood_sections, run, without_oracle  # noqa: E402

SOLVER_MODULES = ("family_rounds", "one_round", "recovery")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m validation", description="Check every kernel and likelihood against independent oracles."
    )
    parser.add_argument(
        "--device", choices=("cpu", "gpu", "all"), default="cpu", help="device of the kernels to check (default: cpu)"
    )
    names = registry.FAMILIES + registry.OPTIMIZERS
    parser.add_argument("--family", nargs="+", choices=names, metavar="NAME", help="families and optimizers to check, "
                        f"without likelihoods (default: all of {', '.join(names)}, and likelihoods)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the checks as JSON")
    parser.add_argument("--report", type=Path, metavar="PATH", help="write a self-contained HTML page with plots")
    return parser.parse_args(arguments)


def kernels_load(family: str, device: str = "cpu") -> object:
    """Return `badmm_kernels.load`, imported late so that `--help` is fast; GPU kernels take and return NumPy arrays."""
    namespace: object = importlib.import_module("badmm_kernels").load(family, device=device)
    if device != "gpu":
        return namespace
    wrapped: object = importlib.import_module(".on_device", __package__).HostArrayNamespace(namespace)
    return wrapped


def gpu_error(load: Load, family: str) -> str:
    """Return the reason why a family's GPU kernels cannot be loaded, or an empty string."""
    try:
        load(family, "gpu")
    except Exception as error:  # no driver, no kernels, no library: every reason is shown
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ""


def solver_sections(families: Sequence[str]) -> list[Section]:
    """Return the sections that need the solver: agreement of families, one-round convergence, classic ADMM.

    A family without kernels of its own composes others', and is checked where all of those are.
    """

    modules = [importlib.import_module(f".runs.{name}", __package__) for name in SOLVER_MODULES]
    every = set(registry.FAMILIES) <= set(families)

    def checks_of(module: ModuleType) -> Callable[[], Iterable[Check]]:
        def found() -> Iterable[Check]:
            of = getattr(module, "checks_of", None)
            return module.checks() if of is None else of(families)

        return lambda: [c for c in found() if c.family in families or (every and c.family not in registry.FAMILIES)]

    return [
        Section(module.__name__.rpartition(".")[2].replace("_", " "), "solver", "float64", checks_of(module))
        for module in modules
        if not set(module.FAMILIES).isdisjoint(families)
    ]


def validate(sections: Sequence[Section]) -> list[Check]:
    """Run the sections with a progress line; return their checks."""
    found: list[Check] = []
    with progress(len(sections)) as line:
        results = run(sections)
        for section in sections:
            line.start(section)
            result = next(results)
            line.finish(result)
            found.extend(result.checks)
    return found


def validate_kernels(load: Load, names: Sequence[str], device: str) -> list[Check]:
    """Return all kernel checks of one device, and a failed check per kernel that none of them compares."""
    found = validate(kernel_sections(load, names, device))
    return found + list(without_oracle(load, names, device, found))


def main(
    arguments: Sequence[str] | None = None,
    load: Load | None = None,
    extra: Callable[[Sequence[str]], list[Section]] = solver_sections,
) -> int:
    """Run the command and return its exit status; `load` and `extra` let tests supply other kernels or sections."""
    options = parse(arguments)
    for name, path in (("json", options.json), ("report", options.report)):
        if path and path.is_dir():
            print(f"validation: --{name}: expected the path of a file, got the directory {path}", file=sys.stderr)
            return 2
    start, source = time.perf_counter(), load or kernels_load
    names = options.family or list(registry.FAMILIES + registry.OPTIMIZERS)
    notes: list[str] = []
    found: list[Check] = []
    if options.device in ("gpu", "all"):
        reason = gpu_error(source, names[0])
        if reason and options.device == "gpu":
            print(f"validation: --device gpu: {reason}", file=sys.stderr)
            return 2
        if reason:
            notes.append(f"GPU skipped: {reason}")
        else:
            found += validate_kernels(source, names, "gpu")
    if options.device in ("cpu", "all"):
        found += validate_kernels(source, names, "cpu")
        families = [name for name in names if name in registry.FAMILIES]
        found += validate((extra(families) if families else []) + ([] if options.family else likelihood_sections()))
    seconds = time.perf_counter() - start
    show(found, seconds)
    for note in notes:
        print(note)
    save(options, found, seconds, notes)
    return 0 if found and all(item.passed for item in found) else 1


def save(options: argparse.Namespace, found: list[Check], seconds: float, notes: list[str]) -> None:
    """Write the requested JSON and HTML files."""
    if options.json or options.report:
        from .report import page as report  # loads matplotlib

        if options.json:
            report.write(options.json, report.as_json(found, seconds, notes))
        if options.report:
            report.write(options.report, report.as_html(found, seconds, notes))


if __name__ == "__main__":
    sys.exit(main())
