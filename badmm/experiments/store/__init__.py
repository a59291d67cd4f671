"""Files of a run: atomic writes, sealed tensors, a history of one line per round, and the folder that holds them."""

from badmm.experiments.store.figures import save_figure
from badmm.experiments.store.folder import Checkpoint, RunFolder, locked
from badmm.experiments.store.history import History
from badmm.transports.atomic import write_atomic
from badmm.transports.sealed import load_tensors, save_tensors

__all__ = [
    "Checkpoint",
    "History",
    "RunFolder",
    "load_tensors",
    "locked",
    "save_figure",
    "save_tensors",
    "write_atomic",
]
