"""Checks of kernels against oracles."""
