"""Networks of equal architecture as rows of one buffer: parameters (k, P), evaluated and differentiated together.

`Network.stacked` turns k convolutions into one grouped convolution, and k dense layers into batched products; where a
network is a chain of dense layers its gradients need no autograd (`dense`). The sum of the k losses has every network's
own gradient in that network's row.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from badmm.networks.losses import Loss
from badmm.networks.models import Network

Gradient = Callable[..., Tensor]
"""(targets, weights, masks) to the k sums; see `Stacked.bind`."""


class Stacked:
    """A network's parameters as flat vectors (P,) or rows (k, P), in the order of `named_parameters`.

    Several threads may use one: `functional_call` puts parameters into a module, so that each thread has a copy.
    """

    def __init__(self, network: Network, loss: Loss) -> None:
        self.network, self.loss = network, loss
        self._own = threading.local()
        self.names = [name for name, _ in network.named_parameters()]
        self.shapes = [parameter.shape for parameter in network.parameters()]
        self.lengths = [parameter.numel() for parameter in network.parameters()]
        self.size = sum(self.lengths)
        self._point_gradients = vmap(grad(self._directional), in_dims=(None, 0, 0, None))

    def initial(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """The network's own parameters as a new vector (P,)."""
        whole = torch.cat([parameter.detach().reshape(-1) for parameter in self.network.parameters()])
        return whole.to(dtype=dtype, device=device, copy=True)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Rows (..., P) as named parameters (..., *shape) that share their memory."""
        parts = flat.split(self.lengths, dim=-1)
        lead = flat.shape[:-1]
        return {n: p.view(*lead, *s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}

    def outputs(self, flat: Tensor, x: Tensor) -> Tensor:
        """Outputs (N, C) of one network, parameters (P,), without dropout."""
        return self._thread_network().stacked(self.views(flat.unsqueeze(0)), x.unsqueeze(0))[0]

    def bind(self, flat: Tensor, x: Tensor, out: Tensor) -> Gradient:
        """The gradients at parameters `flat` (k, P) and inputs `x` (k, B, ...), to be written into `out` (k, P): a
        function of targets and weights (k, B) and masks that uses these tensors as they are when it is called. `x` must
        be contiguous; `out` may be `flat`, which then holds new parameters before the next call.
        """
        run = self._thread_network().stacked_gradient(self.views(flat), x, self.views(out))

        def gradient(y: Tensor, weights: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
            def head(outputs: Tensor) -> tuple[Tensor, Tensor]:
                leaf = outputs.detach().requires_grad_()
                with torch.enable_grad():
                    values = self.loss.value(leaf, y)
                    (slope,) = torch.autograd.grad(values, leaf, weights)
                return values.detach().mul_(weights).sum(dim=1), slope

            with torch.no_grad():
                return run(masks, head)

        return gradient

    def gradient(
        self, flat: Tensor, x: Tensor, y: Tensor, weights: Tensor, out: Tensor, masks: Sequence[Tensor] = ()
    ) -> Tensor:
        """Write the gradients of Σ_i w_i ℓ_i into `out` (k, P) and return the k sums.

        Parameters `flat` (k, P), inputs `x` (k, B, ...), targets and weights (k, B), masks (k, B, ...); a weight of 0
        takes a point out.
        """
        return self.bind(flat, x.contiguous(), out)(y, weights, masks)

    def curvature(self, flat: Tensor, x: Tensor, budget: int = 1 << 24) -> Tensor:
        """The diagonal (P,) of the Gauss–Newton matrix Σ_i J_iᵀ ∇²ℓ_i J_i at one network's parameters (P,).

        Exact: with ∇²ℓ_i = L_i L_iᵀ it is Σ_i Σ_c (J_iᵀ L_i[:, c])², one backward pass for each point and column of L;
        at most `budget` numbers of such gradients are held at a time.
        """
        total = torch.zeros_like(flat)
        views = self.views(flat.detach())
        with torch.no_grad():
            columns = self.loss.root(self._call(views, x, ())).mT.flatten(0, 1)
        repeated = x.unsqueeze(1).repeat_interleave(len(columns) // len(x), dim=0)
        block = max(1, budget // self.size)
        for part, column in zip(repeated.split(block), columns.split(block), strict=True):
            gradients = self._point_gradients(views, part, column, ())
            total += torch.cat([g.square().sum(dim=0).reshape(-1) for g in gradients.values()])
        return total

    def _thread_network(self) -> Network:
        if not hasattr(self._own, "network"):
            self._own.network = copy.deepcopy(self.network)
        network: Network = self._own.network
        return network

    def _call(self, parameters: dict[str, Tensor], x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        out: Tensor = functional_call(self._thread_network(), parameters, (x, masks))
        return out

    def _directional(
        self, parameters: dict[str, Tensor], x: Tensor, direction: Tensor, masks: Sequence[Tensor]
    ) -> Tensor:
        return (self._call(parameters, x, masks) * direction).sum()
