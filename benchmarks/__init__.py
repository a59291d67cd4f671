"""Measurements behind the tables in docs/: `python -m benchmarks.<name>`."""
