"""The Fortran interface of the C functions."""
