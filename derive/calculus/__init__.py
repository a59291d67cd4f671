"""What follows from T, A and b of a family: coordinates, matrices, special functions, stable forms."""
