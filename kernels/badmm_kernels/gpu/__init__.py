"""CUDA kernels, compiled by NVRTC through CuPy on first use. Importing this package loads neither CuPy nor torch."""
