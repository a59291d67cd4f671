"""Where the kernels lie: kernels/badmm_kernels in a checkout, badmm_kernels beside badmm_derive in an installation."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKOUT_FOLDER = "kernels/"
INSTALLED = not (ROOT / CHECKOUT_FOLDER / "badmm_kernels").is_dir()
KERNELS = ROOT / ("" if INSTALLED else CHECKOUT_FOLDER) / "badmm_kernels"


def installed(path: str) -> str:
    """A generated file's path below the root, as an installation has it: without the folder kernels/."""
    return path.removeprefix(CHECKOUT_FOLDER)
