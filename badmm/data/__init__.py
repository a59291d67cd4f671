"""Data for examples and experiments: sets that ship with scikit-learn, tables in files, images, and how rows are split.

What a user calls is named here; each loads what it needs when it is called.
"""

from badmm.data.tables import Dataset, Preparation, hold_out, load_dataset, prepare, split, split_by_column

__all__ = ["Dataset", "Preparation", "hold_out", "load_dataset", "prepare", "split", "split_by_column"]
