"""One communication round: who takes part, stacks of clients trained, failed ones left out, the server line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from badmm.checks import ClientError
from badmm.federated.federation import Federation, Tally, Task
from badmm.federated.methods import Method, Reply, State
from badmm.federated.streams import Purpose, generator


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
    method: Method, federation: Federation, state: State, *, lr: float, largest: int = 8, fraction: float = 1.0
) -> Outcome:
    """Play round `state.round` and change `state` to what follows it; `largest` clients train together.

    A client that raises, or returns what is not finite or not usable by the method, is left out: it keeps its rows and
    its dual. ClientError where none is left.
    """
    outcome = Outcome(participants(federation, state.round, fraction), lr=lr)
    tally = Tally()
    sent: dict[str, dict[int, Tensor]] = {}
    losses: list[float] = []
    for members in federation.stacks(outcome.asked, largest):
        for task, reply in _attempt(method, state, Task(federation, members, state.round, lr, tally), outcome):
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
    outcome.events = method.server(state, federation, torch.tensor(outcome.used, device=federation.device), stacked)
    outcome.point_gradients, outcome.loss = tally.gradients, sum(losses) / len(losses)
    state.round += 1
    return outcome


def _attempt(method: Method, state: State, task: Task, outcome: Outcome) -> list[tuple[Task, Reply]]:
    """The replies of a stack; where it raises, of its halves, down to the client that does."""
    try:
        return [(task, method.client(state, task))]
    except Exception as error:
        if len(task.members) == 1:
            outcome.excluded[task.members[0]] = f"raised {type(error).__name__}: {error}"
            return []
    middle = len(task.members) // 2
    halves = (task.members[:middle], task.members[middle:])
    tasks = [Task(task.federation, members, task.round, task.lr, task.tally) for members in halves]
    return [pair for half in tasks for pair in _attempt(method, state, half, outcome)]


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
