"""Plots of convex problems and of networks, in one style."""
