"""The Numba kernels for CPUs."""
