"""Optimizers as torch operations."""
