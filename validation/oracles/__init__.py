"""Independent oracles: closed forms, automatic differentiation, central solutions, textbook iterations."""
