"""CUDA kernels, compiled by NVRTC through CuPy when first used. Importing this loads neither CuPy nor torch."""
