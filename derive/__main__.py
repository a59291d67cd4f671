"""python -m derive: derive every family, prove every claim, write the kernels.

python -m derive [FAMILY ...]            prove, then write kernels/ (only the named families' files, if any are named)
python -m derive --check                 fail, with a diff, if anything generated is stale, edited, missing or orphaned
python -m derive FILE.py --out DIR        a family or likelihood of your own: prove it, write kernels into DIR
python -m derive likelihoods/NAME ...    the same for likelihoods, which may bear a family's name
python -m derive FAMILY --show STAGE     print a stage: family, calculus, ir, source, claims
python -m derive --report PATH           also write the derivation as Markdown with LaTeX
python -m derive --out DIR               write below DIR instead of the repository
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from . import generate, own, paths
from .calculus.family import Family, FamilyError
from .calculus.likelihood import Likelihood
from .claims.claim import Claim, Verdict, check
from .claims.every import every_claim
from .claims.lowered import unclaimed
from .families import load_family
from .ir.nodes import FamilyKernel, FamilyModule, MatrixMap, OptimizerModule, RoundModule
from .ir.show import show
from .likelihoods import load_likelihood
from .lower.admm import round_module
from .lower.families import build_module
from .lower.likelihoods import build_loss
from .parallel import mapped
from .report import document

MANY = 50  # claims that are worth a process per core
STAGES = ("family", "calculus", "ir", "source", "claims")


def prove(claims: Iterable[Claim]) -> list[Verdict]:
    """Check claims, with progress on a terminal; on all cores where this process has one thread and can be copied."""
    listed, verdicts = list(claims), []
    live = sys.stderr.isatty()
    for claim, outcome in zip(listed, mapped(_outcome, listed, MANY), strict=True):
        if live:
            print(f"\r\033[Kproved {claim.family}: {claim.name}", end="", file=sys.stderr, flush=True)
        verdicts.append(Verdict(claim, *outcome))
    if live:
        print("\r\033[K", end="", file=sys.stderr)
    return verdicts


def _outcome(claim: Claim) -> tuple[bool, str]:
    """What a proof says without the claim, whose closures cannot be pickled."""
    verdict = check(claim)
    return verdict.holds, verdict.method


def print_stage(stage: str, name: str) -> None:
    """Print one stage of one family or optimizer."""
    if stage == "source":
        for path, text in generate.expected([name]).items():
            print(f"==> {path}\n{text}")
    elif stage == "claims":
        for v in prove(every_claim([name])):
            print(f"{'ok  ' if v.holds else 'FAIL'} {v.claim.family}: {v.claim.name}: {v.method}")
    elif name in generate.OPTIMIZERS:
        _print_sweeps(generate.OPTIMIZERS[name]())
    elif name.startswith(generate.PREFIX):
        _print_loss(stage, load_likelihood(name.removeprefix(generate.PREFIX)))
    elif name == generate.ROUND:
        _print_ir(round_module())
    else:
        _print_family(stage, load_family(name))


def _print_family(stage: str, family: Family) -> None:
    """Print what a family states, what is derived from it, or its kernels' IR."""
    if stage == "family":
        for field in (
            "title",
            "citation",
            "statistics",
            "base_measure",
            "natural",
            "log_partition",
            "standard",
            "natural_of_standard",
        ):
            print(f"{field}: {getattr(family, field)}")
    elif stage == "calculus":
        from .report import family_section

        print("\n".join(family_section(family)))
    else:
        _print_ir(build_module(family))


def _print_sweeps(optimizer: OptimizerModule) -> None:
    """Print an optimizer's IR: its generator in both precisions, then its sweeps."""
    generator = optimizer.generator
    for precision, draw in (("float32", generator.single), ("float64", generator.double)):
        print(f"normals of one block, {precision} ({', '.join(generator.params)})")
        print("\n".join(show(s, "  ") for s in draw.body))
        print(f"  => {', '.join(show(r) for r in draw.results)}\n")
    for sweep in optimizer.kernels:
        arguments = [*(o.argument for o in sweep.operands), *(n.argument for n in sweep.normals)]
        print(f"Sweep {sweep.name}({', '.join(arguments)})")
        print("\n".join(f"  uniform {name} = {show(value)}" for name, value in sweep.uniforms))
        print("\n".join(show(s, "  ") for s in sweep.body))
        print("\n".join(f"  => {r.name} = {show(r.value)}" for r in sweep.results) + "\n")


def _print_loss(stage: str, likelihood: Likelihood) -> None:
    """Print what a likelihood states, what is derived from it, or its kernels' IR."""
    if stage == "family":
        for field in ("title", "citation", "predictor", "responses", "parameters", "loss"):
            print(f"{field}: {getattr(likelihood, field)}")
    elif stage == "calculus":
        from .report import likelihood_section

        print("\n".join(likelihood_section(likelihood)))
    else:
        for kernel in build_loss(likelihood).kernels:
            _print_map(kernel)


