"""What a run leaves on disk: whole files, sealed tensors, a history line by line, and the folder that holds them."""

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
