"""Numba kernels; the family modules here are generated."""
