"""A server and its sites of files in one process: every site looks at the folder while the server would wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import badmm
from badmm.transports.files import FilesServer, FilesSite
from badmm.transports.messages import Message, Reply

Spoil = Callable[[str, Message, Reply], Reply]


class WaitingError(Exception):
    """A site would wait here for the next message."""


class PolledSite(FilesSite):
    """A site that is polled; `spoil` is what it makes of its own replies."""

    spoil: Spoil | None = None

    def _act(self, message: Message) -> Reply:
        reply = super()._act(message)
        return reply if self.spoil is None else self.spoil(self.name, message, reply)


def play(
    folder: Path, own: Mapping[str, list[Any]], arguments: dict[str, Any], spoil: Spoil | None = None, **options: Any
) -> badmm.Result:
    """The server's result; `arguments` are those of `badmm.solve`, `options` those of `FilesServer`."""
    sites: dict[str, PolledSite] = {}

    def stop(_: float) -> None:
        raise WaitingError

    def begin(name: str) -> None:
        site = PolledSite(folder / "share", name, folder / name, wait=stop)
        site.spoil = spoil
        told = {key: value for key, value in arguments.items() if key not in ("state", "callbacks")}
        try:
            badmm.solve(own[name], transport=site, **told)
        except WaitingError:
            if site.population is not None:
                sites[name] = site

    def wait(_: float) -> None:
        for name in own:
            sites[name].poll() if name in sites else begin(name)

    server = FilesServer(folder / "share", list(own), wait=wait, **options)
    return badmm.solve([], transport=server, **arguments)
