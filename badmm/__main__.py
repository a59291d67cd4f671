"""The command line: `python -m badmm run CONFIG.toml` runs what a file describes, `tune` chooses settings for it, and
`demo` compares on real data.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The arguments of the commands."""
    top = argparse.ArgumentParser(
        prog="python -m badmm", description="Bayesian ADMM on data that stay with their clients."
    )
    commands = top.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="solve the problem, or play the federated rounds, that a TOML file describes")
    run.add_argument("--seeds", metavar="N,N,...", help="federated runs: the seeds, as in --set run.seeds=[62,63]")
    run.add_argument("--methods", metavar="A,B,...", help="federated runs: only these of the file's methods")
    tune = commands.add_parser("tune", help="choose the settings of federated methods on a validation split")
    tune.add_argument("--seeds", metavar="N,N,...", help="the seeds, as in --set tune.seeds=[62,63]")
    tune.add_argument(
        "--run", action="store_true", help="then run what was chosen, in the folder 'tuned' of the results"
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
        command.add_argument("--data-root", type=Path, metavar="DIR", help="where the files of MNIST and CIFAR lie")
        command.add_argument("--out", type=Path, metavar="DIR", help=f"folder for the results (default: {folder})")
        command.add_argument("--resume", action="store_true", help="continue what was stopped in that folder")
        command.add_argument("--quiet", action="store_true", help="no progress display")

    demo = commands.add_parser("demo", help="compare methods on real data: table, plots and a verdict")
    demo.add_argument("--out", type=Path, default=Path("demo-results"), metavar="DIR", help="folder for the results")
    demo.add_argument("--quick", action="store_true", help="one split and fewer rounds, for a first look")
    demo.add_argument("--seeds", type=int, nargs="+", metavar="N", help="seeds of the splits (default: 0 1 2)")
    demo.add_argument("--only", nargs="+", metavar="PROBLEM", help="some of: diabetes, breast_cancer, digits")
    demo.add_argument("--picture", type=Path, metavar="PNG", help="also write the overview picture to this file")
    return top


def _overrides(options: argparse.Namespace) -> list[str]:
    """`--set` and the options that stand for one."""
    extra = [] if options.seeds is None else [f"{options.command}.seeds=[{options.seeds}]"]
    if options.data_root is not None:
        # a JSON string is a TOML string
        extra.append(f"data.root={json.dumps(str(options.data_root.resolve()), ensure_ascii=False)}")
    return [*options.overrides, *extra]


def _reported() -> tuple[type[Exception], ...]:
    """Errors whose text is for the user; others are defects and keep their traceback."""
    from badmm.checks import ClientError, ServerDomainError, UnfinishedRunError

    return ValueError, OSError, ClientError, ServerDomainError, UnfinishedRunError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 2 with one line on standard error for a bad argument or configuration."""
    options = parser().parse_args(arguments)
    try:
        if options.command == "run":
            from badmm import run

            run.from_file(
                options.config,
                _overrides(options),
                options.out,
                methods=None if options.methods is None else options.methods.split(","),
                resume=options.resume,
                quiet=options.quiet,
            )
        elif options.command == "tune":
            from badmm.federated import tune

            chosen = {"resume": options.resume, "quiet": options.quiet, "then_run": options.run}
            tune.from_file(options.config, _overrides(options), options.out, **chosen)
        else:
            from badmm.demo import command

            command.main(
                options.out, quick=options.quick, seeds=options.seeds, only=options.only, picture=options.picture
            )
    except _reported() as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; a run continues with --resume", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        extra = "run,torch" if error.name == "torch" else "run"
        print(f"error: the command line needs {error.name}: pip install 'bayesian-admm[{extra}]'", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
