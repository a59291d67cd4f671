"""The symbolic layer: derives each family and writes the kernels. Run `python -m derive`."""
