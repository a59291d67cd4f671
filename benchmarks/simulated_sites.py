"""A server and four sites that exchange files, in one process with a clock of its own, and one fault that strikes them.

A deadline costs nothing here and a seed repeats a run. A party that dies is started again, as a person or an init
system would; a run that ends by name is started again with what is on the disks.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import badmm
from badmm import Gaussian
from badmm.checks import RankError
from badmm.likelihoods import LogisticRegression
from badmm.transports.files import FilesServer, FilesSite
from badmm.transports.messages import Message, Reply
from badmm.transports.sealed import load_tensors, save_tensors

SITES = ("north", "east", "south", "west")
DEADLINE = 5.0
TOLERANCE = 1e-9
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where the folders lie: in memory, so that flushing them costs nothing."""
SAME = 1e-7
"""Largest relative difference from the run without faults, whose own tolerance is in posterior standard deviations."""


class Death(BaseException):
    """A party's process is killed here."""


class NotYetError(Exception):
    """A site would wait here for the others."""


@dataclass
class Fault:
    """One fault: its kind, whom it strikes, at which of the party's messages (counted from 1)."""

    kind: str
    site: str
    at: int
    seed: int
    struck: bool = False


@dataclass
class Outcome:
    """What became of a run."""

    fault: Fault
    error: float
    rounds: int
    restarts: int
    refused: list[str] = field(default_factory=list)
    ended: str = ""

    @property
    def verdict(self) -> str:
        """The answer is right, or there is none and the run says why; anything else is WRONG."""
        if self.ended:
            return "ended by name"
        return "same posterior" if self.error <= SAME else "WRONG"


class ActedSite(FilesSite):
    """A site that a simulation polls, with a fault that may strike it."""

    def __init__(self, folder: Path, name: str, memory: Path, fault: Fault, identity: dict[str, Any]) -> None:
        def wait(seconds: float) -> None:
            raise NotYetError

        super().__init__(folder, name, memory, identity=identity, wait=wait)
        self.fault, self.count = fault, 0

    def follow(self) -> Message:
        raise NotYetError

    def strikes(self, *kinds: str) -> bool:
        """Whether the fault is one of these and strikes now; it strikes once."""
        fault = self.fault
        if fault.struck or fault.site != self.name or fault.kind not in kinds or self.count < fault.at:
            return False
        fault.struck = True
        return True

    def _act(self, message: Message) -> Reply:
        self.count += 1
        if self.strikes("site killed before it answers"):
            raise Death
        reply = super()._act(message)
        if self.strikes("site killed while it answers"):
            raise Death
        if message.kind == "step" and self.fault.kind in SPOILED and self.strikes(self.fault.kind):
            return replace(reply, sums={"contribution": SPOILED[self.fault.kind](reply.sums["contribution"])})
        return reply

    def _keep(self, sequence: int, message: Message, reply: Reply, key: str) -> None:
        if self.strikes("disk full at a site's memory"):
            raise OSError(errno.ENOSPC, "no space left on device")
        super()._keep(sequence, message, reply, key)
        if self.strikes("site killed before it sends"):
            raise Death
        if self.strikes("site loses its memory"):
            self.memory.unlink()
            raise Death

    def _publish(self, sequence: int, reply: Reply, key: str, **extra: str) -> None:
        if self.strikes("disk full at the share"):
            raise OSError(errno.ENOSPC, "no space left on device")
        if self.strikes("reply lost"):
            return
        super()._publish(sequence, reply, key, **extra)
        path = self.share.up(self.name, sequence)
        if self.strikes("site killed while it sends"):
            path.rename(path.with_name(f".{path.name}.ab12.tmp"))
            raise Death
        if self.strikes("site killed after it sent"):
            raise Death
        if self.strikes("reply sent twice"):
            path.write_bytes(path.read_bytes())
        if self.strikes("old reply under the next number"):
            self.share.up(self.name, sequence + 1).write_bytes(path.read_bytes())
            self.share.up(self.name, sequence + 2).write_bytes(path.read_bytes())
        if self.strikes("clock wrong"):
            os.utime(path, (0, 0) if self.fault.seed % 2 else (4e9, 4e9))
        if self.fault.kind in DAMAGED and self.strikes(self.fault.kind):
            path.write_bytes(DAMAGED[self.fault.kind](path.read_bytes(), np.random.default_rng(self.fault.seed)))


