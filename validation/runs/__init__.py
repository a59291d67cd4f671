"""Checks of whole runs of the solver."""
