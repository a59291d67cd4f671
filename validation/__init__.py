"""Validation of the kernels against oracles that share no code with the derivation: `python -m validation`."""

from badmm_kernels import __version__ as __version__
