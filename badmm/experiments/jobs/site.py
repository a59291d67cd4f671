"""A site's part in a study: what would leave it, in numbers; what it refuses; taking part.

`badmm check-site` plays one round with the site's clients alone and shows the replies that would be sent; nothing
leaves the process. `badmm site` takes part, after the same checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import badmm
from badmm.experiments import run
from badmm.experiments.config import SolverConfig, site as configuration
from badmm.experiments.config.site import Site
from badmm.experiments.config.toml import ConfigError
from badmm.experiments.engines import Engine, connect
from badmm.experiments.jobs.solver import SolverJob
from badmm.experiments.problems.solver import Problem
from badmm.transports import InProcess, Message, Reply
from badmm.transports.files import share
from badmm.transports.messages import joined


def load(path: Path, overrides: Iterable[str] = ()) -> tuple[Site, SolverConfig, Problem]:
    """A site's file, its study and its data; ConfigError or ValueError for what does not fit."""
    site, study = configuration.load(path, overrides)
    return site, study, SolverJob(study).problem


def take_part(path: Path, overrides: Iterable[str], out: Path | None, *, quiet: bool = False) -> None:
    """Answer the server of the site's share until it is done; ConfigError where the site refuses."""
    site, study, problem = load(path, overrides)
    refuse(site, problem)
    if site.share is None:
        raise ConfigError(f"{path}: share: expected the folder that the sites exchange files in, got none")
    options = {"share": Path(site.share), "party": site.name, "memory": Path(site.memory)}
    engine = connect("files", options, study, resume=False)
    with joined(engine.transport):
        folder = out or Path("runs") / study.name
        run.run(study, folder, console=run.console_for(quiet), engine=engine)


def refuse(site: Site, problem: Problem) -> None:
    """Raise ConfigError, in one line, with everything that the site refuses."""
    reasons = [reason for one in measured(site, problem) if (reason := one.refusal) is not None]
    if outside := _outside(site, problem):
        reasons.append(f"columns: expected none but those of refuse.allowed_columns, got {', '.join(outside)}")
    if reasons:
        raise ConfigError(f"site {site.name}: {'; '.join(reasons)}")


@dataclass(frozen=True)
class Measured:
    """A number of the site's beside its limit: `most` or `least` of it."""

    name: str
    value: float | None
    limit: float
    most: bool = False

    @property
    def refusal(self) -> str | None:
        """What is wrong with it; None where nothing is."""
        if self.value is None or (self.value <= self.limit if self.most else self.value >= self.limit):
            return None
        return f"{self.name}: expected at {self.bound}, got {self.value:.6g}"

    @property
    def bound(self) -> str:
        """The limit in words."""
        return f"{'most' if self.most else 'least'} {self.limit:g}"


def measured(site: Site, problem: Problem) -> list[Measured]:
    """What the site's limits are about."""
    limits, rows = site.refuse, sum(problem.rows.used.values())
    return [
        Measured("rows", rows, limits.minimum_rows),
        Measured("events", problem.events, limits.minimum_events),
        Measured("parameters per row", _parameters(problem) / rows, limits.maximum_parameters_per_row, most=True),
    ]


def _outside(site: Site, problem: Problem) -> list[str]:
    """The columns that are read and not allowed."""
    allowed = site.refuse.allowed_columns
    return [] if allowed is None else [name for name in problem.columns if name not in allowed]


def _parameters(problem: Problem) -> int:
    return int(problem.clients[0].dim)


class _Kept(InProcess):
    """Keeps the replies that would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: dict[str, Reply] = {}
        self._kind = "join"

    def broadcast(self, message: Message) -> Message:
        self._kind = message.kind
        return message

    def reduce(self, reply: Any) -> Reply:
        self.replies[self._kind] = reply
        return reply


def leaving(study: SolverConfig) -> Mapping[str, Reply]:
    """The replies of one round that is played here alone: "join" once, "measure" and "step" in every round."""
    kept = _Kept()
    job = SolverJob(study.model_copy(update={"run": study.run.model_copy(update={"rounds": 1})}), Engine(kept))
    badmm.solve(job.problem.clients, **job.arguments())
    return kept.replies


def report(path: Path, overrides: Iterable[str] = ()) -> str:
    """What would leave the site, in numbers; what it refuses is `refuse`'s."""
    site, study, problem = load(path, overrides)
    replies = leaving(study)
    size = {kind: len(share.sealed(site.name, 1, reply, answers="0" * 32)) for kind, reply in replies.items()}
    rounds, each = study.run.rounds, size["measure"] + size["step"]
    numbers = sum(int(np.size(array)) for array in replies["step"].sums.values())
    values = sum(problem.rows.used.values()) * len(problem.columns)
    lines = [
        f"site {site.name}, study {study.name}: nothing has left this site",
        "",
        f"read       {site.source}: {problem.rows}",
        f"columns    {', '.join(problem.columns)}: {'refused' if _outside(site, problem) else 'ok'}",
        *(_line(one, problem) for one in measured(site, problem)),
        "",
        f"would leave once: the name, {len(problem.clients)} as the number of clients, digests of the study and the "
        f"name of the target; {size['join']} bytes as a file",
        "would leave in every round:",
        *(
            _sent(name, reply, size[name])
            for name, reply in (("step", replies["step"]), ("measure", replies["measure"]))
        ),
        f"at most {rounds} rounds: {rounds * each + size['join']} bytes; {numbers} numbers per round about {values} "
        "values of the data",
    ]
    return "\n".join(lines)


def _line(one: Measured, problem: Problem) -> str:
    if one.value is None:
        return f"{one.name:10} none: {problem.config.likelihood.kind} has no events"
    counted = f" ({_parameters(problem)} parameters)" if one.most else ""
    return f"{one.name:10} {one.value:.6g}{counted}, at {one.bound}: {'refused' if one.refusal else 'ok'}"


def _sent(name: str, reply: Reply, size: int) -> str:
    arrays = [f"{key} {np.shape(array)} {array.dtype}, {array.nbytes} bytes" for key, array in reply.sums.items()]
    numbers = ", ".join(sorted({*reply.totals, *reply.maxima, *reply.minima}))
    return f"  {name:8} {'; '.join([*arrays, f'the numbers {numbers}'])}; {size} bytes as a file"
