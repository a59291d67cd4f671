"""The Python face of the CUDA kernels."""
