"""The families that every test of compiled kernels compiles."""

from __future__ import annotations

REPRESENTATIVE = ("diagonal_gaussian", "exponential", "full_gaussian", "gamma", "isotropic_gaussian")
"""Families whose kernels are of every form that the emitters write: what compiles kernels for a check compiles these.
The others pass the same checks as Python (test_mutations), and compiled in `python -m validation`."""
FACTORISING = tuple(family for family in REPRESENTATIVE if family != "full_gaussian")
