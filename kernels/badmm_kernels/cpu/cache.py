"""Where compiled kernels are kept: Numba's own folders, or a private temporary one where none can be written.

Numba refuses to compile a function with `cache=True` where it finds no writable folder (a read-only installation in a
container without a home). The kernels then compile into a temporary folder of this process, which only its user can
read (the cache is pickled, and a folder that others can write to would run their code) and which ends with the process.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings

import numba


def _probe() -> None:
    """Stands for every kernel: Numba looks for a folder when a function is decorated."""


def ensure() -> None:
    """Use a temporary folder, with a warning, where Numba can keep nothing."""
    try:
        numba.njit(cache=True)(_probe)
    except RuntimeError:
        folder = tempfile.mkdtemp(prefix="badmm-kernels-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        numba.config.CACHE_DIR = folder
        warnings.warn(
            "compiled kernels cannot be kept: neither their own folder nor the user's cache can be written, and every "
            "process compiles them anew; NUMBA_CACHE_DIR names another folder",
            RuntimeWarning,
            stacklevel=2,
        )


ensure()
