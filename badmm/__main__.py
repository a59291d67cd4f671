"""The command line `badmm`, also `python -m badmm`.

`badmm run CONFIG.toml` runs a configuration, `tune` chooses settings for it, `fit MODEL.toml` fits a generalized linear
model over sites, `demo` compares methods on real data. `serve` adds up what sites send that take part with `site`, and
`check-site` tells what would leave one. `derive` and `validate` are the commands of badmm_derive and badmm_validation.
The exit status is 0 for success, 2 for invalid input, 3 for a solver that gave up or did not converge, and 130 for an
interrupted run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from badmm import __version__
from badmm.checks import ClientError, RankError, ServerDomainError, UnfinishedRunError

Command = Callable[[Sequence[str]], int]
COMPANIONS = {"derive": "badmm_derive", "validate": "badmm_validation"}
"""Packages that are installed with this one under these names. A checkout has the folders derive/ and validation/;
their imports are relative, so they are loaded under the same names. A user's module called `derive` is never
imported."""
EXTRAS = {
    "torch": "run,torch",
    "mpi4py": "run,mpi",
    "flwr": "run,flower",
    **dict.fromkeys(("sympy", "mpmath"), "derive"),
}
EXTRAS |= dict.fromkeys(("formulaic", "narwhals", "pandas"), "glm")
"""The extra that brings a package, where it is not `run`."""
GAVE_UP = (ClientError, RankError, ServerDomainError, UnfinishedRunError)
"""Errors of a solver that cannot go on; ValueError and OSError are errors of the input; all others are defects."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(prog="badmm", description="Bayesian ADMM on data that stay with their clients.")
    top.add_argument("--version", action="version", version=f"badmm {__version__}")
    commands = top.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="solve the convex problem, or train the networks, of a configuration")
    run.add_argument("--seeds", metavar="N,N,...", help="federated runs: the seeds, as in --set run.seeds=[62,63]")
    run.add_argument("--methods", metavar="A,B,...", help="federated runs: only these of the file's methods")
    run.add_argument(
        "--transport", choices=("mpi", "torch", "files"), help="the engine that carries messages (default: one process)"
    )
    run.add_argument("--deadline", type=float, metavar="S", help="seconds that an answer may take (default: any)")
    run.add_argument(
        "--share", type=Path, metavar="DIR", help="files: the folder that server and sites exchange files in"
    )
    run.add_argument("--as", dest="party", metavar="NAME", help="files: 'server', or this site's name")
    run.add_argument("--sites", metavar="A,B,...", help="files, at the server: the sites' names in their order")
    run.add_argument("--memory", type=Path, metavar="DIR", help="files, at a site: what it remembers (default: memory)")
    _site_commands(commands)
    tune = commands.add_parser("tune", help="choose the settings of federated methods on a validation split")
    tune.add_argument("--seeds", metavar="N,N,...", help="the seeds, as in --set tune.seeds=[62,63]")
    tune.add_argument(
        "--run", action="store_true", help="then run the chosen settings, in the folder 'tuned' of the results"
    )
    for command, folder in ((run, "runs/NAME"), (tune, "runs/NAME-tuning")):
        command.add_argument("config", type=Path, metavar="CONFIG.toml")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            dest="overrides",
            help="override, e.g. method.rho=0.5",
        )
        command.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the files of MNIST and CIFAR")
        command.add_argument("--out", type=Path, metavar="DIR", help=f"folder for the results (default: {folder})")
        command.add_argument("--resume", action="store_true", help="continue the run in that folder")
        command.add_argument("--quiet", action="store_true", help="no progress display")

    demo = commands.add_parser("demo", help="compare methods on real data: table, plots and a verdict")
    demo.add_argument("--out", type=Path, default=Path("demo-results"), metavar="DIR", help="folder for the results")
    demo.add_argument("--quick", action="store_true", help="one split and fewer rounds, for a first look")
    demo.add_argument("--seeds", type=int, nargs="+", metavar="N", help="seeds of the splits (default: 0 1 2)")
    demo.add_argument("--only", nargs="+", metavar="PROBLEM", help="some of: diabetes, breast_cancer, digits")
    demo.add_argument("--picture", type=Path, metavar="PNG", help="also write the overview picture to this file")
    fit = commands.add_parser("fit", help="fit a generalized linear model to the files of several sites")
    fit.add_argument("config", type=Path, metavar="MODEL.toml")
    fit.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="override a key")
    fit.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (default: runs/MODEL)")
    # listed for --help; the commands parse their own arguments
    commands.add_parser("derive", add_help=False, help="derive families, prove their claims, write their kernels")
    commands.add_parser("validate", add_help=False, help="check every kernel against independent oracles")
    return top


