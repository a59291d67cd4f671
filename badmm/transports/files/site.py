"""A site: its clients answer what the server asks, and remember on the site's own disk what they did."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from badmm.checks import RankError
from badmm.transports import wire
from badmm.transports.atomic import remove_torn
from badmm.transports.files.precision import FULL, Known, lowered, opened, raised
from badmm.transports.files.share import POLL, SERVER, Letter, Share, UnfitError, checked, content, read, write
from badmm.transports.messages import Message, Reply
from badmm.transports.sealed import load_tensors, save_tensors


class FilesSite:
    """A site: its clients answer what the server asks. `memory` is a folder of its own, outside the share.

    `solve` with this engine answers until the server is done. `approve`, where given, sees each reply before it leaves;
    where it returns False the site stays away from that round. `identity` as the server's.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        memory: Path,
        *,
        identity: Mapping[str, Any] | None = None,
        approve: Callable[[Message, Reply], bool] | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.share, self.name, self.identity = Share(folder), checked(name), dict(identity or {})
        self.memory = Path(memory) / f"{name}.safetensors"
        self.memory.parent.mkdir(parents=True, exist_ok=True)
        remove_torn(self.memory.parent)
        self.deadline: float | None = None
        self.approve, self.wait = approve, wait
        self.rank, self.size = 1, 2
        self.remembers = True
        self.population: Any = None
        self.answer: Callable[[Message], Reply] | None = None
        self.digest = ""
        self._done = 0
        self._answers: dict[str, int] = {}
        self._unmeasured: Message | None = None
        self._precision = FULL
        self._natural: Known | None = None
        self._sent: Known | None = None

    def broadcast(self, message: Message) -> Message:
        """A site follows; it sends no message."""
        raise RankError(f"site {self.name}: expected to follow a server, got a message to send")

    def reduce(self, reply: Reply) -> Reply:
        """Join the run: how many clients are here; returns who takes part, once the server has said so."""
        self.share.make(self.name)
        identity = json.dumps(self.identity, sort_keys=True)
        write(self.share.join(self.name), self.name, 0, reply, identity=identity)
        while True:
            try:
                letter = read(self.share.roster, "reply", SERVER, 0)
                sites = json.loads(letter.extra["sites"])
                break
            except UnfitError:
                self.wait(POLL)
        if self.name not in sites:
            raise RankError(f"site {self.name}: expected to be one of {', '.join(sites)}")
        self.rank, self.size = 1 + sites.index(self.name), 1 + len(sites)
        return letter.reply()

    def begin(self, population: Any, answer: Callable[[Message], Reply], digest: str) -> None:
        """Take up what the site's memory holds, if anything."""
        self.population, self.answer, self.digest = population, answer, digest
        for sequence in self.share.replies(self.name):
            try:
                letter = read(self.share.up(self.name, sequence), "reply", self.name, sequence)
            except UnfitError:
                continue
            if "answers" in letter.extra:
                self._answers[letter.extra["answers"]] = sequence
        if self.memory.exists():
            self._recall()

    def follow(self) -> Message:
        """Answer until the server is done; returns its last message."""
        while True:
            done = self.poll()
            if done is not None:
                return done
            self.wait(POLL)

    def poll(self) -> Message | None:
        """Answer the newest message, if it is new; the message that ends the run, else None."""
        newest = self.share.newest()
        for sequence in range(self._done + 1, newest + 1):
            try:
                letter = read(self.share.down(sequence), "message", SERVER, sequence)
            except UnfitError:
                if sequence == newest:
                    return None  # on its way
                continue
            message = self._hear(letter, current=sequence == newest)
            if message is None:
                self._done = sequence
                continue
            if message.digest != self.digest:
                why = f"configuration: expected the digest {message.digest}, got {self.digest}"
                self._complain(newest, message, why, fatal="yes")
                raise RankError(
                    f"message: expected the digest {self.digest} of site {self.name}'s configuration, got "
                    f"{message.digest}"
                )
            if message.kind == "done":
                if sequence == newest:
                    return message
                continue
            if self._is_asked(message):
                self._take(sequence, message, current=sequence == newest)
            self._done = sequence
        return None

    def _hear(self, letter: Letter, *, current: bool) -> Message | None:
        """The message of a letter; None where it is a difference to one that is not here."""
        try:
            message = opened(letter, self._natural).message()
        except UnfitError as error:
            if current:
                self._complain(letter.sequence, letter.message(), str(error))
            return None
        if "natural" in message.arrays:
            self._natural = Known(letter.sequence, {"natural": message.arrays["natural"]})
        in_full = self.name in json.loads(letter.extra.get("in_full", "[]"))
        self._precision = FULL if in_full else letter.extra.get("answer_in", FULL)
        return message

    def _is_asked(self, message: Message) -> bool:
        first, count = self.population.first, len(self.population)
        return message.members is None or any(first <= member < first + count for member in message.members)

    def _take(self, sequence: int, message: Message, *, current: bool) -> None:
        key = content(message)
        if key in self._answers:
            self._repeat(sequence, self._answers[key], key, current)
            if message.kind == "measure":
                # its weights were applied then; what clients found at its λ_g may be gone with the process that had it
                self._unmeasured = _without_weights(message)
        elif current:
            if message.kind == "step" and self._unmeasured is not None:
                self._act(self._unmeasured)
            self._answer(sequence, message, key)
        elif message.kind == "measure":
            self._act(message)  # λ_g and mixing weights are needed, the answer is not

    def _answer(self, sequence: int, message: Message, key: str) -> None:
        reply = self._act(message)
        if reply.failures:
            self._complain(sequence, message, "; ".join(f"client {k}: {why}" for k, why in reply.failures.items()))
            return
        if self.approve is not None and not self.approve(message, reply):
            self._complain(sequence, message, "not approved")
            return
        small, extra = lowered(reply.sums, self._precision, self._sent)
        sent, reply = replace(reply, sums=small), replace(reply, sums=raised(small, extra, self._sent))
        if reply.sums:
            self._sent = Known(sequence, reply.sums)
        self._keep(sequence, message, reply, key)
        self._publish(sequence, sent, key, **extra)

    def _act(self, message: Message) -> Reply:
        weights = message.arrays.get("weights", ())
        if len(weights) > len(self.population.lines):  # a site that lost its memory keeps the duals that it has
            message = _without_weights(message)
        if message.kind == "measure":
            self._unmeasured = None
        assert self.answer is not None
        return self.answer(message)

    def _repeat(self, sequence: int, earlier: int, key: str, current: bool) -> None:
        if not current:
            return
        letter = read(self.share.up(self.name, earlier), "reply", self.name, earlier)
        reply, known = letter.reply(), self._sent
        if "base" in letter.extra:
            if known is None or known.sequence != earlier:
                self._complain(sequence, letter.reply(), f"the answer {earlier} is no longer known in full")
                return
            reply = replace(reply, sums=known.arrays)
        if reply.sums:
            self._sent = Known(sequence, reply.sums)
        self._publish(sequence, reply, key)

    def _publish(self, sequence: int, reply: Reply, key: str, **extra: str) -> None:
        write(self.share.up(self.name, sequence), self.name, sequence, reply, answers=key, **extra)
        self._answers[key] = sequence

    def _complain(self, sequence: int, message: Message | Reply, reason: str, **extra: str) -> None:
        reply = Reply(message.round, self.digest, 0)
        write(self.share.up(self.name, sequence), self.name, sequence, reply, error=reason, **extra)

    def _keep(self, sequence: int, message: Message, reply: Reply, key: str) -> None:
        """The clients' state after a message, and the reply to it, on the site's own disk."""
        population = self.population
        groups = {"natural": population.natural, "duals": population.duals, "clients": population.clients}
        groups |= {f"line{i:03d}": line for i, line in enumerate(population.lines)}
        arrays = {f"{name}.{i}": slot for name, slots in groups.items() for i, slot in enumerate(slots)}
        if message.kind == "measure":
            arrays |= {f"asked.{name}": wire.host(array) for name, array in message.arrays.items() if name != "weights"}
        arrays |= {f"reply.{name}": wire.host(array) for name, array in reply.sums.items()}
        known = {"received": self._natural, "sent": self._sent}
        arrays |= {f"{key}.{name}": a for key, one in known.items() if one for name, a in one.arrays.items()}
        header = {"reply": wire.encode(wire.header(reply)).decode(), "answers": key, "digest": self.digest}
        header |= {key: str(one.sequence) for key, one in known.items() if one}
        save_tensors(self.memory, arrays, {**header, "sequence": str(sequence), "kind": message.kind})

    def _recall(self) -> None:
        arrays, metadata = load_tensors(self.memory)
        if metadata.get("digest") != self.digest:
            raise ValueError(f"{self.memory}: expected the state of configuration {self.digest}, got another run's")

        def group(name: str) -> tuple[Any, ...]:
            return tuple(arrays[key] for key in sorted(k for k in arrays if k.startswith(f"{name}.")))

        lines = [group(name) for name in sorted({k.split(".")[0] for k in arrays if k.startswith("line")})]
        self.population.start(group("natural"), group("duals"), group("clients"), (), lines)
        self._done, key = int(metadata["sequence"]), metadata["answers"]

        def named(prefix: str) -> dict[str, Any]:
            return {k.removeprefix(prefix): array for k, array in arrays.items() if k.startswith(prefix)}

        self._natural, self._sent = (
            Known(int(metadata[name]), named(f"{name}.")) if name in metadata else None for name in ("received", "sent")
        )
        reply = wire.record(Reply, json.loads(metadata["reply"]), named("reply."))
        if metadata["kind"] == "measure":  # what the clients found at λ_g is where their next step starts
            self._act(Message("measure", reply.round, self.digest, arrays=named("asked.")))
        if key not in self._answers:
            self._publish(self._done, reply, key)


def _without_weights(message: Message) -> Message:
    return replace(message, arrays={name: array for name, array in message.arrays.items() if name != "weights"})
