"""Generated Numba kernels of likelihoods: a loss of a row with its derivatives, and their Gaussian expectations."""
