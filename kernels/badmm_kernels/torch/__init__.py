"""Generated optimizers as torch operations, where Numba or CuPy is absent."""
