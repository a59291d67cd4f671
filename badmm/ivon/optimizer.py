"""IVON (Shen et al., ICML 2024, arXiv:2402.17641) as a torch optimizer on the generated kernels.

optimizer = IVON(model.parameters(), lr=0.1, ess=len(data))
for x, y in batches:
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        loss(model(x), y).backward()
    optimizer.step()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from badmm.ivon import backends
from badmm.checks import positive_integer
from badmm.ivon.slots import Block, blocks

if dist.is_available():  # else torch imports it for its first optimizer, whose process group is then never let go
    import torch.distributed.nn.functional

Values = float | Sequence[Tensor]
_SAVED = ("precision", "momentum", "tilt_precision_mean", "tilt_precision")


@dataclass
class _Part:
    """A block with its state: s = h + δ, the momentum, the sample's normals, sums of samples, and the tilt, if set."""

    block: Block
    kernels: Any
    precision: Tensor
    momentum: Tensor
    noise: Tensor
    totals: tuple[Tensor, ...] = ()
    tilt_precision_mean: Tensor | None = None
    tilt_precision: Tensor | None = None

    def saved(self) -> dict[str, Tensor]:
        """What goes into a state_dict."""
        found = {name: getattr(self, name) for name in _SAVED}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


class IVON(torch.optim.Optimizer):
    """Improved variational online Newton with ivon-opt's keywords; q = N(m, 1/(ess/τ · (h + δ))) over the parameters.

    lr: step size, times (hess_init + weight_decay) where `rescale_lr`. ess: effective sample size, points in the data.
    hess_init: h at the start. beta1, beta2: decays of momentum and h. weight_decay: δ, the prior's precision over
    ess/τ (mean 0; `set_prior` for others and for duals). mc_samples: how often `step` calls a closure. hess_approx:
    "price", E[∇ℓ ε]√(ess(h + δ)), or "gradsq", E[∇ℓ²] of the minibatch's mean gradient, which ivon-opt 0.1.3 multiplies
    by ess once too often (its issue 8). clip_radius: largest entry of the mean's direction. sync: average gradients and
    curvatures over torch.distributed's ranks, each with normals of its own. debias: divide the momentum by 1 − β₁ᵗ.
    temperature: τ. seed: of the normals; None: drawn from torch's generator. backend: see `backends.load`.

    Parameters and their gradients become views of one buffer a group, device and dtype; float32 and float64. A normal
    depends on seed, draw and place in the group alone. A gradient that is not finite is a ValueError in `step` (on a
    GPU, whose kernels do not wait to tell, in `badmm_kernels.synchronize`), after which the state is lost, except under
    a GradScaler, whose skipped step changes nothing; with several samples a step leave unscaling to `GradScaler.step`.
    State is saved between steps.

    Raises ValueError for settings and dtypes, RuntimeError for a step without a sample and for moved parameters.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Any,
        lr: float,
        ess: float,
        hess_init: float = 1.0,
        beta1: float = 0.9,
        beta2: float = 0.99999,
        weight_decay: float = 1e-4,
        mc_samples: int = 1,
        hess_approx: Literal["price", "gradsq"] = "price",
        clip_radius: float = math.inf,
        sync: bool = False,
        debias: bool = True,
        rescale_lr: bool = True,
        *,
        temperature: float = 1.0,
        seed: int | None = None,
        backend: str = "auto",
    ) -> None:
        if hess_approx not in ("price", "gradsq"):
            raise ValueError(f'hess_approx: expected "price" or "gradsq", got {hess_approx!r}')
        self.mc_samples = positive_integer(mc_samples, "mc_samples")
        self.hess_approx, self.sync, self.debias, self.rescale_lr = hess_approx, sync, debias, rescale_lr
        self._backend, self._parts = backend, list[list[_Part]]()
        self._count, self._pending = 0, False
        self._fault: ValueError | None = None
        drawn = int(torch.randint(1 << 62, (1,))) if seed is None else seed
        options: dict[str, Any] = {"lr": lr, "ess": ess, "hess_init": hess_init, "beta1": beta1, "beta2": beta2}
        options |= {"weight_decay": weight_decay, "clip_radius": clip_radius, "temperature": temperature}
        super().__init__(params, {**options, "seed": drawn, "draws": 0, "step": 0})

    @torch.no_grad()
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check(group)
            made = blocks(group["params"])
        except ValueError:
            self.param_groups.pop()
            raise
        parts = []
        for block in made:
            start = block.new(group["hess_init"] + group["weight_decay"])
            kernels = backends.load("ivon", block.mean.device, self._backend)
            parts.append(_Part(block, kernels, start, block.new(), block.new()))
        self._parts.append(parts)
        self._publish()

    @contextmanager
    def sampled_params(self, train: bool = False) -> Iterator[None]:
        """Within it the parameters are a sample of q; after it, whatever happened, its mean.

        With `train`, the gradients there at its end are taken as this sample's, unless it ends with an exception.
        """
        self._flush()
        shown: list[_Part] = []
        try:
            for part in self._draw():
                part.block.show(sample=True)
                shown.append(part)
            yield
        finally:
            for part in shown:
                part.block.show(sample=False)
        if train:
            for part in self._all():
                part.block.collect()
            self._count, self._pending = self._count + 1, True

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step from the samples since the last one; a closure takes one, and is called `mc_samples` times.

        Returns the mean of what the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = sum(closure() for _ in range(self.mc_samples)) / self.mc_samples
        if self._count == 0:
            raise RuntimeError("step: expected a sample from sampled_params(train=True), got none since the last step")
        if not self._skipped():
            for group, parts in zip(self.param_groups, self._parts, strict=True):
                group["step"] += 1
                for part in parts:
                    self._update(group, part)
        self._forget()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients to 0; they stay views of the buffer, so that `set_to_none` has no effect."""
        self._flush()
        for part in self._all():
            part.block.zero_gradients()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken: the same normals, the same numbers. The model's own state is its mean."""
        super().load_state_dict(state_dict)
        for part in self._all():
            part.tilt_precision_mean = part.tilt_precision = None
            for place, p in enumerate(part.block.parameters):
                for name, tensor in self.state[p].items():
                    if getattr(part, name) is None:
                        setattr(part, name, part.block.new())
                    part.block.views(getattr(part, name))[place].copy_(tensor)
        self._publish()
        self._forget()

    @torch.no_grad()
    def set_prior(
        self, mean: Values, precision: Values, duals: tuple[Values, Values] | None = None, rho: float = 1.0
    ) -> None:
        """Replace the prior by N(mean, 1/precision), and h by hess_init above it; with duals (η_ξ, η_S) for ADMM.

        Minimises E[ℓ]/τ − ⟨η, μ⟩ + ρ KL(q‖prior) where ess is N/ρ (arXiv:2506.13150); ℓ sums over N points. Values: a
        number, or tensors like the parameters in their order. `weight_decay` still scales lr where `rescale_lr`.
        """
        places = [(group, part) for group, parts in zip(self.param_groups, self._parts, strict=True) for part in parts]
        given = [mean, precision, *(duals or (0.0, 0.0))]
        order = {p: k for k, p in enumerate(p for group in self.param_groups for p in group["params"])}
        for group, part in places:
            m, s, xi, eta = (_flat(value, part.block, order) for value in given)
            if not bool((s > 0).all()):
                raise ValueError(f"precision: expected positive, got {float(s.min())}")
            scale = group["temperature"] / group["ess"]
            part.tilt_precision_mean = (s * m + xi / rho) * scale
            part.tilt_precision = (s + eta / rho) * scale
            part.precision.copy_(s * scale + group["hess_init"])
        self._publish()

    @property
    def mean(self) -> list[Tensor]:
        """m, one tensor a parameter, sharing the optimizer's memory."""
        return self._listed(lambda _, part: part.block.mean)

    @property
    def precision(self) -> list[Tensor]:
        """The posterior's precision ess/τ · (h + δ), one tensor a parameter."""
        return self._listed(lambda group, part: part.precision * (group["ess"] / group["temperature"]))

    @torch.no_grad()
    def sample(self) -> list[Tensor]:
        """A draw from the posterior, one tensor a parameter; the model keeps its mean."""
        self._flush()
        self._draw()
        return self._listed(lambda _, part: part.block.shown.clone())

    def _all(self) -> Iterator[_Part]:
        return (part for parts in self._parts for part in parts)

    def _listed(self, flat: Callable[[dict[str, Any], _Part], Tensor]) -> list[Tensor]:
        found: dict[Tensor, Tensor] = {}
        for group, parts in zip(self.param_groups, self._parts, strict=True):
            for part in parts:
                found |= dict(zip(part.block.parameters, part.block.views(flat(group, part)), strict=True))
        return [found[p] for group in self.param_groups for p in group["params"]]

    def _publish(self) -> None:
        """The state a parameter, as torch.optim keeps it: views of the buffers."""
        for part in self._all():
            named = {name: part.block.views(tensor) for name, tensor in part.saved().items()}
            for place, p in enumerate(part.block.parameters):
                self.state[p] = {name: views[place] for name, views in named.items()}

    def _draw(self) -> list[_Part]:
        """Fill every `shown` with a sample."""
        rank = dist.get_rank() if self.sync and dist.is_initialized() else 0
        for number, (group, parts) in enumerate(zip(self.param_groups, self._parts, strict=True)):
            for place, part in enumerate(parts):
                stream = np.random.SeedSequence(group["seed"], spawn_key=(number, place, rank))
                part.kernels.sample(
                    part.block.mean,
                    part.precision,
                    group["ess"] / group["temperature"],
                    seed=int(stream.generate_state(1, np.uint64)[0]),
                    step=group["draws"],
                    noise=part.noise,
                    out=(part.block.shown,),
                )
            group["draws"] += 1
        return list(self._all())

    @torch.no_grad()
    def _flush(self) -> None:
        """Add the last sample to the sums, before its normals or gradients go."""
        if not self._pending:
            return
        for part in self._all():
            first = not part.totals
            if first:
                part.totals = (part.block.new(), part.block.new())
            try:
                if self.hess_approx == "price":
                    part.kernels.accumulate(part.block.gradient, *part.totals, noise=part.noise, out=part.totals)
                else:
                    part.kernels.accumulate_squares(part.block.gradient, *part.totals, out=part.totals)
            except ValueError as error:
                self._fault = error  # for `step` to raise, unless a GradScaler skips it
        self._pending = False

    def _forget(self) -> None:
        """Begin a new step."""
        self._count, self._pending, self._fault = 0, False, None
        for part in self._all():
            for total in part.totals:
                total.zero_()

    def _skipped(self) -> bool:
        """Under a GradScaler: unscale what was collected; whether it found infinities. Then the ranks' average."""
        several = self.sync and dist.is_initialized()
        found: Tensor | None = getattr(self, "found_inf", None)
        scale: Tensor | None = getattr(self, "grad_scale", None)
        if self._count > 1 or several or self.hess_approx == "gradsq":
            self._flush()
        elif scale is not None:
            for part in self._all():
                part.block.gradient.div_(scale.to(part.block.gradient.device))
        lost = found is not None and bool(found > 0)
        for part in self._all() if not self._pending else ():
            if scale is not None:
                power = (scale, scale if self.hess_approx == "price" else scale * scale)
                for total, by in zip(part.totals, power, strict=True):
                    total.div_(by.to(total.device))
            if several:
                for total in part.totals:
                    dist.all_reduce(total)
                    total.div_(dist.get_world_size())
            lost = lost or (found is not None and not all(bool(t.isfinite().all()) for t in part.totals))
        if self._fault is not None and found is None:
            fault = self._fault
            self._forget()
            raise fault
        return lost or self._fault is not None

    def _update(self, group: dict[str, Any], part: _Part) -> None:
        """The kernels' step."""
        weight, ess, beta1 = group["weight_decay"], group["ess"] / group["temperature"], group["beta1"]
        lr = group["lr"] * (group["hess_init"] + weight) if self.rescale_lr else group["lr"]
        debias = 1.0 - beta1 ** group["step"] if self.debias else 1.0
        tilt: tuple[Any, Any] = (0.0, weight)
        if part.tilt_precision is not None:
            tilt = (part.tilt_precision_mean, part.tilt_precision)
        state = (part.block.mean, part.precision, part.momentum)
        hyper = (lr, beta1, group["beta2"], debias, group["clip_radius"])
        if self._pending and self.hess_approx == "price":
            part.kernels.update(part.block.gradient, *state, tilt, ess, *hyper, noise=part.noise, out=state)
            return
        if self.hess_approx == "price":
            part.kernels.update_averaged(*part.totals, *state, tilt, self._count, ess, *hyper, out=state)
            return
        part.kernels.update_averaged_squares(*part.totals, *state, tilt, self._count, *hyper, out=state)


