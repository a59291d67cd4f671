"""A user's own functions by name, as a configuration has them: "package.module:name"."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def find(reference: str, key: str) -> Callable[..., Any]:
    """The function or class that "package.module:name" stands for; ValueError that starts with `key`."""
    module, colon, name = reference.partition(":")
    if not colon or not module or not name:
        raise ValueError(f'{key}: expected "package.module:name", got {reference!r}')
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{key}: expected a module that can be imported, got {module!r} ({error})") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{key}: expected a name in {module}, got {part!r}, which it does not have")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{key}: expected a function or class, got {reference!r}, a {type(found).__name__}")
    own: Callable[..., Any] = found
    return own


def call(reference: str, key: str, options: dict[str, Any]) -> Any:
    """What the function returns for these keywords; ValueError where it does not take them."""
    made = find(reference, key)
    try:
        return made(**options)
    except TypeError as error:
        raise ValueError(f"{key}: expected keywords that {reference} takes, got {options} ({error})") from error


def search(folders: Iterable[Path]) -> None:
    """Let modules be found in these folders too, after everything that Python finds anyway."""
    sys.path += [text for text in map(str, folders) if text not in sys.path]
