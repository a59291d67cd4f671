"""Flower: SuperLink and SuperNodes carry the sealed files of `badmm.transports.files` between server and sites.

The server of a `ServerApp` sums in a folder of its own: what it would write for its sites is pushed to their SuperNodes
over the Grid, and their replies are put where sites would have written them. A `ClientApp` puts what came in a folder
of the site's, looks at it as a site of files does, and sends back what that wrote. So all rules of files hold: what is
refused, who is absent, what a site remembers, and that a question asked again gets the answer that it got. A node is
known by the name of its site, which it states itself; its number may change with every start.

Flower's telemetry is off where this module is imported before Flower.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message as FlowerMessage, RecordDict
from flwr.serverapp import Grid

from badmm.checks import RankError
from badmm.transports.atomic import write_atomic
from badmm.transports.files import FilesServer, FilesSite
from badmm.transports.files.precision import FULL
from badmm.transports.files.share import POLL, SUFFIX, Share, checked, numbered, write
from badmm.transports.messages import Message, Reply

JOIN, ANSWER = "query.join", "train.answer"
"""Flower's types of the two messages that a site is sent: who it is, and letters to answer."""
LETTERS, ABOUT = "letters", "about"
KEPT = 16
"""Letters of each kind that a site keeps: what a restarted server may ask again."""
FAREWELL = 30.0
"""Seconds for which the server waits until its sites know that the run is done."""