def _entry(array: Any, value: float) -> Any:
    spoiled = np.array(array)
    spoiled[len(spoiled) // 2] = value
    return spoiled


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(content)))
    return content[:place] + bytes([content[place] ^ (1 << int(rng.integers(8)))]) + content[place + 1 :]


SPOILED: dict[str, Callable[[Any], Any]] = {
    "NaN in a reply": lambda array: _entry(array, float("nan")),
    "infinity in a reply": lambda array: _entry(array, float("inf")),
    "poisoned: outside the domain": lambda array: -1e6 * np.ones_like(array),
    "poisoned: a thousandfold": lambda array: 1e3 * array,
    "wrong shape": lambda array: np.append(array, 0.0),
}
DAMAGED: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "reply truncated": lambda content, rng: content[: int(rng.integers(len(content)))],
    "reply with a flipped bit": _flip,
    "reply empty": lambda content, rng: b"",
    "reply of another program": lambda content, rng: b"\x80\x04\x95cos\nsystem\n" + content[:100],
}
TIMED = ("reply late", "replies in another order", "site away for three rounds")
AT_SITES = (
    "site killed before it answers",
    "site killed while it answers",
    "site killed before it sends",
    "site killed while it sends",
    "site killed after it sent",
    "site loses its memory",
    "disk full at a site's memory",
    "disk full at the share",
    "reply lost",
    "reply sent twice",
    "old reply under the next number",
    "clock wrong",
)
AT_SERVER = (
    "server killed between rounds",
    "server killed in a round",
    "server killed in a checkpoint",
    "server killed after a checkpoint",
    "disk full at a checkpoint",
    "disk full at a message",
    "message damaged on the disk",
)
AT_START = ("another configuration at a site", "another order of columns at a site", "a folder of a stranger")
KINDS = (*AT_SITES, *TIMED, *SPOILED, *DAMAGED, *AT_SERVER, *AT_START)


def clients() -> list[LogisticRegression]:
    """Six clients: north has three, the others one each."""
    rng = np.random.default_rng(11)
    theta = np.array([1.0, -0.7, 0.4])
    found = []
    for _ in SITES + SITES[:2]:
        X = rng.normal(size=(24, 3)) + 0.5 * rng.normal(size=3)
        found.append(LogisticRegression(X, (rng.random(24) < 1 / (1 + np.exp(-X @ theta))).astype(int)))
    return found


def _arguments() -> dict[str, Any]:
    prior = Gaussian(np.zeros(3), 1.0)
    return {"family": "full_gaussian", "prior": prior, "rounds": 60, "tol": TOLERANCE, "workers": 1}


@cache
def undisturbed() -> badmm.Result:
    """The run of one process."""
    return badmm.solve(clients(), **_arguments())


