"""What a training pass of a network does beside computing outputs: found by trying one, refused by name if unsound."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

Policy = Literal["refuse", "average", "local"]
"""What becomes of buffers that training changes: "average", the server averages them as it does parameters; "local",
every client goes on with its own, and their average serves for scoring alone; "refuse", they are an error."""
POLICIES: tuple[Policy, ...] = ("refuse", "average", "local")


@dataclass(frozen=True)
class Traits:
    """`buffers` are the names of those that a training pass changes (running statistics); `draws`, whether it draws
    random numbers (dropout); `channels_last`, whether it takes images in this layout, in which a CPU's convolutions are
    faster; `batched`, whether several networks at once under `torch.func.vmap` give what one by one they give.
    """

    buffers: tuple[str, ...] = ()
    draws: bool = False
    channels_last: bool = False
    batched: bool = False


def find(network: nn.Module, names: Iterable[str], x: Tensor) -> Traits:
    """The traits of a network whose trained parameters are `names`, from passes over some points x (n, ...).

    The network and torch's random state are left as they were. ValueError for an output that is not a tensor with a row
    per point, and for a parameter that no output depends on.
    """
    names, devices = list(names), [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        before = _random_state(x)
        changed = _training_pass(network, names, x)
        draws = before != _random_state(x)
        alone = not changed and not draws
        return Traits(
            changed,
            draws,
            _takes_channels_last(network, x),
            alone and x.is_cuda and batched(network, names, x),
        )


def _random_state(x: Tensor) -> list[int]:
    state = torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()
    return list(state.tolist())


def _training_pass(network: nn.Module, names: list[str], x: Tensor) -> tuple[str, ...]:
    """The names of the buffers that change."""
    trial = copy.deepcopy(network).train()
    before = {name: buffer.clone() for name, buffer in trial.named_buffers()}
    with torch.enable_grad():
        outputs = trial(x)
        if not isinstance(outputs, Tensor) or outputs.ndim < 1 or len(outputs) != len(x):
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(f"model: expected a tensor with a row for each of {len(x)} points as output, got {got}")
        own = dict(trial.named_parameters())
        found = torch.autograd.grad(outputs.float().sum(), [own[n] for n in names], allow_unused=True)
    unused = [name for name, gradient in zip(names, found, strict=True) if gradient is None]
    if unused:
        raise ValueError(
            f"model: expected every parameter to be used or frozen (requires_grad=False), got {', '.join(unused)}, "
            "which no output depends on"
        )
    return tuple(n for n, b in trial.named_buffers() if n not in before or not torch.equal(b, before[n]))


def _takes_channels_last(network: nn.Module, x: Tensor) -> bool:
    """A CPU's convolutions are faster so; code that views a convolution's output as rows does not take it."""
    if x.is_cuda or x.ndim != 4 or not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        return False
    trial = copy.deepcopy(network).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        try:
            found = trial(x.contiguous(memory_format=torch.channels_last))
        except RuntimeError:
            return False
        expected = copy.deepcopy(network).eval()(x)
    return bool(torch.allclose(found, expected, rtol=1e-3, atol=1e-4))


def batched(network: nn.Module, names: list[str], x: Tensor) -> bool:
    """Whether `vmap` takes the network, and no point's output depends on the points beside it."""
    trial = copy.deepcopy(network).train()
    own = {name: p.detach() for name, p in trial.named_parameters() if name in names}
    two = {name: torch.stack([p, 0.5 * p]) for name, p in own.items()}
    half = x[: max(1, len(x) // 2)]
    with torch.no_grad():
        try:
            found = vmap(lambda p, x: functional_call(trial, p, (x,)))(two, torch.stack([x, x]))
        except RuntimeError:
            return False
        expected = torch.stack([functional_call(trial, {n: p[k] for n, p in two.items()}, (half,)) for k in (0, 1)])
    return bool(torch.allclose(found[:, : len(half)], expected, rtol=1e-3, atol=1e-4))