def _check(group: dict[str, Any]) -> None:
    bounds: dict[str, tuple[str, Callable[[float], bool]]] = {
        "lr": ("a finite number >= 0", lambda x: 0 <= x < math.inf),
        "ess": ("a positive number", lambda x: 0 < x < math.inf),
        "hess_init": ("a positive number", lambda x: 0 < x < math.inf),
        "beta1": ("a number in [0, 1)", lambda x: 0 <= x < 1),
        "beta2": ("a number in [0, 1]", lambda x: 0 <= x <= 1),
        "weight_decay": ("a finite number >= 0", lambda x: 0 <= x < math.inf),
        "clip_radius": ("a positive number", lambda x: x > 0),
        "temperature": ("a positive number", lambda x: 0 < x < math.inf),
    }
    for name, (expected, inside) in bounds.items():
        if not inside(group[name]):
            raise ValueError(f"{name}: expected {expected}, got {group[name]!r}")


def _flat(value: Values, block: Block, order: dict[Tensor, int]) -> Tensor:
    """A number or tensors like the parameters, as a buffer of the block."""
    if isinstance(value, int | float):
        return block.new(value)
    flat = block.new()
    for p, view in zip(block.parameters, block.views(flat), strict=True):
        view.copy_(value[order[p]])
    return flat
