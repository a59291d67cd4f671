"""Networks of equal architecture as rows of one buffer: parameters (k, P), evaluated and differentiated together.

Three ways lead to the same gradients. Chains of dense layers need no autograd (`dense`). On a GPU `torch.func.vmap`
turns k convolutions into one grouped convolution, and k dense layers into batched products, where the network allows it
(`traits`). Every other network is differentiated by autograd, one row after the other (`single`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from badmm.networks import dense, traits
from badmm.networks.losses import Loss
from badmm.networks.models import MLP
from badmm.networks.single import Single
from badmm.networks.traits import POLICIES, Policy, Traits

Gradient = Callable[..., Tensor]
"""(targets, weights, seeds) to the k sums; see `Stacked.bind`."""


class Stacked:
    """A module's trained parameters as flat vectors (P,) or rows (k, P), in the order of `named_parameters`.

    Frozen parameters (requires_grad=False) and buffers that training leaves alone are the module's own, the same for
    every row. Buffers that training changes are vectors (B,) or rows (k, B) beside the parameters, by a policy
    (`traits.Policy`). `autocast` is the type that `torch.autocast` computes passes in. Several threads may use one:
    each has a copy of the module. ValueError for a module without trained parameters.
    """

    def __init__(
        self, network: nn.Module, loss: Loss, buffers: Policy = "refuse", autocast: torch.dtype | None = None
    ) -> None:
        if buffers not in POLICIES:
            raise ValueError(f"buffers: expected one of {', '.join(POLICIES)}, got {buffers!r}")
        self.network, self.loss, self.policy, self.autocast = network, loss, buffers, autocast
        self._own, self._lock = threading.local(), threading.Lock()
        self._traits: Traits | None = None
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError("model: expected parameters to train, got none with requires_grad=True")
        self.names, self.shapes = list(trained), [p.shape for p in trained.values()]
        self.lengths = [p.numel() for p in trained.values()]
        self.size = sum(self.lengths)
        self._point_gradients = vmap(grad(self._directional), in_dims=(None, 0, 0))

    def initial(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """The network's own parameters as a new vector (P,)."""
        own = dict(self.network.named_parameters())
        whole = torch.cat([own[name].detach().reshape(-1) for name in self.names])
        return whole.to(dtype=dtype, device=device, copy=True)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Rows (..., P) as named parameters (..., *shape) that share their memory."""
        return _views(flat, self.names, self.shapes, self.lengths)

    def traits(self, x: Tensor) -> Traits:
        """What training does beside outputs, tried once on points x (n, ...), n ≥ 2 for batch normalisation.

        ValueError as `traits.find`, and for buffers that training changes where the policy is to refuse them.
        """
        with self._lock:
            if self._traits is None:
                found = Traits() if self._is_chain() else traits.find(self.network, self.names, x)
                if found.buffers and self.policy == "refuse":
                    raise ValueError(
                        f'model.buffers: expected "average" or "local" for what training changes beside parameters '
                        f'({", ".join(found.buffers)}), got "refuse"'
                    )
                self._traits = found
            return self._traits

    def initial_buffers(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The buffers that training changes as a new vector (B,), empty where it changes none; x as in `traits`."""
        own = [self.network.get_buffer(name).detach().reshape(-1) for name in self.traits(x).buffers]
        return torch.cat([part.to(dtype) for part in own]) if own else x.new_empty(0, dtype=dtype)

    def buffer_views(self, flat: Tensor | None) -> dict[str, Tensor]:
        """Rows (..., B) as named buffers that share their memory; none for None or B = 0."""
        if flat is None or not flat.shape[-1]:
            return {}
        names: tuple[str, ...] = self._traits.buffers if self._traits else ()
        shapes = [self.network.get_buffer(name).shape for name in names]
        return _views(flat, names, shapes, [shape.numel() for shape in shapes])

    def outputs(self, flat: Tensor, x: Tensor, buffers: Tensor | None = None) -> Tensor:
        """Outputs (N, ...) of one network, parameters (P,) and buffers (B,), in evaluation mode."""
        return self._single(x).outputs(list(self.views(flat).values()), self.buffer_views(buffers), x)

    def bind(
        self, flat: Tensor, x: Tensor, out: Tensor, buffers: Tensor | None = None, *, training: bool = True
    ) -> Gradient:
        """The gradients at parameters `flat` (k, P) and inputs `x` (k, N, ...), to be written into `out` (k, P).

        A function of targets (k, N, ...), weights (k, N) and, where the network draws, a seed for each row; it uses
        these tensors as they are when it is called, and returns the k sums Σ_n w_n ℓ_n. A weight of 0 takes a point
        out; where a row has such points they are its last ones. `x` must be contiguous; `out` may be `flat`, which then
        holds new parameters before the next call. `buffers` (k, B) are changed as training changes them.
        """
        found = self.traits(x[0])
        if self._is_chain():
            return self._chain(flat, x, out)
        if found.batched and self.autocast is None:
            return self._batched(flat, x, out)
        return self._one_by_one(flat, x, out, buffers, training)

    def gradient(
        self, flat: Tensor, x: Tensor, y: Tensor, weights: Tensor, out: Tensor, buffers: Tensor | None = None
    ) -> Tensor:
        """Write the gradients of Σ_n w_n ℓ_n into `out` (k, P); the k sums. In evaluation mode; see `bind`."""
        kept = None if buffers is None else buffers.clone()
        return self.bind(flat, x.contiguous(), out, kept, training=False)(y, weights)

    def curvature(
        self, flat: Tensor, x: Tensor, y: Tensor, buffers: Tensor | None = None, budget: int = 1 << 24
    ) -> Tensor:
        """The diagonal (P,) of the Gauss–Newton matrix Σ_n J_nᵀ ∇²ℓ_n J_n at one network's parameters (P,).

        Exact: with ∇²ℓ_n = L_n L_nᵀ it is Σ_n Σ_c (J_nᵀ L_n[:, c])², one backward pass for each point and column of L;
        at most `budget` numbers of such gradients are held at a time. The network is in evaluation mode.
        """
        total = torch.zeros_like(flat)
        outputs = self.outputs(flat, x, buffers)  # puts the buffers in place, too
        columns = self.loss.root(outputs, y).mT
        directions = columns.flatten(0, 1).view(-1, *outputs.shape[1:])
        repeated = x.unsqueeze(1).repeat_interleave(columns.shape[1], dim=1).flatten(0, 1)
        block, views = max(1, budget // self.size), self.views(flat.detach())
        for part, direction in zip(repeated.split(block), directions.split(block), strict=True):
            gradients = self._point_gradients(views, part, direction)
            total += torch.cat([g.square().sum(dim=0).reshape(-1) for g in gradients.values()])
        return total

    def _is_chain(self) -> bool:
        own = type(self.network)
        chain = isinstance(self.network, MLP) and own.forward is MLP.forward and self.autocast is None
        return chain and all(name.startswith("layers.") for name in self.names) and self._trains_all()

    def _trains_all(self) -> bool:
        return len(self.names) == len(list(self.network.parameters()))

    def _chain(self, flat: Tensor, x: Tensor, out: Tensor) -> Gradient:
        assert isinstance(self.network, MLP)
        layers, slopes = (self.network.chain(self.views(rows)) for rows in (flat, out))
        chain = dense.Chain(x.view(*x.shape[:2], -1), layers, self.network.activation, slopes)

        def gradient(y: Tensor, weights: Tensor, seeds: Sequence[int] = ()) -> Tensor:
            with torch.no_grad():
                values, slope = self._head(chain.forward(), y, weights)
                chain.backward(slope)
            return values

        return gradient

    def _batched(self, flat: Tensor, x: Tensor, out: Tensor) -> Gradient:
        network = self._single(x[0]).network.train()
        slopes = self.views(out)

        def call(own: Mapping[str, Tensor], x: Tensor) -> Tensor:
            result: Tensor = functional_call(network, dict(own), (x,))
            return result

        def gradient(y: Tensor, weights: Tensor, seeds: Sequence[int] = ()) -> Tensor:
            leaves = {name: value.detach().requires_grad_() for name, value in self.views(flat).items()}
            with torch.enable_grad():
                outputs = vmap(call)(leaves, x)
            values, slope = self._head(outputs.detach(), y, weights)
            found = torch.autograd.grad(outputs, list(leaves.values()), slope)
            for name, own in zip(leaves, found, strict=True):
                slopes[name].copy_(own)
            return values

        return gradient

    def _one_by_one(self, flat: Tensor, x: Tensor, out: Tensor, buffers: Tensor | None, training: bool) -> Gradient:
        single = self._single(x[0])
        rows, slopes = ([list(self.views(row).values()) for row in whole] for whole in (flat, out))
        kept = [self.buffer_views(None if buffers is None else buffers[k]) for k in range(len(rows))]

        def gradient(y: Tensor, weights: Tensor, seeds: Sequence[int] = ()) -> Tensor:
            totals = torch.zeros_like(weights[:, 0])
            for k, row in enumerate(rows):
                own = slice(int(weights[k].count_nonzero()))
                batch = x[k, own], y[k, own], weights[k, own]
                seed = seeds[k] if seeds else None
                totals[k] = single.gradient(row, kept[k], *batch, slopes[k], training=training, seed=seed)
            return totals

        return gradient

    def _head(self, outputs: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The k sums of outputs (k, N, ...), and their slope in the outputs."""
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            values = self.loss.points(leaf.flatten(0, 1), y.flatten(0, 1)).view(weights.shape)
            (slope,) = torch.autograd.grad(values, leaf, weights)
        return values.detach().mul_(weights).sum(dim=1), slope

    def _single(self, x: Tensor) -> Single:
        if not hasattr(self._own, "single"):
            self._own.single = Single(self.network, self.names, self.loss, self.traits(x), self.autocast)
        single: Single = self._own.single
        return single

    def _directional(self, parameters: dict[str, Tensor], x: Tensor, direction: Tensor) -> Tensor:
        network = self._single(x).network
        out: Tensor = functional_call(network, parameters, (x.unsqueeze(0),))
        return (out[0] * direction).sum()


def _views(
    flat: Tensor, names: Sequence[str], shapes: Sequence[torch.Size], lengths: Sequence[int]
) -> dict[str, Tensor]:
    lead = flat.shape[:-1]
    return {n: p.view((*lead, *s)) for n, p, s in zip(names, flat.split(lengths, dim=-1), shapes, strict=True)}
