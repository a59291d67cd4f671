"""The packages badmm_derive and badmm_validation, which are installed with this one, as commands.

An installation has them under these names. A checkout has the folders derive/ and validation/ beside badmm/; their
imports are relative, so they are loaded under the same names. A user's module called `derive` or `validation` is never
imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Command = Callable[[Sequence[str]], int]
FOLDERS = {"badmm_derive": "derive", "badmm_validation": "validation"}


def command(package: str) -> Command:
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
    folder = Path(__file__).resolve().parents[1] / FOLDERS[package]
    spec = importlib.util.spec_from_file_location(
        package, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    spec.loader.exec_module(module)
