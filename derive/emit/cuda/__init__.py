"""The CUDA sources."""
