"""The clients' side of an experiment: their data, the network they share, how they train, and one round's task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from badmm.networks.stacked import Stacked
from badmm.streams import Purpose, generator, torch_generator

_BLOCK = 256
"""Points at a time where a whole data set passes through the network."""
_EXAMPLES = 4
"""Points that a network's traits are found with."""


@dataclass(frozen=True)
class LocalSettings:
    """How a client trains in a round. `batch_size` None takes all its points at once; `clip` bounds the 2-norm of a
    step's gradient; `weight_decay` adds that multiple of the parameters to the gradient, as torch.optim does.

    `schedule` "cosine": lr · ½(1 + cos(π r/R)) in round r = 0..R−1.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 1e-3
    epochs: int = 1
    batch_size: int | None = 64
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None
    schedule: Literal["constant", "cosine"] = "constant"

    def decay(self, index: int, rounds: int) -> float:
        """The step size in round `index` of 0..rounds−1, as a part of that in round 0."""
        return 1.0 if self.schedule == "constant" else 0.5 * (1.0 + math.cos(math.pi * index / rounds))


@dataclass(frozen=True)
class ClientData:
    """Points of all clients: inputs (N, ...) as levels 0..`levels` or as floats (levels 1), targets (N, ...), and the
    row indices of each client. Inputs are gathered and scaled a batch at a time; with `levels` None (tokens) they stay
    as they are.
    """

    inputs: Tensor
    targets: Tensor
    rows: tuple[Tensor, ...]
    levels: int | None = 1

    def points(self, index: Tensor, dtype: torch.dtype, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs and targets at row indices of any shape; the inputs are best written into `out` where given."""
        flat = index.reshape(-1)
        rows = self.inputs.index_select(0, flat).view(*index.shape, *self.inputs.shape[1:])  # whole rows at a time
        kept = rows.dtype if self.levels is None else dtype
        x = rows.to(kept) if out is None else out.copy_(rows)
        if self.levels is not None and self.levels != 1:
            x /= self.levels
        return x, self.targets.index_select(0, flat).view(*index.shape, *self.targets.shape[1:])


@dataclass
class Tally:
    """Work done, in gradients of single points (a forward and a backward pass each)."""

    gradients: float = 0.0


class Federation:
    """K clients with sizes N_k and a network of P parameters; `seed` seeds their streams.

    The objective that methods without a prior minimise is the mean loss over all points, F = Σ_k w_k f_k/K, f_k the
    client's mean loss and w_k = K N_k/N its weight relative to the average client.
    """

    def __init__(
        self, data: ClientData, stack: Stacked, settings: LocalSettings, seed: int, dtype: torch.dtype
    ) -> None:
        self.data, self.stack, self.settings, self.seed, self.dtype = data, stack, settings, seed, dtype
        self.device = data.inputs.device
        self.counts = [len(rows) for rows in data.rows]
        if not self.counts or min(self.counts) < 1:
            raise ValueError(f"rows: expected at least one client and one point each, got sizes {self.counts}")
        self.sizes = torch.tensor(self.counts, dtype=dtype, device=self.device)
        shares = [len(self.counts) * count / sum(self.counts) for count in self.counts]  # exactly 1 for equal sizes
        self.weights = self.sizes.new_tensor(shares)
        self.example = self._example()
        self.draws = stack.traits(self.example).draws
        self.initial_buffers = stack.initial_buffers(self.example, dtype)

    def _example(self) -> Tensor:
        """Inputs of one client, the largest whose rows can be read: the others fail in their rounds, by name."""
        *others, smallest = sorted(range(len(self.counts)), key=lambda client: -self.counts[client])
        for client in others:
            with suppress(Exception):
                return self._inputs(client)
        return self._inputs(smallest)

    def _inputs(self, client: int) -> Tensor:
        return self.data.points(self.data.rows[client][:_EXAMPLES], self.dtype)[0]

    @property
    def num_clients(self) -> int:
        """K."""
        return len(self.counts)

    @property
    def num_parameters(self) -> int:
        """P."""
        return self.stack.size

    def batch(self, client: int) -> int:
        """Points in a client's minibatch; the last one of an epoch may have fewer."""
        return min(self.settings.batch_size or self.counts[client], self.counts[client])

    def steps(self, client: int) -> int:
        """Local steps of a client in a round."""
        return self.settings.epochs * math.ceil(self.counts[client] / self.batch(client))

    def stacks(self, clients: Sequence[int], largest: int) -> list[list[int]]:
        """Clients dealt to stacks of at most `largest` that train together, whose sizes differ by one at most.

        In a stack they are ordered by falling number of steps, so that those still active are a prefix.
        """
        ordered = sorted(clients, key=lambda client: (-self.steps(client), client))
        count = math.ceil(len(ordered) / largest)
        return [ordered[first::count] for first in range(count)]


