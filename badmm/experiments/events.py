"""TensorBoard event files in the folder of a run; requires the extra `tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from badmm.experiments.config import ConfigError

FOLDER = "tensorboard"


def check() -> None:
    """Raise ConfigError unless the package tensorboard can be imported."""
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError as error:
        need = "the package tensorboard (pip install 'bayesian-admm[tensorboard]')"
        raise ConfigError(f"run.tensorboard: expected {need}, got no module named {error.name}") from None


class Events:
    """Writer of the numbers of every round's record; a resumed run hides the rounds after its checkpoint."""

    def __init__(self, folder: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / FOLDER), purge_step=done + 1)

    def add(self, record: Mapping[str, Any]) -> None:
        """Write the record of one round to disk."""
        for name, value in scalars(record).items():
            self.writer.add_scalar(name, value, record["round"])
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by TensorBoard's tags: scores, averaged scores, noise, cost, clients left out."""
    groups: dict[str, Mapping[str, Any]] = {
        "scores": {name: record[name] for name in ("accuracy", "nll", "ece", "worst_client") if name in record},
        "metrics": record.get("metrics", {}),
        "averaged": record["averaged"] or {},
        "cost": {name: record[name] for name in ("bytes_up", "bytes_down", "flops", "seconds")},
        "noise": record["noise"],
        "training": {
            **{name: record[name] for name in ("loss", "lr", "damping") if name in record},
            "left_out": len(record["excluded"]),
        },
    }
    tags = {f"{group}/{name}": value for group, part in groups.items() for name, value in part.items()}
    return {tag: float(value) for tag, value in tags.items() if value is not None}