def _site_commands(commands: Any) -> None:
    """The commands of a study over sites that exchange files: `serve` where the sums meet, two at each site."""
    serve = commands.add_parser("serve", help="add up what the sites of a study send")
    serve.add_argument("config", type=Path, metavar="STUDY.toml")
    serve.add_argument("--share", type=Path, required=True, metavar="DIR", help="the folder that all exchange files in")
    serve.add_argument("--sites", required=True, metavar="A,B,...", help="the sites' names in their order")
    serve.add_argument("--deadline", type=float, metavar="S", help="seconds that an answer may take (default: any)")
    serve.add_argument(
        "--minimum", type=int, metavar="N", help="replies that a round needs (default: half of those asked)"
    )
    serve.add_argument("--outlier", type=float, metavar="X", help="refuse terms so many times as long as the others'")
    serve.add_argument("--bits", choices=("float64", "float32", "bfloat16"), help="the precision of what crosses")
    serve.add_argument("--resume", action="store_true", help="continue the run in the folder of the results")
    site = commands.add_parser("site", help="take part in a study with this site's data")
    check = commands.add_parser("check-site", help="tell in numbers what would leave a site, before anything does")
    for command in (site, check):
        command.add_argument("--config", type=Path, required=True, metavar="SITE.toml")
    for command in (serve, site, check):
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    for command in (serve, site):
        command.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (default: runs/NAME)")
        command.add_argument("--quiet", action="store_true", help="no progress display")


def _overrides(options: argparse.Namespace) -> list[str]:
    """Return the values of `--set`, with the options that abbreviate one."""
    extra = [] if options.seeds is None else [f"{options.command}.seeds=[{options.seeds}]"]
    if options.data_root is not None:
        # a JSON string is a TOML string
        extra.append(f"data.root={json.dumps(str(options.data_root.resolve()), ensure_ascii=False)}")
    return [*options.overrides, *extra]


def _run(options: argparse.Namespace) -> None:
    from badmm.experiments import run

    methods = None if options.methods is None else options.methods.split(",")
    engine = {name: getattr(options, name) for name in ("transport", "deadline", "share", "party", "sites", "memory")}
    chosen = {"methods": methods, "resume": options.resume, "quiet": options.quiet, "engine": engine}
    run.from_file(options.config, _overrides(options), options.out, **chosen)


def _serve(options: argparse.Namespace) -> None:
    from badmm.experiments import run

    engine = {name: getattr(options, name) for name in ("deadline", "share", "sites", "minimum", "outlier", "bits")}
    engine |= {"transport": "files", "party": "server"}
    chosen = {"resume": options.resume, "quiet": options.quiet, "engine": engine}
    run.from_file(options.config, options.overrides, options.out, **chosen)


def _site(options: argparse.Namespace) -> None:
    from badmm.experiments.jobs import site

    site.take_part(options.config, options.overrides, options.out, quiet=options.quiet)


def _check_site(options: argparse.Namespace) -> None:
    from badmm.experiments.jobs import site

    print(site.report(options.config, options.overrides))
    found, _, problem = site.load(options.config, options.overrides)
    site.refuse(found, problem)


def _tune(options: argparse.Namespace) -> None:
    from badmm.experiments import tune

    chosen = {"resume": options.resume, "quiet": options.quiet, "then_run": options.run}
    tune.from_file(options.config, _overrides(options), options.out, **chosen)


def _demo(options: argparse.Namespace) -> None:
    from badmm.demo import command

    command.main(options.out, quick=options.quick, seeds=options.seeds, only=options.only, picture=options.picture)


def _fit(options: argparse.Namespace) -> None:
    from badmm.experiments import fit

    if not fit.from_file(options.config, options.overrides, options.out):
        raise UnfinishedRunError("the fit did not converge: its numbers are no estimates")


def companion(package: str) -> Command:
    """Return the `main` of `package`: a function from arguments to the exit status.

    Raises ModuleNotFoundError, with the missing package's name, if a requirement of `package` is not installed.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        _load_from_checkout(package)
    main: Command = importlib.import_module(f"{package}.__main__").main
    return main


def _load_from_checkout(package: str) -> None:
    folder = Path(__file__).resolve().parents[1] / package.removeprefix("badmm_")
    spec = importlib.util.spec_from_file_location(
        package, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    spec.loader.exec_module(module)


COMMANDS = {"run": _run, "tune": _tune, "demo": _demo, "fit": _fit}
COMMANDS |= {"serve": _serve, "site": _site, "check-site": _check_site}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; statuses 2 and 3 come with one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters must not end a run
    try:
        if given and given[0] in COMPANIONS:
            return companion(COMPANIONS[given[0]])(given[1:])
        options = parser().parse_args(given)
        COMMANDS[options.command](options)
    except GAVE_UP as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; a run continues with --resume", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "", "run")
        print(
            f"error: {error.name}: expected this package, got none; pip install 'bayesian-admm[{extra}]'",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
