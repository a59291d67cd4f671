"""One small file per likelihood; found by name, nothing to register."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from ..calculus.likelihood import Likelihood, LikelihoodError


def likelihood_names() -> list[str]:
    """The likelihoods under derive/likelihoods, in alphabetical order; no file is read."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__))


def load_likelihoods(names: Iterable[str] | None = None) -> dict[str, Likelihood]:
    """The named likelihoods (default all), by name."""
    return {name: load_likelihood(name) for name in (likelihood_names() if names is None else names)}


def load_likelihood(name: str) -> Likelihood:
    """One likelihood from its file; LikelihoodError names the file of one that cannot be read."""
    try:
        module = importlib.import_module(f"{__name__}.{name}")
        likelihood: Likelihood = module.LIKELIHOOD
    except LikelihoodError:
        raise
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise LikelihoodError(
            f"likelihoods/{name}.py: expected a LIKELIHOOD, got {type(error).__name__}: {first}"
        ) from error
    if likelihood.name != name:
        raise LikelihoodError(f"likelihoods/{name}.py: expected LIKELIHOOD.name to be the file's name, "
                              f"got {likelihood.name!r}")  # fmt: skip
    object.__setattr__(likelihood, "module", module.__name__)
    return likelihood
