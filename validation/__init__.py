"""Oracles that share no code with the derivation, the checks built on them, their reports: `python -m validation`."""

from badmm_kernels import __version__ as __version__
