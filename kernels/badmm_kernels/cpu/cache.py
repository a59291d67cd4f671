"""The folder of compiled kernels: Numba's own, or a private temporary one if Numba finds none that it can write.

Numba refuses to compile a function with `cache=True` if it finds no writable folder (a read-only installation in a
container without a home). The kernels then compile into a temporary folder, which is deleted when the process ends.
Only its user can access it: the cache is pickled, so whoever can write to it can run code in this process.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings

import numba


def _probe() -> None:
    """Represent the kernels: Numba looks for a cache folder when it decorates a function."""


def ensure() -> None:
    """Switch to a temporary cache folder, with a warning, if Numba has none that it can write."""
    try:
        numba.njit(cache=True)(_probe)
    except RuntimeError:
        folder = tempfile.mkdtemp(prefix="badmm-kernels-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        numba.config.CACHE_DIR = folder
        warnings.warn(
            "compiled kernels: expected a writable folder beside the package or in the user's cache, got none; every "
            "process compiles them again unless NUMBA_CACHE_DIR names a writable folder",
            RuntimeWarning,
            stacklevel=2,
        )


ensure()
