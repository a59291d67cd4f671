"""Numba kernels; the family modules here are generated."""

from badmm_kernels.cpu import cache

__all__ = ["cache"]
