"""The IVON local solver of k clients at once, on the generated kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from badmm.clients.federation import Task
from badmm.clients.training import Descent, LocalSolver
from badmm.ivon import backends
from badmm.streams import Purpose, sequence


@dataclass(frozen=True)
class IvonSettings:
    """β₁, β₂, the clip of the mean's direction (inf: none), and Monte Carlo samples a step."""

    beta1: float = 0.9
    beta2: float = 0.9999
    clip: float = 0.05
    samples: int = 1


class IvonDescent(LocalSolver):
    """IVON steps on rows (k, P): argmin_q E_q[f_k] + (τ/N_k) [ρ KL(q‖q_g) − ⟨η_k, μ⟩] (arXiv:2506.13150, IVON-ADMM).

    `mean` and `precision` (k, P) are m and s = h + δ, the posterior's precision is ess · s with ess = N_k/(τρ), `ess`
    (k, 1); `cavity` holds (τ/N_k)(ρλ_g + η_k), (k, P) a slot; `momentum` (k, P) after `steps` (k,) earlier steps, which
    count for its debiasing. All are updated in place. The normals of a client come from its own stream of the round and
    the number of the draw in it, whatever trains beside it.
    """

    def __init__(
        self,
        task: Task,
        settings: IvonSettings,
        mean: Tensor,
        precision: Tensor,
        momentum: Tensor,
        steps: Tensor,
        cavity: tuple[Tensor, Tensor],
        ess: Tensor,
        backend: str = "auto",
    ) -> None:
        self.settings, self.samples, self.lr = settings, settings.samples, task.lr
        self.mean, self.precision, self.momentum, self.cavity = mean, precision, momentum, cavity
        self.kernels = backends.load("ivon", mean.device, backend)
        self.theta, self.noise = (torch.empty_like(mean) for _ in range(2))
        self.gradient = self.theta  # a gradient takes the place of the parameters it was wanted at
        self.totals = tuple(torch.zeros_like(mean) for _ in range(2)) if self.samples > 1 else ()
        self.ess = ess.double().reshape(-1).cpu().numpy()
        self.before = steps.cpu().numpy()
        seed, index = task.federation.seed, task.round
        streams = [sequence(seed, Purpose.NOISE, index, client) for client in task.members]
        self.seeds = [int(stream.generate_state(1, np.uint64)[0]) for stream in streams]
        self.done, self.drawn, self.ready = 0, 0, False
        self.rows = self._slices(len(mean))

    def point(self, active: int) -> Tensor:
        """θ = m + ε/√(ess s); the first of a step is already there where the last step drew it."""
        at = self._first(active)
        if not self.ready:
            seeds, ess = self.seeds[:active], self.ess[:active]
            out, noise = (at.theta,), at.noise
            self.kernels.sample(at.mean, at.precision, ess, seed=seeds, step=self.drawn, noise=noise, out=out)
            self.drawn += 1
        self.ready = False
        return at.theta

    def observe(self, active: int) -> None:
        """Add this sample to the sums, where a step takes several."""
        if self.samples > 1:
            at = self._first(active)
            self.kernels.accumulate(at.gradient, *at.totals, noise=at.noise, out=at.totals)

    def step(self, active: int) -> None:
        """One step of IVON, in one pass with the next sample where there is one sample a step."""
        at, hyper = self._first(active), self._scalars(active)
        if self.samples > 1:
            self.kernels.update_averaged(*at.totals, *at.state, at.cavity, self.samples, *hyper, out=at.state)
            self._clear(at)
            return
        address = {"seed": self.seeds[:active], "next_step": self.drawn, "noise": at.noise, "next_noise": at.noise}
        self.kernels.update_sample(at.gradient, *at.state, at.cavity, *hyper, **address, out=(*at.state, at.theta))
        self.drawn, self.ready = self.drawn + 1, True

    def _scalars(self, active: int) -> tuple[Any, ...]:
        """ess, lr, β₁, β₂, debias and clip of the next step."""
        self.done += 1
        s = self.settings
        debias = -np.expm1((self.before[:active] + self.done) * np.log(s.beta1)) if s.beta1 else 1.0
        return self.ess[:active], self.lr, s.beta1, s.beta2, debias, s.clip

    @staticmethod
    def _clear(at: _Rows) -> None:
        for total in at.totals:
            total.zero_()

    def _first(self, active: int) -> _Rows:
        """The first rows of everything, sliced once for all steps with as many."""
        if len(self.rows.mean) != active:
            self.rows = self._slices(active)
        return self.rows

    def _slices(self, active: int) -> _Rows:
        cavity, totals = (tuple(t[:active] for t in several) for several in (self.cavity, self.totals))
        whole = (self.mean, self.precision, self.momentum, self.gradient, self.theta, self.noise)
        mean, precision, momentum, gradient, theta, noise = (t[:active] for t in whole)
        return _Rows(mean, precision, momentum, gradient, theta, noise, cavity, totals)


class OptimizedIvonDescent(IvonDescent):
    """IVON whose mean takes the steps of the local optimizer on the client's objective, fresh every round.

    The gradient in the mean is ĝ − η_ξ + η_S m + δ(m − m_g), IVON's direction before it is divided by h + δ. It
    vanishes at the same mean whatever it is divided by: Adam's scale moves weights with small gradients as fast as
    others, where h, whose estimates are averaged over many steps, cannot follow the first ones. h and the precision are
    IVON's.
    """

    def __init__(self, task: Task, settings: IvonSettings, mean: Tensor, *state: Any, **options: Any) -> None:
        self.descent = Descent(mean, task)
        super().__init__(task, settings, self.descent.variables, *state, **options)
        self.gradient = self.descent.slope
        self.rows = self._slices(len(mean))

    def step(self, active: int) -> None:
        """IVON's step of h and the objective's slope in the mean, in one pass; the optimizer's step of the mean."""
        at, hyper = self._first(active), (self.ess[:active], self.settings.beta2)
        member, out = (at.mean, at.precision, at.cavity), (at.precision, at.gradient)
        if self.samples > 1:
            self.kernels.update_precision_averaged(*at.totals, *member, self.samples, *hyper, out=out)
            self._clear(at)
        else:
            self.kernels.update_precision(at.gradient, *member, *hyper, noise=at.noise, out=out)
        self.descent.step(active)


@dataclass(frozen=True)
class _Rows:
    mean: Tensor
    precision: Tensor
    momentum: Tensor
    gradient: Tensor
    theta: Tensor
    noise: Tensor
    cavity: tuple[Tensor, ...]
    totals: tuple[Tensor, ...]

    @property
    def state(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a step changes."""
        return self.mean, self.precision, self.momentum
