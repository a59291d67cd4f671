"""CUDA kernels, compiled by NVRTC through CuPy when they are first used. Importing this loads neither of CuPy, torch."""