@dataclass(frozen=True)
class Task:
    """One round's work of the clients `members` (by falling number of steps); every tensor it makes has k rows.

    `buffers` (k, B) are those that training changes; None for a network without.
    """

    federation: Federation
    members: list[int]
    round: int
    lr: float
    tally: Tally = field(default_factory=Tally)
    buffers: Tensor | None = None

    @property
    def index(self) -> Tensor:
        """The members as an index (k,)."""
        return torch.tensor(self.members, device=self.federation.device)

    @property
    def sizes(self) -> Tensor:
        """N_k, (k, 1)."""
        return self.federation.sizes[self.index].unsqueeze(1)

    @property
    def weights(self) -> Tensor:
        """w_k = K N_k/N, (k, 1)."""
        return self.federation.weights[self.index].unsqueeze(1)

    @property
    def steps(self) -> list[int]:
        """Local steps of each member."""
        return [self.federation.steps(client) for client in self.members]

    def generators(self, purpose: Purpose) -> list[torch.Generator]:
        """A generator a member, on the federation's device."""
        seed, device = self.federation.seed, self.federation.device
        return [torch_generator(seed, purpose, self.round, client, device=device) for client in self.members]

    def streams(self) -> list[np.random.Generator]:
        """Of each member, the seeds of its steps' random numbers; none where the network draws none."""
        seed = self.federation.seed
        members = self.members if self.federation.draws else []
        return [generator(seed, Purpose.DROPOUT, self.round, client) for client in members]

    def batches(self) -> tuple[Tensor, Tensor]:
        """Row indices and weights of every minibatch, (T, k, B) each; a padded place has weight 0.

        Every epoch of every client is a permutation from its own stream; weights are 1/(points in the batch).
        """
        federation, settings = self.federation, self.federation.settings
        longest = max(self.steps)
        width = max(federation.batch(client) for client in self.members)
        index = torch.zeros((longest, len(self.members), width), dtype=torch.long)
        weights = torch.zeros(index.shape, dtype=federation.dtype)
        for place, client in enumerate(self.members):
            count, size, rows = federation.counts[client], federation.batch(client), federation.data.rows[client].cpu()
            rng = generator(federation.seed, Purpose.ORDER, self.round, client)
            orders = torch.from_numpy(np.stack([rng.permutation(count) for _ in range(settings.epochs)]))
            padding = -count % size
            share = torch.full((count + padding,), 1.0 / size, dtype=weights.dtype)
            if padding:
                share[count - count % size :] = 1.0 / (count % size)
                share[count:] = 0.0
            index[:, place] = rows[0]
            parts = F.pad(rows[orders], (0, padding), value=int(rows[0])).view(-1, size)
            index[: len(parts), place, :size] = parts
            weights[: len(parts), place, :size] = share.view(-1, size).repeat(settings.epochs, 1)
        return index.to(federation.device), weights.to(federation.device)

    def full_gradient(self, flat: Tensor) -> Tensor:
        """∇f_k, the gradients of the members' mean losses over all their points, at rows (k, P), in evaluation mode."""
        federation, total, out = self.federation, torch.zeros_like(flat), torch.empty_like(flat[:1])
        each_buffers = [None] * len(flat) if self.buffers is None else self.buffers.split(1)
        own = zip(self.members, flat.split(1), each_buffers, total, strict=True)
        for client, row, buffers, found in own:
            for rows in federation.data.rows[client].split(_BLOCK):
                x, y = federation.data.points(rows.unsqueeze(0), federation.dtype)
                weights = flat.new_full((1, len(rows)), 1.0 / federation.counts[client])
                federation.stack.gradient(row, x, y, weights, out, buffers)
                found += out[0]
            self.tally.gradients += federation.counts[client]
        return total

    def curvature(self, flat: Tensor) -> Tensor:
        """The diagonal of the Gauss–Newton matrix of Σ_i ℓ_i over each member's points, at rows (k, P)."""
        federation, rows = self.federation, torch.empty_like(flat)
        for place, client in enumerate(self.members):
            rows[place] = 0
            buffers = None if self.buffers is None else self.buffers[place]
            for part in federation.data.rows[client].split(_BLOCK):
                x, y = federation.data.points(part, federation.dtype)
                rows[place] += federation.stack.curvature(flat[place], x, y, buffers)
            columns = federation.stack.outputs(flat[place], x[:1], buffers).numel()
            self.tally.gradients += federation.counts[client] * columns
        return rows