class Simulation:
    """A server and its sites on one folder, one fault."""

    def __init__(self, folder: Path, fault: Fault) -> None:
        self.folder, self.fault, self.now = folder, fault, 0.0
        everyone = clients()
        self.own = dict(zip(SITES, (everyone[:3], *([one] for one in everyone[3:])), strict=True))
        self.sites: dict[str, ActedSite] = {}
        self.away: dict[str, float] = {}
        self.restarts = 0
        self.checkpoint = folder / "server" / "state.safetensors"
        self.checkpoint.parent.mkdir()
        self.state: badmm.SolverState | None = None

    def wait(self, seconds: float) -> None:
        """What happens while the server waits: time passes and every site that is there looks at the folder."""
        self.now += seconds
        if self._server_strikes("server killed in a round"):
            raise Death
        for name in SITES:
            if self.now >= self.away.get(name, 0.0):
                self._visit(name)

    def _visit(self, name: str) -> None:
        try:
            if name not in self.sites:
                self._open(name)
            if name in self.sites:
                self._poll(self.sites[name])
        except (Death, OSError, RankError):
            self.sites.pop(name, None)
            self.restarts += 1
            self.away[name] = self.now + 0.5 * DEADLINE * (self.fault.seed % 4)

    def _poll(self, site: ActedSite) -> None:
        if self.fault.kind in TIMED and site.share.newest() > site._done and site.strikes(self.fault.kind):
            pause = {"reply late": 1.2, "replies in another order": 0.4, "site away for three rounds": 6.5}
            self.away[site.name] = self.now + pause[self.fault.kind] * DEADLINE
            return
        site.poll()
        site.count += self.fault.kind in TIMED

    def _open(self, name: str) -> None:
        """Start a site's process; it waits where the others are not ready."""
        identity: dict[str, Any] = {"columns": ["age", "dose", "weight"]}
        arguments = _arguments()
        fault = self.fault
        if fault.site == name and fault.kind in AT_START:  # nobody mends it while the run lasts
            fault.struck = True
            if fault.kind == "another configuration at a site":
                arguments["temperature"] = 2.0
            if fault.kind == "another order of columns at a site":
                identity = {"columns": ["dose", "age", "weight"]}
        site = ActedSite(self.folder / "share", name, self.folder / name, fault, identity)
        try:
            badmm.solve(self.own[name], transport=site, **arguments)
        except NotYetError:
            if site.population is not None:
                self.sites[name] = site

    def _server_strikes(self, kind: str) -> bool:
        fault = self.fault
        started = self.state is not None and self.state.round >= fault.at
        if fault.struck or fault.kind != kind or not started:
            return False
        fault.struck = True
        return True

    def after(self, state: badmm.SolverState) -> None:
        """What the server does after a round: a checkpoint."""
        self.state = state
        if self._server_strikes("server killed between rounds"):
            raise Death
        if self._server_strikes("disk full at a checkpoint"):
            raise OSError(errno.ENOSPC, "no space left on device")
        arrays, metadata = state.to_arrays()
        torn = self._server_strikes("server killed in a checkpoint")
        write = os.replace
        try:
            if torn:
                os.replace = _die  # type: ignore[assignment]
            save_tensors(self.checkpoint, arrays, {"state": json.dumps(metadata)})
        finally:
            os.replace = write
        if self._server_strikes("server killed after a checkpoint"):
            raise Death

    def serve(self, *, resume: bool) -> badmm.Result:
        """One life of the server's process."""
        server = _Server(self, resume)
        state = None
        if self.checkpoint.exists():
            arrays, metadata = load_tensors(self.checkpoint)
            state = badmm.SolverState.from_arrays(arrays, json.loads(metadata["state"]))
        return badmm.solve([], transport=server, state=state, callbacks=[self.after], **_arguments())

    def run(self) -> Outcome:
        """Until the server has an answer, or has ended by name three times."""
        if self.fault.kind == "a folder of a stranger":
            stranger = self.folder / "share" / "up" / "nobody"
            stranger.mkdir(parents=True)
            (stranger / "000003.safetensors").write_bytes(b"let me in")
            self.fault.struck = True
        ended, result = "", None
        for life in range(3):
            try:
                result, ended = self.serve(resume=life > 0), ""
                break
            except (Death, OSError):
                self.restarts += 1
            except RankError as error:
                ended = str(error)
                self.restarts += 1
        log = self.folder / "share" / "refused.jsonl"
        refused = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        if result is None:
            return Outcome(self.fault, float("nan"), 0, self.restarts, refused, ended)
        right = undisturbed().natural
        pairs = zip(result.natural, right, strict=True)
        away = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
        if not result.converged:
            ended = result.reason
        return Outcome(self.fault, away, result.rounds, self.restarts, refused, ended)


class _Server(FilesServer):
    """The server of a simulation."""

    def __init__(self, simulation: Simulation, resume: bool) -> None:
        self.simulation = simulation
        folder = simulation.folder / "share"
        columns = {"columns": ["age", "dose", "weight"]}
        clock, wait = (lambda: simulation.now), simulation.wait
        super().__init__(folder, SITES, deadline=DEADLINE, identity=columns, resume=resume, clock=clock, wait=wait)

    def broadcast(self, message: Message) -> Message:
        strikes = self.simulation._server_strikes
        if message.kind != "more" and strikes("disk full at a message"):
            raise OSError(errno.ENOSPC, "no space left on device")
        found = super().broadcast(message)
        if message.kind in ("step", "measure") and strikes("message damaged on the disk"):
            path = self.share.down(self._sequence)
            path.write_bytes(_flip(path.read_bytes(), np.random.default_rng(self.simulation.fault.seed)))
        return found


def _die(*_: Any) -> None:
    raise Death


def play(kind: str, seed: int) -> Outcome:
    """One run with a fault of this kind; the seed says whom it strikes and when."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    # a message in the first five rounds, and of the server one of the first four rounds
    at = int(rng.integers(1, 10)) if kind not in AT_SERVER else int(rng.integers(1, 5))
    fault = Fault(kind, SITES[int(rng.integers(len(SITES)))], at, seed)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        return Simulation(Path(folder), fault).run()
