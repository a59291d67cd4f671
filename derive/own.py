"""A family or a likelihood of a user's own, in a file outside the package: loaded, proved, and written as kernels."""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .calculus.family import Family, FamilyError
from .calculus.likelihood import Likelihood
from .claims import (
    domain,
    families as family_claims,
    likelihoods as likelihood_claims,
    lowered,
    matrix,
    special,
)
from .claims.claim import Claim
from .emit.c import module as c
from .emit.numba import module as numba
from .lower.expressions import LoweringError
from .lower.families import build_module
from .lower.likelihoods import build_loss

NAME = re.compile("[a-z][a-z0-9_]*")
TOP = __name__.partition(".")[0]
PUBLIC = "badmm_derive"  # what a user's file imports, installed or not


def load(path: Path) -> Family | Likelihood:
    """What the file states as FAMILY or LIKELIHOOD; FamilyError says in one line what is wrong with it."""
    if not path.is_file():
        raise FamilyError(f"{path}: expected a file, got none")
    if not NAME.fullmatch(path.stem):
        raise FamilyError(f"{path}: expected a name of small letters, digits and underscores, got {path.stem!r}")
    name = f"badmm_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _public_name():
            spec.loader.exec_module(module)
    except FamilyError:
        raise
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{path}" if line is None else f"{path}, line {line}"
        raise FamilyError(f"{where}: {type(error).__name__}: {_first_line(error)}") from error
    found = [getattr(module, kind) for kind in ("FAMILY", "LIKELIHOOD") if hasattr(module, kind)]
    if len(found) != 1 or not isinstance(found[0], Family | Likelihood):
        raise FamilyError(f"{path}: expected one FAMILY or one LIKELIHOOD, got {len(found)}")
    if found[0].name != path.stem:
        raise FamilyError(f"{path}: name: expected {path.stem!r}, the file's, got {found[0].name!r}")
    object.__setattr__(found[0], "module", name)
    stated: Family | Likelihood = found[0]
    return stated


def _first_line(error: Exception) -> str:
    return (str(error) or "no message").partition("\n")[0][:200]


@contextmanager
def _public_name() -> Iterator[None]:
    """Have `import badmm_derive...` give the modules that run, whatever this package is called in a checkout.

    Modules that were imported under that name before, a second copy, are put back at the end.
    """
    before = {name: module for name, module in sys.modules.items() if _within(name, PUBLIC)}
    if TOP != PUBLIC:
        own = {PUBLIC + name[len(TOP) :]: module for name, module in sys.modules.items() if _within(name, TOP)}
        sys.modules.update(own)
    try:
        yield
    finally:
        sys.modules.update(before)


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def claims(stated: Family | Likelihood) -> Iterator[Claim]:
    """What is proved of it before anything is written."""
    if isinstance(stated, Likelihood):
        yield from likelihood_claims.claims(stated)
        yield from special.tail_claims()
        return
    yield from family_claims.claims(stated)
    if stated.is_matrix:
        yield from matrix.claims(stated)
    yield from lowered.claims(stated)
    yield from domain.claims(stated)


def files(stated: Family | Likelihood) -> dict[str, str]:
    """File name → text: kernels for Numba, and a C header."""
    module = build_loss(stated) if isinstance(stated, Likelihood) else build_module(stated)
    return {f"{stated.name}.py": numba.emit(module), f"{stated.name}.h": c.emit(module)}


def explained(stated: Family | Likelihood, error: Exception) -> FamilyError:
    """What the derivation cannot do, in one line that names statistic, map or power and the rule that is missing."""
    if isinstance(error, FamilyError):
        return error
    kind = "likelihood" if isinstance(stated, Likelihood) else "family"
    what = _first_line(error) if isinstance(error, LoweringError | NotImplementedError) else (
        f"no rule derives it ({type(error).__name__}: {_first_line(error)})"
    )  # fmt: skip
    return FamilyError(f"{kind} {stated.name}: {what}")
