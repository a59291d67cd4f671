"""What the solver needs of a family beside its kernels."""
