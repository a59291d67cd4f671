"""A user's own functions by name, as a configuration has them: "package.module:name" or "file.py:name"."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from badmm.checks import imported


def find(reference: str, key: str) -> Callable[..., Any]:
    """The function or class that "package.module:name" or "file.py:name" stands for; ValueError that names `key`."""
    origin, colon, name = reference.rpartition(":")
    if not colon or not origin or not name:
        raise ValueError(f'{key}: expected "package.module:name" or "file.py:name", got {reference!r}')
    found: Any = getattr(imported(origin, key), name, None)
    if not callable(found):
        raise ValueError(f"{key}: expected a function or class in {origin}, got {name!r}, which is none")
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
