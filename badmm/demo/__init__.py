"""`python -m badmm demo`: which method to pick, measured on real data that ship with scikit-learn."""
