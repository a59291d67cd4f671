"""The folder that a server and its sites exchange files in: names, headers that a person can read, and what is refused.

    roster.safetensors                who takes part, in order, and how many clients each has
    down/000007.safetensors           the server's message 7
    up/SITE/join.safetensors          a site that wants to take part
    up/SITE/000007.safetensors        its reply to message 7
    refused.jsonl                     every file that the server refused: message, round, site, reason

Each file is sealed (`badmm.transports.sealed`): a JSON header first, the arrays after it, a SHA-256 over all. A file is
written under a temporary name and renamed, so that nobody reads half of one where the file system renames at once.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from badmm.transports import wire
from badmm.transports.atomic import write_atomic
from badmm.transports.messages import Message, Reply, digest
from badmm.transports.sealed import load_tensors, sealed_bytes

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SUFFIX = ".safetensors"
FORMAT = "1"
SERVER = "server"
POLL = 0.2
"""Seconds between two looks at the folder."""


class UnfitError(ValueError):
    """A file that is not what its place in the folder says; the message is the reason."""


@dataclass(frozen=True)
class Letter:
    """One file: who wrote it, the number of the message that it is or answers, its header and arrays."""

    sender: str
    sequence: int
    header: Mapping[str, Any]
    arrays: Mapping[str, Any]
    extra: Mapping[str, str]

    def message(self) -> Message:
        """The message that it holds."""
        return wire.record(Message, self.header, self.arrays)

    def reply(self) -> Reply:
        """The reply that it holds."""
        return wire.record(Reply, self.header, self.arrays)


class Share:
    """The folder at `path`; `make` creates what is missing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.roster, self.log = self.path / f"roster{SUFFIX}", self.path / "refused.jsonl"

    def make(self, *sites: str) -> None:
        """The folders for these sites."""
        for folder in ("down", *(f"up/{checked(site)}" for site in sites)):
            (self.path / folder).mkdir(parents=True, exist_ok=True)

    def keep_only(self, sites: Sequence[str]) -> None:
        """Remove what sites wrote that took part before and do not now; the roster too, which they are still in."""
        try:
            before = json.loads(read(self.roster, "reply", SERVER, 0).extra["sites"])
        except (UnfitError, KeyError):
            return
        if before != list(sites):
            self.roster.unlink()
        for site in set(before) - set(sites):
            shutil.rmtree(self.path / "up" / checked(site), ignore_errors=True)

    def down(self, sequence: int) -> Path:
        """Where a message lies."""
        return self.path / "down" / f"{sequence:06d}{SUFFIX}"

    def up(self, site: str, sequence: int) -> Path:
        """Where a site's reply to it lies."""
        return self.path / "up" / site / f"{sequence:06d}{SUFFIX}"

    def join(self, site: str) -> Path:
        """Where a site says that it wants to take part."""
        return self.path / "up" / site / f"join{SUFFIX}"

    def newest(self) -> int:
        """The number of the newest message, 0 where there is none."""
        return max(numbered(self.path / "down"), default=0)

    def replies(self, site: str) -> list[int]:
        """The numbers of a site's replies, in order."""
        return numbered(self.path / "up" / site)


def checked(site: str) -> str:
    """A site's name, which is a folder's name too."""
    if not isinstance(site, str) or not NAME.fullmatch(site):
        raise ValueError(f"site: expected a name of letters, digits and . _ -, got {site!r:.80}")
    return site


def numbered(folder: Path) -> list[int]:
    """The numbers of the files in a folder that are named by one."""
    names = (path.name.removesuffix(SUFFIX) for path in folder.glob(f"[0-9]*{SUFFIX}"))
    return sorted(int(name) for name in names if name.isdigit())


def sealed(sender: str, sequence: int, record: Message | Reply, **extra: str) -> bytes:
    """A message or a reply as the bytes of a sealed file."""
    table = wire.header(record)
    field = record.arrays if isinstance(record, Message) else record.sums
    header = {
        "badmm": FORMAT,
        "sender": sender,
        "sequence": str(sequence),
        "kind": type(record).__name__.lower(),
        "header": wire.encode(table).decode(),
        **extra,
    }
    return sealed_bytes({name: wire.host(array) for name, array in field.items()}, header)


def write(path: Path, sender: str, sequence: int, record: Message | Reply, **extra: str) -> None:
    """Write a message or a reply as a sealed file."""
    write_atomic(path, sealed(sender, sequence, record, **extra))


def read(path: Path, kind: str, sender: str, sequence: int) -> Letter:
    """Read what `write` wrote in this place; `UnfitError` with the reason for anything else."""
    try:
        arrays, metadata = load_tensors(path)
        table = json.loads(metadata["header"])
        found = metadata["badmm"], metadata["kind"], metadata["sender"], metadata["sequence"]
        shapes = {name: tuple(shape) for name, (_, shape) in table["arrays"].items()}
        arrays = {name: array.reshape(shapes[name]) for name, array in arrays.items()}
    except (KeyError, TypeError, ValueError, OSError, AttributeError) as error:
        raise UnfitError(f"damaged: {str(error).rpartition(': expected ')[2] or error!r}") from None
    wanted = (FORMAT, kind, sender, str(sequence))
    if found != wanted:
        raise UnfitError(f"misplaced: expected {' '.join(wanted[1:])}, got {' '.join(found[1:])}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UnfitError(f"not finite: {name} has {int((~np.isfinite(array)).sum())} such numbers")
    return Letter(sender, sequence, table, arrays, metadata)


def content(message: Message) -> str:
    """What a message asks, whatever its number: a site that is asked again answers as it did.

    Mixing weights are left out: they say how the duals became what they are, and hold once.
    """
    found = hashlib.sha256(digest([message.kind, message.round, message.digest, dict(message.numbers)]).encode())
    for name, array in sorted(message.arrays.items()):
        if name != "weights":
            found.update(f"{name} {np.shape(array)}".encode())
            found.update(wire.host(array).data)
    return found.hexdigest()[:32]
