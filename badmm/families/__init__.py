"""What the solver needs of a family beside its kernels: derived where it factorises, one file per matrix structure."""