def _print_ir(module: FamilyModule | RoundModule) -> None:
    for function in module.functions:
        print(f"function {function.name}({', '.join(function.params)})")
        print("\n".join(show(s, "  ") for s in function.body) + "\n")
    for kernel in module.kernels:
        _print_map(kernel)


def _print_map(kernel: FamilyKernel) -> None:
    print(f"{type(kernel).__name__} {kernel.name}({', '.join(o.argument for o in kernel.operands)})")
    if not isinstance(kernel, MatrixMap):
        for name, value in kernel.uniforms:
            print(f"  uniform {name} = {show(value)}")
    for statement in kernel.body:
        print(show(statement, "  "))
    print(f"  => {', '.join(show(r) for r in kernel.results)}\n")


def write_text(path: Path, text: str) -> None:
    """Write a document to a temporary name that is renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m derive", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("families", nargs="*", metavar="FAMILY", help="only these families and optimizers")
    p.add_argument("--check", action="store_true", help="compare instead of writing")
    p.add_argument("--show", choices=STAGES, metavar="STAGE", help=f"print one of {', '.join(STAGES)}")
    p.add_argument("--report", type=Path, metavar="PATH", help="write the derivation as Markdown")
    p.add_argument("--out", type=Path, metavar="DIR", help="root to write or compare below (default: the checkout)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    args = parser().parse_args(argv)
    try:
        return _run(args)
    except FamilyError as error:
        print(error, file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    if any(name.endswith(".py") for name in args.families):
        return _derive_own(args)
    known = generate.known()
    unknown = [n for n in args.families if n not in known]
    if unknown:
        print(f"FAMILY: expected one of {', '.join(known)}, got {unknown[0]!r}", file=sys.stderr)
        return 2
    names = args.families or None
    if names and args.report:
        print("--report: expected no FAMILY beside it, the document covers all of them", file=sys.stderr)
        return 2
    if args.show:
        for name in names or known:
            print_stage(args.show, name)
        return 0
    if args.check:
        return _check(names, args.out)
    if args.out is None and paths.INSTALLED:
        print("--out: expected a folder to write below, as an installation has no checkout, got none", file=sys.stderr)
        return 2
    return _derive(names, args.out or paths.ROOT, args.report)


def _derive_own(args: argparse.Namespace) -> int:
    """Prove a user's own family or likelihood and write its kernels."""
    if len(args.families) != 1 or args.out is None or args.check or args.show or args.report:
        print("FILE.py: expected one file and --out DIR, and nothing else", file=sys.stderr)
        return 2
    start = time.perf_counter()
    stated = own.load(Path(args.families[0]))
    try:
        verdicts = prove(own.claims(stated))
        files = {} if any(not v.holds for v in verdicts) else own.files(stated)
    except Exception as error:
        raise own.explained(stated, error) from error
    missed = [v for v in verdicts if not v.holds]
    if missed:
        first = missed[0]
        print(f"{args.families[0]}: {first.claim.name}: {first.method}", file=sys.stderr)
        return 2
    for name in generate.write(files, args.out):
        print(args.out / name)
    print(f"{len(verdicts)} claims proved, {len(files)} files current ({time.perf_counter() - start:.1f} s)")
    return 0


def _check(names: list[str] | None, out: Path | None) -> int:
    """Compare what would be written with the files below `out`; in an installation, with the installed kernels."""
    files, mend = generate.expected(names), "python -m derive"
    if out is None and paths.INSTALLED:
        files, mend = {paths.installed(path): text for path, text in files.items()}, "install bayesian-admm again"
        messages = generate.changed(files, paths.ROOT)
    else:
        root = out or paths.ROOT
        messages = generate.differences(files, root) if names is None else generate.changed(files, root)
    if messages:
        print("\n".join(messages))
        print(f"To mend it: {mend}")
        return 1
    print(f"{len(files)} generated files are what derive writes")
    return 0


def _derive(names: list[str] | None, out: Path, report: Path | None) -> int:
    start = time.perf_counter()
    claims = list(every_claim(names))
    orphans = unclaimed(generate.build(names).values(), claims)
    for kernel in orphans:
        print(f"FAIL {kernel}: expected a claim with this kernel as its target, got none", file=sys.stderr)
    if orphans:
        print(f"{len(orphans)} kernels have no claim; nothing was written", file=sys.stderr)
        return 1
    verdicts = prove(claims)
    missed = [v for v in verdicts if not v.holds]
    for v in missed:
        print(f"FAIL {v.claim.family}: {v.claim.name}: {v.method}", file=sys.stderr)
    if missed:
        print(f"{len(missed)} of {len(verdicts)} claims do not hold; nothing was written", file=sys.stderr)
        return 1
    files = generate.expected(names)
    written = generate.write(files, out)
    removed = generate.remove_orphans(files, out) if names is None else []
    if report:
        write_text(report, document(verdicts))
        written.append(str(report))
    for name in [*written, *(f"removed {n}" for n in removed)]:
        print(name)
    seconds = time.perf_counter() - start
    print(f"{len(verdicts)} claims proved, {len(files)} files current, {len(written)} written ({seconds:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
