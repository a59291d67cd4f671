"""The networks' clients in one process: their rows, their local training in stacks, and their answer to a message.

"step"     down: what `NetworkMethod.broadcast` names      up: the method's sums over the clients that could be used
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

import badmm_kernels
from badmm.checks import ClientError
from badmm.clients.federation import Federation, Task
from badmm.rounds import network_buffers as buffers
from badmm.rounds.loop import Deadline
from badmm.rounds.network_method import NetworkMethod, Reply, State, Tensors
from badmm.rounds.workers import Workers
from badmm.transports import messages
from badmm.transports.messages import Message


@dataclass
class Attempt:
    """What became of a stack: replies, the clients that raised, and how many stacks raised though no client does."""

    replies: list[tuple[Task, Reply]] = field(default_factory=list)
    raised: dict[int, str] = field(default_factory=dict)
    split: int = 0


@dataclass
class _Gathered:
    """A round's usable rows by client, and what the round's reply says beside their sums."""

    rows: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    gradients: float = 0.0
    split: int = 0


class NetworkClients:
    """The clients `here` of all K, whose rows (K, ...) are in `known`, trained at most `largest` together.

    `lr` is the round's step size. A client that raises, is late, or returns what is not finite or not usable by the
    method, is left out: it keeps its rows. The rows are changed in place.
    """

    def __init__(
        self,
        method: NetworkMethod,
        federation: Federation,
        known: State,
        lr: float,
        largest: int,
        workers: Workers,
        here: range,
    ) -> None:
        self.method, self.federation, self.clients, self.here = method, federation, known.clients, here
        # the network's initialisation is everybody's from the start: it follows from the seed
        self.initial = {name: known.server[name] for name in ("initial",) if name in known.server}
        self.lr, self.largest, self.workers = lr, largest, workers
        self.errors: dict[int, ClientError] = {}

    def answer(self, message: Message, deadline: Deadline) -> messages.Reply:
        """Train the members that are here and add up what they send."""
        federation = self.federation
        asked = [client for client in self.here if message.members is None or client in message.members]
        received = {name: torch.as_tensor(array, device=federation.device) for name, array in message.arrays.items()}
        state = State(self.initial | received, self.clients, message.round)
        tasks = [
            Task(federation, members, message.round, self.lr) for members in federation.stacks(asked, self.largest)
        ]
        gathered = _Gathered()
        # replies are taken in as they come, so that only the stacks in training hold more than they send
        for attempt in self.workers.each(lambda task: train_stack(self.method, state, task, deadline), tasks):
            self._take(attempt, gathered)
        used = sorted(gathered.used)
        totals = {"loss": sum(gathered.losses), "gradients": gathered.gradients, "split": float(gathered.split)}
        sums: Tensors = {}
        size = None
        if used:
            sent = {name: torch.stack([rows[k] for k in used]) for name, rows in gathered.rows.items()}
            size = sum(rows[0].nbytes for rows in sent.values())
            members = torch.tensor(used, device=federation.device)
            running = sent.pop(buffers.NAME, None)
            sums = self.method.reduce(state, federation, members, sent)
            if running is not None:
                sums[buffers.NAME] = buffers.reduce(federation, members, running)
        return messages.Reply(
            message.round,
            message.digest,
            len(used),
            sums=sums,
            totals=totals,
            failures=gathered.failures,
            client_nbytes=size,
        )

    def _take(self, attempt: Attempt, gathered: _Gathered) -> None:
        gathered.failures |= attempt.raised
        gathered.split += attempt.split
        for task, reply in attempt.replies:
            gathered.gradients += task.tally.gradients
            good = self._screen(task, reply, gathered.failures)
            for name, rows in reply.sent.items():
                gathered.rows.setdefault(name, {}).update((task.members[place], rows[place]) for place in good)
            self._keep(task, reply, good)
            gathered.losses += [float(reply.losses[place]) for place in good]
            gathered.used += [task.members[place] for place in good]

    def _screen(self, task: Task, reply: Reply, failures: dict[int, str]) -> list[int]:
        """Places of the clients that can be used; the others are noted."""
        finite = reply.finite()
        usable = finite & self.method.acceptable(reply)
        for place, client in enumerate(task.members):
            if not finite[place]:
                failures[client] = "returned a value that is not finite"
            elif not usable[place]:
                failures[client] = "returned a precision that is not positive"
        return usable.nonzero().flatten().tolist()

    def _keep(self, task: Task, reply: Reply, good: Sequence[int]) -> None:
        index = task.index[list(good)]
        for name, rows in reply.kept.items():
            self.clients[name][index] = rows[list(good)]


def train_stack(method: NetworkMethod, state: State, task: Task, deadline: Deadline) -> Attempt:
    """The reply of a stack; where it raises, those of its halves, down to the client that does."""
    if deadline.missed() is None:
        try:
            reply = method.client(state, task)
            raise_pending(task.federation.device)
        except Exception as error:
            if len(task.members) > 1:
                return _train_halves(method, state, task, deadline)
            return Attempt(raised={task.members[0]: f"raised {type(error).__name__}: {error}"})
    late = deadline.missed()
    return Attempt([(task, reply)]) if late is None else Attempt(raised=dict.fromkeys(task.members, late))


def _train_halves(method: NetworkMethod, state: State, task: Task, deadline: Deadline) -> Attempt:
    middle, whole = len(task.members) // 2, Attempt()
    for members in (task.members[:middle], task.members[middle:]):
        half = train_stack(method, state, Task(task.federation, members, task.round, task.lr), deadline)
        whole.replies += half.replies
        whole.raised |= half.raised
        whole.split += half.split
    if not whole.raised and not whole.split:
        whole.split = 1
    return whole


def raise_pending(device: torch.device) -> None:
    """Raise pending GPU domain errors, so that they name the client whose work met them."""
    if device.type == "cuda":
        badmm_kernels.synchronize(device.index)
