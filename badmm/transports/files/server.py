"""Where the sums of files meet: each reply is looked at before it is added; who is absent keeps what it sent last."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from badmm.checks import RankError, positive_integer, positive_number
from badmm.transports.atomic import remove_torn
from badmm.transports.files import precision
from badmm.transports.files.precision import Known, lowered, opened, raised
from badmm.transports.files.share import POLL, SERVER, Letter, Share, UnfitError, checked, read, write
from badmm.transports.messages import Judge, Message, Reply, combine

PATIENCE = 1.0
"""Seconds for which a file that does not fit may still be replaced: it may be on its way, or yesterday's."""


class FilesServer:
    """Rank 0: where the sums meet. `sites` in the order in which their clients are counted.

    deadline: seconds that a reply may take (None: any); minimum: replies without which a round ends the run (default:
    half of the sites that are asked). `identity`: what every site must state likewise, such as the names of the
    columns. outlier: refuse a site whose term per client is more than so many times as long, in the Fisher metric at
    λ_g, as the median of the other sites' (None: believe every length). bits: the precision of what crosses, "float64",
    "float32" or "bfloat16" (`badmm.transports.files.precision`). resume: go on in a folder that a server has
    used before; with other sites than before those that are left out have left for good, and what they wrote is
    removed. `clock` and `wait` are for tests.
    """

    rank = 0
    remembers = True

    def __init__(
        self,
        folder: Path,
        sites: Iterable[str],
        *,
        deadline: float | None = None,
        minimum: int | None = None,
        outlier: float | None = None,
        bits: str = precision.FULL,
        identity: Mapping[str, Any] | None = None,
        resume: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.sites = [checked(site) for site in sites]
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise ValueError(f"sites: expected at least one name, each once, got {self.sites}")
        self.share, self.deadline, self.identity = Share(folder), deadline, dict(identity or {})
        self.minimum = None if minimum is None else positive_integer(minimum, "minimum")
        self.outlier = None if outlier is None else positive_number(outlier, "outlier")
        self.size = 1 + len(self.sites)
        self.clock, self.wait = clock, wait
        self.counts: dict[str, int] = {}
        self.precision = precision.checked(bits)
        self.judge: Judge | None = None
        if self.share.newest() and not resume:
            raise ValueError(f"folder: expected one that no run has used (or resume), got {folder}")
        self.share.keep_only(self.sites)
        self.share.make(*self.sites)
        remove_torn(self.share.path / "down")
        self._asked: Message | None = None
        self._sequence = self.share.newest()
        self._last: dict[str, Reply] | None = None
        self._last_at: dict[str, int] = {}
        self._natural: Known | None = None
        self._in_full = set(self.sites)
        """Sites of which the last term was not accepted, so that there is nothing to send differences to."""

    def broadcast(self, message: Message) -> Message:
        """Write it; that there are more sites learn from the next one."""
        if message.kind != "more":
            if self._last is None:
                self._last = self._accepted_before(message.round)
            self._sequence += 1
            self._write(message)
            self._asked = message
        return message

    def _write(self, message: Message) -> None:
        known = None if self._in_full or message.members is not None else self._natural
        small, extra = lowered(message.arrays, self.precision, known)
        stands_for = raised(small, extra, known)
        if extra and not (self.judge is not None and self.judge.inside(stands_for["natural"])):
            small, extra, stands_for = message.arrays, {}, message.arrays  # rounding has left the domain
        if "natural" in stands_for:
            self._natural = Known(self._sequence, {"natural": stands_for["natural"]})
        asks = {"answer_in": self.precision, "in_full": json.dumps(sorted(self._in_full))}
        sent = replace(message, arrays=small)
        write(self.share.down(self._sequence), SERVER, self._sequence, sent, **extra, **asks)

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

    def _members(self, message: Message) -> dict[str, int]:
        """How many clients of each site a message asks; only sites of which it asks some."""
        first, found = 0, dict[str, int]()
        for site in self.sites:
            own = range(first, first + self.counts.get(site, 0))
            asked = len(own) if message.members is None else sum(member in own for member in message.members)
            if asked or message.members is None:
                found[site] = asked
            first += len(own)
        return found

    def _collect(self, message: Message) -> Reply:
        fresh: dict[str, Reply] = {}
        reasons: dict[str, str] = {}
        began, unfit, asked = self.clock(), dict[str, float](), self._members(message)
        while missing := [site for site in asked if site not in fresh and site not in reasons]:
            for site in missing:
                if self.share.up(site, self._sequence).exists():
                    self._look(site, message, fresh, reasons, unfit)
            missing = [site for site in missing if site not in fresh and site not in reasons]
            if self.deadline is not None and self.clock() - began > self.deadline:
                reasons |= dict.fromkeys(missing, f"late: no reply within {self.deadline:g} s")
            elif missing:
                self.wait(POLL)
        self._screen(fresh, reasons)
        for site, reason in reasons.items():
            self._refuse(site, message.round, reason)
        least = (len(asked) + 1) // 2 if self.minimum is None else min(self.minimum, len(asked))
        if len(fresh) < least:
            raise RankError(
                f"sites: expected at least {least} replies in round {message.round}, got {len(fresh)}; "
                + "; ".join(f"{site}: {reason}" for site, reason in reasons.items())
            )
        return self._sum(message, fresh, reasons)

    def _look(
        self, site: str, message: Message, fresh: dict[str, Reply], reasons: dict[str, str], unfit: dict[str, float]
    ) -> None:
        """Take a reply, or refuse it where nothing better comes in a while."""
        try:
            letter = read(self.share.up(site, self._sequence), "reply", site, self._sequence)
            fresh[site] = self._fit(opened(letter, self._known(site)), message)
        except UnfitError as error:
            if self.clock() - unfit.setdefault(site, self.clock()) > PATIENCE:
                reasons[site] = str(error)

    def _known(self, site: str) -> Known | None:
        """The site's last term that was accepted."""
        if self._last is None or site not in self._last_at:
            return None
        return Known(self._last_at[site], self._last[site].sums)

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
        for name, array in reply.sums.items():
            if self.judge is not None and np.shape(array) != (self.judge.numbers,):
                wanted = (self.judge.numbers,)
                raise UnfitError(f"wrong shape: expected {name} of shape {wanted}, got {np.shape(array)}")
        if not all(map(np.isfinite, reply.totals.values())) and message.kind == "step":
            raise UnfitError("not finite: a total")
        if reply.clients != (expected := self._members(message)[letter.sender]):
            raise UnfitError(f"incomplete: expected {expected} clients, got {reply.clients}")
        return reply

    def _screen(self, fresh: dict[str, Reply], reasons: dict[str, str]) -> None:
        """Refuse sites whose new terms are outliers or, beside everyone's last accepted ones, make the sum unusable."""
        self._refuse_outliers(fresh, reasons)
        screen = None if self.judge is None else self.judge.screen
        if screen is None or not any(one.sums for one in fresh.values()) or screen(self._sums(fresh)) is None:
            return
        for site, reply in list(fresh.items()):
            reason = screen(self._sums({site: reply}))
            if reason is not None:
                reasons[site] = f"outside the domain: {reason}"
                del fresh[site]

    def _refuse_outliers(self, fresh: dict[str, Reply], reasons: dict[str, str]) -> None:
        terms = {site: one for site, one in ((self._last or {}) | fresh).items() if one.sums and site in self.counts}
        if self.outlier is None or self.judge is None or len(terms) < 3:  # two others that can be compared
            return
        lengths = {site: self.judge.length(one.sums) / self.counts[site] for site, one in terms.items()}
        for site in [site for site in fresh if site in lengths]:
            median = float(np.median([length for other, length in lengths.items() if other != site]))
            if lengths[site] > self.outlier * median:
                reasons[site] = (
                    f"outlier: its term is {lengths[site] / median:.3g} times as long as the median of the others', "
                    f"more than {self.outlier:g} times"
                )
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
        self._in_full |= set(reasons)
        if not found.sums:
            return replace(found, absent=self._absent(reasons))
        sums = self._sums(fresh)
        self._last = {**(self._last or {}), **fresh}
        self._last_at |= dict.fromkeys(fresh, self._sequence)
        self._in_full -= set(fresh)
        notes = [f"site {site} is absent: {reason}" for site, reason in reasons.items()]
        return replace(found, sums=sums, notes=(*found.notes, *notes), absent=self._absent(reasons))

    def _absent(self, reasons: Mapping[str, str]) -> dict[int, str]:
        """The clients of sites that are absent, by index."""
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
                    reply = self._stands_for(site, sequence).reply()
                except ValueError:
                    continue
                if reply.sums and reply.round < index:
                    found[site] = reply
                    break
        return found

    def _stands_for(self, site: str, sequence: int) -> Letter:
        """A site's letter with the arrays that it stands for, through all the letters that it is a difference to."""
        letters = [read(self.share.up(site, sequence), "reply", site, sequence)]
        while "base" in letters[-1].extra:
            base = int(letters[-1].extra["base"])
            if base >= letters[-1].sequence:
                raise UnfitError(f"base: expected an earlier letter than {letters[-1].sequence}, got {base}")
            letters.append(read(self.share.up(site, base), "reply", site, base))
        found = letters.pop()
        while letters:
            found = opened(letters.pop(), Known(found.sequence, found.arrays))
        return found
