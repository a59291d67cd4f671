"""Networks that run stacked along a client axis."""
