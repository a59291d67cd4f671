"""One communication round: who takes part, stacks of clients trained, failed ones left out, the server line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

import badmm_kernels
from badmm.checks import ClientError, ServerDomainError, positive_integer
from badmm.clients.federation import Federation, Task
from badmm.rounds.network_method import Method, Reply, State
from badmm.streams import Purpose, generator

PARTED = "stacks_trained_in_parts"
"""The event of a stack that raised though none of its clients does: memory, or an error of its own."""


@dataclass
class Outcome:
    """What happened in a round: who took part, who was left out and why, bytes, work, and the server's events.

    Bytes count the tensors as they are: down, what `Method.broadcast` names, to every client that was asked; up, what
    came from each client that was used. `loss` is the mean over clients of their minibatches' mean losses.
    """

    asked: list[int]
    used: list[int] = field(default_factory=list)
    excluded: dict[int, str] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    point_gradients: float = 0.0
    loss: float = float("nan")
    lr: float = 0.0


def participants(federation: Federation, index: int, fraction: float) -> list[int]:
    """The clients asked in round `index`: max(1, round(fraction · K)) at random from that round's stream, sorted."""
    count = max(1, round(fraction * federation.num_clients))
    if count == federation.num_clients:
        return list(range(count))
    rng = generator(federation.seed, Purpose.PARTICIPATION, index)
    return sorted(int(client) for client in rng.choice(federation.num_clients, count, replace=False))


def play(
    method: Method,
    federation: Federation,
    state: State,
    *,
    lr: float,
    largest: int = 8,
    fraction: float = 1.0,
    workers: int = 1,
) -> Outcome:
    """Play round `state.round` and change `state` to what follows it; at most `largest` clients train together.

    `workers` threads each train a stack at a time, every one of them on a single core, so that results do not depend on
    how many there are; on a GPU leave them at 1. A client that raises, or returns what is not finite or not usable by
    the method, is left out: it keeps its rows and its dual. ClientError where none is left,
    ServerDomainError where the kernels refuse the server's update.
    """
    positive_integer(workers, "workers")
    outcome = Outcome(participants(federation, state.round, fraction), lr=lr)
    tasks = [Task(federation, members, state.round, lr) for members in federation.stacks(outcome.asked, largest)]
    sent: dict[str, dict[int, Tensor]] = {}
    losses: list[float] = []
    parted = 0
    for attempt in _each(workers, lambda task: _attempt(method, state, task), tasks):
        outcome.excluded |= attempt.raised
        parted += attempt.parted
        for task, reply in attempt.replies:
            outcome.point_gradients += task.tally.gradients
            good = _screen(method, task, reply, outcome)
            for name, rows in reply.sent.items():
                sent.setdefault(name, {}).update((task.members[place], rows[place]) for place in good)
            _keep(state, task, reply, good)
            losses += [float(reply.losses[place]) for place in good]
            outcome.used += [task.members[place] for place in good]
    outcome.used.sort()
    if not outcome.used:
        client, reason = next(iter(outcome.excluded.items()))
        raise ClientError(client, f"no client could be used in round {state.round + 1}; this one: {reason}")
    stacked = {name: torch.stack([rows[client] for client in outcome.used]) for name, rows in sent.items()}
    outcome.bytes_up = sum(rows.nbytes for rows in stacked.values())
    outcome.bytes_down = len(outcome.asked) * sum(state.server[name].nbytes for name in method.broadcast)
    members = torch.tensor(outcome.used, device=federation.device)
    try:
        outcome.events = method.server(state, federation, members, stacked)
        _wait(federation.device)
    except ValueError as error:
        raise ServerDomainError(f"no server update in round {state.round + 1}: {error}") from error
    if parted:
        outcome.events = {**outcome.events, PARTED: parted}
    outcome.loss = sum(losses) / len(losses)
    state.round += 1
    return outcome


@dataclass
class _Attempt:
    """What became of a stack: replies, the clients that raised, and how many stacks did though none of theirs does."""

    replies: list[tuple[Task, Reply]] = field(default_factory=list)
    raised: dict[int, str] = field(default_factory=dict)
    parted: int = 0


def _attempt(method: Method, state: State, task: Task) -> _Attempt:
    """The reply of a stack; where it raises, those of its halves, down to the client that does."""
    try:
        reply = method.client(state, task)
        _wait(task.federation.device)
        return _Attempt([(task, reply)])
    except Exception as error:
        if len(task.members) == 1:
            return _Attempt(raised={task.members[0]: f"raised {type(error).__name__}: {error}"})
    middle, whole = len(task.members) // 2, _Attempt()
    for members in (task.members[:middle], task.members[middle:]):
        half = _attempt(method, state, Task(task.federation, members, task.round, task.lr))
        whole.replies += half.replies
        whole.raised |= half.raised
        whole.parted += half.parted
    if not whole.raised and not whole.parted:
        whole.parted = 1
    return whole


def _wait(device: torch.device) -> None:
    """Have a GPU's kernels tell now of values outside their domain, not in the work of whoever comes next."""
    if device.type == "cuda":
        badmm_kernels.synchronize(device.index)


def _each(workers: int, work: Callable[[Task], _Attempt], tasks: Sequence[Task]) -> Iterator[_Attempt]:
    """work(task) of every task in their order, by threads that use one core each."""

    def alone(task: Task) -> _Attempt:
        with badmm_kernels.single_threaded():
            return work(task)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if workers == 1:
            yield from map(alone, tasks)
            return
        with ThreadPoolExecutor(min(workers, len(tasks)), "clients", torch.set_num_threads, (1,)) as pool:
            yield from pool.map(alone, tasks)
    finally:
        torch.set_num_threads(before)


def _screen(method: Method, task: Task, reply: Reply, outcome: Outcome) -> list[int]:
    """Places of the clients that can be used; the others are noted."""
    finite = reply.finite()
    usable = finite & method.acceptable(reply)
    for place, client in enumerate(task.members):
        if not finite[place]:
            outcome.excluded[client] = "returned a value that is not finite"
        elif not usable[place]:
            outcome.excluded[client] = "returned a precision that is not positive"
    return usable.nonzero().flatten().tolist()


def _keep(state: State, task: Task, reply: Reply, good: Sequence[int]) -> None:
    index = torch.tensor([task.members[place] for place in good], dtype=torch.long, device=task.federation.device)
    for name, rows in reply.kept.items():
        state.clients[name][index] = rows[list(good)]
