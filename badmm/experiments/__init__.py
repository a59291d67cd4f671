"""Runs from a configuration file: settings, folder, history, checkpoints, reports, plots."""

from __future__ import annotations

from typing import Any

__all__ = ["load_posterior"]


def __getattr__(name: str) -> Any:
    """Import `load_posterior`, which needs torch, on first use."""
    if name == "load_posterior":
        from badmm.experiments.posterior import load_posterior

        return load_posterior
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
