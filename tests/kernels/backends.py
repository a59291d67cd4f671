"""Who computes: every implementation of the kernels' namespaces, for tests that run the same body on each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import badmm_kernels
from tests.kernels import header_backend as header


@dataclass(frozen=True)
class Backend:
    """A loader of family namespaces, and why it cannot be used on this machine ("" if it can)."""

    name: str
    load: Callable[[str], Any]
    missing: str = ""


NUMBA = Backend("numba", badmm_kernels.load)
HEADERS = tuple(
    Backend(f"header, {compiler} {' '.join(flags)}", header.loader(compiler, flags), header.missing(compiler))
    for compiler in ("gcc", "clang")
    for flags in (header.PLAIN, header.CONTRACTED)
)
BUILDS = (HEADERS[0], HEADERS[-1])  # for what takes long: the mildest and the boldest build of the header
BACKENDS = (NUMBA, *BUILDS)


def on(*backends: Backend) -> pytest.MarkDecorator:
    """Run a test on each of the backends, or skip it with the reason."""
    cases = [pytest.param(b, id=b.name, marks=pytest.mark.skipif(bool(b.missing), reason=b.missing)) for b in backends]
    return pytest.mark.parametrize("backend", cases)
