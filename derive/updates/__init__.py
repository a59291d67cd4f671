"""The lines of the papers, derived: the round of Bayesian ADMM and the step of IVON."""
