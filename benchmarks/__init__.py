"""Benchmarks, which write the tables in docs/: `python -m benchmarks.<name>`."""
