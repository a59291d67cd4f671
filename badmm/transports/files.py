"""Files in a folder that both sides mount: for sites without an open port, where a person may look at what leaves.

The server has no clients. It writes a message, reads the sites' replies to it, and adds them up; what is late,
repeated, damaged, foreign or unusable is refused, logged with site and reason, and counts as absent. An absent site's
term in a sum is the last one that was accepted: its clients keep λ_k and η_k, so that nothing of it is lost (at α = 1 a
site that never answered counts as η_k = 0). Either side may be killed and started again: the server goes on from its
checkpoint, a site from its `memory`, and a question that was asked before gets the answer that it got.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from badmm.checks import ClientError, RankError
from badmm.transports import wire
from badmm.transports.atomic import remove_torn
from badmm.transports.messages import Message, Reply, combine, pack
from badmm.transports.sealed import load_tensors, save_tensors
from badmm.transports.share import Letter, Share, UnfitError, checked, content, read, write

SERVER = "server"
POLL = 0.2
"""Seconds between two looks at the folder."""
PATIENCE = 1.0
"""Seconds for which a file that does not fit may still be replaced: it may be on its way, or yesterday's."""


class FilesServer:
    """Rank 0: where the sums meet. `sites` in the order in which their clients are counted.

    deadline: seconds that a reply may take (None: any); minimum: replies without which a round ends the run (default:
    half of the sites). `identity`: what every site must state likewise, such as the names of the columns. resume: go on
    in a folder that a server has used before. `clock` and `wait` are for tests.
    """

    rank = 0

    def __init__(
        self,
        folder: Path,
        sites: Iterable[str],
        *,
        deadline: float | None = None,
        minimum: int | None = None,
        identity: Mapping[str, Any] | None = None,
        resume: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.sites = [checked(site) for site in sites]
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise ValueError(f"sites: expected at least one name, each once, got {self.sites}")
        self.share, self.deadline, self.identity = Share(folder), deadline, dict(identity or {})
        self.minimum = (len(self.sites) + 1) // 2 if minimum is None else minimum
        self.size = 1 + len(self.sites)
        self.clock, self.wait = clock, wait
        self.counts: dict[str, int] = {}
        self.screen: Callable[[Mapping[str, Any]], str | None] | None = None
        if self.share.newest() and not resume:
            raise ValueError(f"folder: expected one that no run has used (or resume), got {folder}")
        self.share.make(*self.sites)
        remove_torn(self.share.path / "down")
        self._asked: Message | None = None
        self._sequence = self.share.newest()
        self._last: dict[str, Reply] | None = None

    def broadcast(self, message: Message) -> Message:
        """Write it; that there are more sites learn from the next one."""
        if message.members is not None:
            raise ValueError("participation: expected 1 with files, where sites that are late are absent, got less")
        if message.kind != "more":
            if self._last is None:
                self._last = self._accepted_before(message.round)
            self._sequence += 1
            write(self.share.down(self._sequence), SERVER, self._sequence, message)
            self._asked = message
        return message

    def reduce(self, reply: Reply) -> Reply:
        """The sum over the sites, or before the first message who takes part."""
        return self._join(reply) if self._asked is None else self._collect(self._asked)

    def _join(self, reply: Reply) -> Reply:
        """Wait for every site, and tell all of them who takes part."""
        counts, waiting = np.asarray(reply.sums["clients"]).copy(), dict(enumerate(self.sites, start=1))
        while waiting:
            for rank, site in list(waiting.items()):
                found = self._read_join(site)
                if found is not None:
                    counts[rank] = self.counts[site] = found
                    del waiting[rank]
            if waiting:
                self.wait(POLL)
        joined = replace(reply, sums={"clients": counts})
        write(self.share.roster, SERVER, 0, joined, sites=json.dumps(self.sites))
        return joined

    def _read_join(self, site: str) -> int | None:
        path = self.share.join(site)
        if not path.exists():
            return None
        try:
            letter = read(path, "reply", site, 0)
        except UnfitError:
            return None  # on its way
        stated = json.loads(letter.extra["identity"])
        for key, wanted in self.identity.items():
            if stated.get(key) != wanted:
                raise RankError(f"site {site}: {key}: expected {wanted}, got {stated.get(key)}")
        return letter.reply().clients

    def _collect(self, message: Message) -> Reply:
        fresh: dict[str, Reply] = {}
        reasons: dict[str, str] = {}
        began, unfit = self.clock(), dict[str, float]()
        while len(fresh) + len(reasons) < len(self.sites):
            for site in self.sites:
                if site not in fresh and site not in reasons and self.share.up(site, self._sequence).exists():
                    self._look(site, message, fresh, reasons, unfit)
            late = self.deadline is not None and self.clock() - began > self.deadline
            if late:
                missing = [site for site in self.sites if site not in fresh and site not in reasons]
                reasons |= dict.fromkeys(missing, f"late: no reply within {self.deadline:g} s")
            elif len(fresh) + len(reasons) < len(self.sites):
                self.wait(POLL)
        self._screen(fresh, reasons)
        for site, reason in reasons.items():
            self._refuse(site, message.round, reason)
        if len(fresh) < self.minimum:
            raise RankError(
                f"sites: expected at least {self.minimum} replies in round {message.round}, got {len(fresh)}; "
                + "; ".join(f"{site}: {reason}" for site, reason in reasons.items())
            )
        return self._sum(message, fresh, reasons)

    def _look(
        self, site: str, message: Message, fresh: dict[str, Reply], reasons: dict[str, str], unfit: dict[str, float]
    ) -> None:
        """Take a reply, or refuse it where nothing better comes in a while."""
        try:
            fresh[site] = self._fit(read(self.share.up(site, self._sequence), "reply", site, self._sequence), message)
        except UnfitError as error:
            if self.clock() - unfit.setdefault(site, self.clock()) > PATIENCE:
                reasons[site] = str(error)

    def _fit(self, letter: Letter, message: Message) -> Reply:
        try:
            reply = letter.reply()
        except ValueError as error:
            raise UnfitError(f"damaged: {error}") from None
        if "fatal" in letter.extra:  # it will not be better in the next round
            raise RankError(f"site {letter.sender}: {letter.extra['error']}")
        if "error" in letter.extra:
            raise UnfitError(letter.extra["error"])
        if (reply.round, reply.digest) != (message.round, message.digest):
            raise UnfitError(
                f"foreign: expected round {message.round} of configuration {message.digest}, got round {reply.round} "
                f"of {reply.digest}"
            )
        forms = {name: np.shape(array) for name, array in reply.sums.items()}
        for known in (self._last or {}).values():
            wanted = {name: np.shape(array) for name, array in known.sums.items()}
            if reply.sums and forms != wanted:
                raise UnfitError(f"wrong shape: expected {wanted}, got {forms}")
        if not all(map(np.isfinite, reply.totals.values())) and message.kind == "step":
            raise UnfitError("not finite: a total")
        if letter.sender in self.counts and reply.clients != self.counts[letter.sender]:
            raise UnfitError(f"incomplete: expected {self.counts[letter.sender]} clients, got {reply.clients}")
        return reply

    def _screen(self, fresh: dict[str, Reply], reasons: dict[str, str]) -> None:
        """Refuse sites whose new terms alone, beside everyone's last accepted ones, make the sum unusable."""
        if self.screen is None or not any(one.sums for one in fresh.values()) or self.screen(self._sums(fresh)) is None:
            return
        for site, reply in list(fresh.items()):
            reason = self.screen(self._sums({site: reply}))
            if reason is not None:
                reasons[site] = f"outside the domain: {reason}"
                del fresh[site]

    def _sums(self, fresh: Mapping[str, Reply]) -> dict[str, Any]:
        """Sums over the sites in their order, with the last accepted terms of those that are absent."""
        last = self._last or {}
        terms = [fresh.get(site, last.get(site)) for site in self.sites]
        sums: dict[str, Any] = {}
        for term in terms:
            for name, array in ({} if term is None else term.sums).items():
                sums[name] = sums[name] + array if name in sums else np.array(array)
        return sums

    def _sum(self, message: Message, fresh: Mapping[str, Reply], reasons: Mapping[str, str]) -> Reply:
        found = combine(fresh[site] for site in self.sites if site in fresh)
        if not found.sums:
            return replace(found, failures={**found.failures, **self._absent(reasons)})
        sums = self._sums(fresh)
        self._last = {**(self._last or {}), **fresh}
        notes = [f"site {site} is absent: {reason}" for site, reason in reasons.items()]
        return replace(
            found, sums=sums, notes=(*found.notes, *notes), failures={**found.failures, **self._absent(reasons)}
        )

    def _absent(self, reasons: Mapping[str, str]) -> dict[int, str]:
        """The absent sites' clients, by index."""
        first, found = 0, dict[int, str]()
        for site in self.sites:
            if site in reasons:
                found |= dict.fromkeys(range(first, first + self.counts.get(site, 0)), reasons[site])
            first += self.counts.get(site, 0)
        return found

    def _refuse(self, site: str, index: int, reason: str) -> None:
        line = {"message": self._sequence, "round": index, "site": site, "reason": reason}
        with self.share.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _accepted_before(self, index: int) -> dict[str, Reply]:
        """The last usable terms of every site before round `index`, from the files that lie here: for a new server."""
        found: dict[str, Reply] = {}
        for site in self.sites:
            for sequence in reversed(self.share.replies(site)):
                try:
                    reply = read(self.share.up(site, sequence), "reply", site, sequence).reply()
                except ValueError:
                    continue
                if reply.sums and reply.round < index:
                    found[site] = reply
                    break
        return found


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
        self.population: Any = None
        self.digest = ""
        self._done = 0
        self._answers: dict[str, int] = {}

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

    def begin(self, population: Any, digest: str) -> None:
        """Take up what the site's memory holds, if anything."""
        self.population, self.digest = population, digest
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
                message = read(self.share.down(sequence), "message", SERVER, sequence).message()
            except UnfitError:
                if sequence == newest:
                    return None  # on its way
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
            self._take(sequence, message, current=sequence == newest)
            self._done = sequence
        return None

    def _take(self, sequence: int, message: Message, *, current: bool) -> None:
        key = content(message)
        if key in self._answers:
            self._repeat(sequence, self._answers[key], key, current)
        elif current:
            self._answer(sequence, message, key)
        elif message.kind == "measure":
            self._act(message)  # λ_g and mixing weights are needed, the answer is not

    def _answer(self, sequence: int, message: Message, key: str) -> None:
        try:
            reply = self._act(message)
        except ClientError as error:
            self._complain(sequence, message, f"failed: {error}")
            return
        if self.approve is not None and not self.approve(message, reply):
            self._complain(sequence, message, "not approved")
            return
        self._keep(sequence, message, reply, key)
        self._publish(sequence, reply, key)

    def _act(self, message: Message) -> Reply:
        weights = message.arrays.get("weights", ())
        if len(weights) > len(self.population.lines):  # a site that lost its memory keeps the duals that it has
            message = replace(message, arrays={k: v for k, v in message.arrays.items() if k != "weights"})
        found: Reply = self.population.answer(message)
        return found

    def _repeat(self, sequence: int, earlier: int, key: str, current: bool) -> None:
        if not current:
            return
        reply = read(self.share.up(self.name, earlier), "reply", self.name, earlier).reply()
        self._publish(sequence, reply, key)

    def _publish(self, sequence: int, reply: Reply, key: str) -> None:
        write(self.share.up(self.name, sequence), self.name, sequence, reply, answers=key)
        self._answers[key] = sequence

    def _complain(self, sequence: int, message: Message, reason: str, **extra: str) -> None:
        reply = Reply(message.round, self.digest, 0)
        write(self.share.up(self.name, sequence), self.name, sequence, reply, error=reason, **extra)

    def _keep(self, sequence: int, message: Message, reply: Reply, key: str) -> None:
        """The clients' state after a message, and the reply to it, on the site's own disk."""
        population = self.population
        groups = {"natural": population.natural, "duals": population.duals, "clients": population.clients}
        groups |= {f"line{i:03d}": line for i, line in enumerate(population.lines)}
        arrays = {f"{name}.{i}": slot for name, slots in groups.items() for i, slot in enumerate(slots)}
        arrays |= {f"reply.{name}": wire.host(array) for name, array in reply.sums.items()}
        header = {"reply": wire.encode(wire.header(reply)).decode(), "answers": key, "digest": self.digest}
        save_tensors(self.memory, arrays, {**header, "sequence": str(sequence), "kind": message.kind})

    def _recall(self) -> None:
        arrays, metadata = load_tensors(self.memory)
        if metadata.get("digest") != self.digest:
            raise ValueError(f"{self.memory}: expected the state of configuration {self.digest}, got another run's")

        def group(name: str) -> tuple[Any, ...]:
            return tuple(arrays[key] for key in sorted(k for k in arrays if k.startswith(f"{name}.")))

        lines = [group(name) for name in sorted({k.split(".")[0] for k in arrays if k.startswith("line")})]
        natural = group("natural")
        self.population.start(natural, group("duals"), group("clients"), lines)
        self._done, key = int(metadata["sequence"]), metadata["answers"]
        sums = {k.removeprefix("reply."): array for k, array in arrays.items() if k.startswith("reply.")}
        reply = wire.record(Reply, json.loads(metadata["reply"]), sums)
        if metadata["kind"] == "measure":  # what the clients found at λ_g is where their next step starts
            self._act(Message("measure", reply.round, self.digest, arrays={"natural": pack(natural)}))
        if key not in self._answers:
            self._publish(self._done, reply, key)
