"""Pictures: one style, and what is drawn of convex problems and of networks."""
