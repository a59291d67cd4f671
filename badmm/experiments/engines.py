"""Which engine carries a run's messages: `badmm run CONFIG --transport mpi|torch|files`.

Under MPI and torch.distributed every rank runs the same command on the same configuration and serves its share of the
clients; rank 0 writes the run's folder, the others `rank-N` in it, from which they resume. With files every party runs
the command on its own machine: the server sums, and a site's clients are those of the data that lie there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from badmm.checks import RankError
from badmm.experiments.config import ConfigError
from badmm.experiments.config.solver import SolverConfig
from badmm.experiments.store import ranks
from badmm.transports import InProcess
from badmm.transports.messages import Reply, Transport
from badmm.transports.ranks import share_of

NAMES = ("mpi", "torch", "files")
SERVER = "server"


@dataclass(frozen=True)
class Engine:
    """A transport, and what this process is in it: a rank with its share, the server of files, or one of its sites."""

    transport: Transport = field(default_factory=InProcess)
    party: str | None = None

    @property
    def first(self) -> bool:
        """Whether this process speaks for the run."""
        return self.transport.rank == 0

    @property
    def sites(self) -> list[str]:
        """The sites that take part, where they have names."""
        return list(getattr(self.transport, "sites", ()))

    @property
    def is_site(self) -> bool:
        """Whether this process follows a server of files."""
        return self.party not in (None, SERVER)

    def own(self, clients: Sequence[Any]) -> list[Any]:
        """The clients that live here."""
        if self.party is not None:
            return [] if self.party == SERVER else list(clients)
        return [clients[k] for k in share_of(self.transport.rank, self.transport.size, len(clients))]

    def folder(self, out: Path) -> Path:
        """Where this process writes."""
        if self.is_site:
            return out / str(self.party)
        return ranks.folder(out, self.transport.rank)

    def agree_on(self, rounds: int) -> None:
        """Raise RankError unless all ranks go on from the same round."""
        if self.party is not None or self.transport.size == 1:
            return
        number = {"rounds": float(rounds)}
        found = self.transport.reduce(Reply(0, "", maxima=number, minima=number))
        least, most = int(found.minima["rounds"]), int(found.maxima["rounds"])
        if least != most:
            raise RankError(f"--resume: expected checkpoints of one round on all ranks, got rounds {least} to {most}")


def connect(name: str | None, options: Mapping[str, Any], config: Any, *, resume: bool) -> Engine:
    """The engine of that name (None: this process alone); ConfigError for options that do not fit."""
    given = {key: value for key, value in options.items() if value is not None and key != "deadline"}
    if name != "files" and given:
        raise ConfigError(f"--{next(iter(given))}: expected --transport files beside it, got {name or 'no transport'}")
    deadline = options.get("deadline")
    if name is None:
        if deadline is not None:
            raise ConfigError("--deadline: expected --transport beside it, got no transport")
        return Engine()
    if name == "mpi":
        from badmm.transports.mpi import MPI

        return Engine(MPI(deadline=deadline))
    if name == "torch":
        from badmm.transports.torch_distributed import TorchDistributed

        return Engine(TorchDistributed(deadline=deadline))
    return _files(given, deadline, config, resume=resume)


def _files(given: Mapping[str, Any], deadline: float | None, config: Any, *, resume: bool) -> Engine:
    from badmm.transports.files import FilesServer, FilesSite

    for key in ("share", "party"):
        if key not in given:
            raise ConfigError(f"--{'as' if key == 'party' else key}: expected a value with --transport files, got none")
    remote(config)
    party, stated = given["party"], identity(config)
    if party != SERVER:
        memory = given.get("memory") or Path("memory")
        return Engine(FilesSite(given["share"], party, memory, identity=stated), party)
    if "sites" not in given:
        raise ConfigError("--sites: expected the names of the sites in their order, got none")
    chosen: dict[str, Any] = {"deadline": deadline, "identity": stated, "resume": resume}
    chosen |= {key: given[key] for key in ("minimum", "outlier", "bits") if key in given}
    return Engine(FilesServer(given["share"], given["sites"].split(","), **chosen), SERVER)


def remote(config: Any) -> None:
    """Raise ConfigError for a configuration that sites which see their own data alone cannot run."""
    if not isinstance(config, SolverConfig):
        raise ConfigError("--transport: expected mpi or torch for networks, got files")
    if not config.likelihood.rate and (config.data.standardize or config.data.components is not None):
        raise ConfigError(
            "data.standardize: expected false with --transport files, where each site has a mean of its own"
        )


def identity(config: SolverConfig) -> dict[str, Any]:
    """What server and sites must have alike beside the numbers that `badmm.solve` compares."""
    return {"configuration": config.digest(), "target": config.data.target}
