"""The symbolic layer: derives each family and writes the kernels. Run `python -m derive`."""

__version__ = "0.1.0"
