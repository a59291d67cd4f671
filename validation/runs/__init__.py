"""Checks on whole runs of the solver."""
