"""Who solves a client's problem: exact solvers for convex losses, local training and IVON for networks."""
