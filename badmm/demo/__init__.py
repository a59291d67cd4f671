"""`badmm demo`: a comparison of methods on real data that ship with scikit-learn."""