class FlowerServer(FilesServer):
    """The server of files on a folder of its own, whose letters Flower carries to the nodes of `grid`.

    resend: seconds after which a letter without a reply is sent again, as a node that was killed has lost it, and twice
    as many after each copy; a site answers a copy as it did. Other arguments as `FilesServer`.
    """

    def __init__(
        self,
        grid: Grid,
        folder: Path,
        sites: Iterable[str],
        *,
        deadline: float | None = None,
        minimum: int | None = None,
        outlier: float | None = None,
        bits: str = FULL,
        identity: Mapping[str, Any] | None = None,
        resume: bool = False,
        resend: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.grid, self.resend, self.pause = grid, resend, pause
        self.nodes: dict[str, int] = {}
        self._again: dict[tuple[int, int], tuple[float, float]] = {}
        """When a letter goes to a node again, and for how long it has waited until then."""
        self._underway: dict[str, int] = {}
        options: dict[str, Any] = {
            "deadline": deadline,
            "minimum": minimum,
            "outlier": outlier,
            "bits": bits,
            "resume": resume,
        }
        super().__init__(folder, sites, **options, identity=identity, clock=clock, wait=self._carry)
        self.run = _token(self.share.path / "run.json")

    def broadcast(self, message: Message) -> Message:
        """As with files; the last message is carried before the run ends."""
        found = super().broadcast(message)
        if message.kind == "done":
            began = self.clock()
            while self._unanswered() and self.clock() - began < FAREWELL:
                self._carry(POLL)
        return found

    def _carry(self, seconds: float) -> None:
        """Push what sites have to answer, fetch what they have answered, and wait."""
        present = set(self.grid.get_node_ids())
        self.nodes = {site: node for site, node in self.nodes.items() if node in present}
        sequence = self.share.newest()
        self._push([(node, 0) for node in sorted(present - set(self.nodes.values()))], {})
        if sequence:
            unanswered = [(self.nodes[site], sequence) for site in self._unanswered()]
            self._push(unanswered, self._letters(sequence))
        self._pull()
        self.pause(seconds)

    def _unanswered(self) -> list[str]:
        """The sites that are here and have not answered the newest message."""
        newest = self.share.newest()
        asked = self.sites if self._asked is None else self._members(self._asked)
        return [site for site in asked if site in self.nodes and not self.share.up(site, newest).exists()]

    def _letters(self, sequence: int) -> dict[str, bytes]:
        """The newest message, with the one before it: λ_g, for a site that was away; who takes part."""
        paths = [self.share.down(number) for number in (sequence - 1, sequence)]
        return {path.name: path.read_bytes() for path in (self.share.roster, *paths) if path.exists()}

    def _push(self, wanted: list[tuple[int, int]], letters: Mapping[str, bytes]) -> None:
        """Send letters to (node, number of the message), each again only after a while; number 0 asks who it is."""
        now = self.clock()
        due = [one for one in wanted if now >= self._again.get(one, (now, 0.0))[0]]
        if not due:
            return
        for one in due:  # a slow site is not buried in copies
            wait = 2.0 * self._again.get(one, (now, 0.5 * self.resend))[1]
            self._again[one] = now + wait, wait
        kind = ANSWER if letters else JOIN
        sent = [FlowerMessage(_packed(letters, run=self.run), node, kind, ttl=self.deadline) for node, _ in due]
        for identifier, (node, _) in zip(self.grid.push_messages(sent), due, strict=True):
            if identifier is not None:
                self._underway[identifier] = node

    def _pull(self) -> None:
        for reply in self.grid.pull_messages(list(self._underway)) if self._underway else ():
            node = self._underway.pop(reply.metadata.reply_to_message_id, None)
            if node is not None and reply.has_content():  # an error of Flower's is a reply that is lost
                self._take(node, *_unpacked(reply.content))

    def _take(self, node: int, letters: Mapping[str, bytes], about: Mapping[str, str]) -> None:
        """Put a site's letters where the server of files looks for them."""
        site = about.get("site", "")
        if site not in self.sites or self.nodes.setdefault(site, node) != node:
            return
        if "refusal" in about:
            raise RankError(f"site {site}: {about['refusal']}")
        for name, letter in letters.items():
            path = self.share.path / "up" / site / name
            if path == self.share.join(site) or path == self.share.up(site, self.share.newest()):
                write_atomic(path, letter)


class _Answered(Exception):
    """A site would wait here for the next message."""


def respond(
    message: FlowerMessage,
    context: Context,
    name: str,
    memory: Path,
    identity: Mapping[str, Any],
    follow: Callable[[FilesSite], Any],
) -> FlowerMessage:
    """The reply of site `name` to a message of `FlowerServer`.

    `follow` gives a site of files its clients: it calls `badmm.solve` with it. What the site remembers is in the folder
    `memory`, and in the context's state for a site that lost it.
    """

    def stop(_: float) -> None:
        raise _Answered

    letters, about = _unpacked(message.content)
    share = Share(Path(memory) / checked(about["run"]))
    share.make(name)
    for file, letter in letters.items():
        write_atomic(_place(share, file), letter)
    site = FilesSite(share.path, name, share.path, identity=identity, wait=stop)
    _restore(site.memory, context)
    newest = share.newest()
    with suppress(_Answered, RankError):  # what is wrong is in the letter
        follow(site)
        write(share.up(name, newest), name, newest, Reply(0, site.digest, 0))  # it knows that the run is done
    _remember(site.memory, context)
    path = share.up(name, newest) if share.roster.exists() else share.join(name)
    sent = {path.name: path.read_bytes()} if path.exists() else {}
    _prune(share, name)
    return FlowerMessage(_packed(sent, site=name), reply_to=message)


def refused(message: FlowerMessage, name: str) -> FlowerMessage:
    """The reply of a site that takes no part; why stays with the site."""
    return FlowerMessage(_packed({}, site=name, refusal="it refuses to take part"), reply_to=message)


def _packed(letters: Mapping[str, bytes], **about: str) -> RecordDict:
    """Letters as arrays of bytes, which Flower sends in pieces."""
    arrays = {name: Array(np.frombuffer(letter, dtype=np.uint8)) for name, letter in letters.items()}
    return RecordDict({LETTERS: ArrayRecord(arrays), ABOUT: ConfigRecord(dict(about))})


def _unpacked(content: RecordDict) -> tuple[dict[str, bytes], dict[str, str]]:
    arrays = {name: array.numpy().tobytes() for name, array in content.array_records[LETTERS].items()}
    return arrays, {key: str(value) for key, value in content.config_records[ABOUT].items()}


def _place(share: Share, name: str) -> Path:
    """Where a letter of the server's lies; ValueError for a name that none has."""
    if name == share.roster.name:
        return share.roster
    if not re.fullmatch(rf"[0-9]{{6,}}{re.escape(SUFFIX)}", name):
        raise ValueError(f"letter: expected the name of a message, got {name!r:.80}")
    return share.path / "down" / name


def _restore(path: Path, context: Context) -> None:
    """Write the site's memory where only the context still has it."""
    kept = context.state.array_records.get(path.name)
    if kept is not None and not path.exists():
        write_atomic(path, kept["memory"].numpy().tobytes())


def _remember(path: Path, context: Context) -> None:
    if path.exists():
        memory = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        context.state[path.name] = ArrayRecord({"memory": Array(memory)})


def _prune(share: Share, name: str) -> None:
    """Forget letters that no server will ask for again."""
    for folder in (share.path / "down", share.path / "up" / name):
        for number in numbered(folder)[:-KEPT]:
            (folder / f"{number:06d}{SUFFIX}").unlink(missing_ok=True)


def _token(path: Path) -> str:
    """What this run is called at its sites; a server that goes on has it in its folder."""
    if not path.exists():
        write_atomic(path, json.dumps({"run": secrets.token_hex(8)}).encode())
    return str(json.loads(path.read_bytes())["run"])
