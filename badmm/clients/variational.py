"""Variational clients: descent on the mean and standard deviation of a diagonal Gaussian by sampled gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from badmm.clients.federation import Task
from badmm.clients.training import Descent
from badmm.streams import Purpose


class GaussianDescent(Descent):
    """Descent on E_q[f_k] + (τ/N_k) [ρ KL(q‖q_g) − ⟨η_k, μ⟩] in m and log σ, variables (k, 2P), q = N(m, σ²).

    It starts at `mean` and `deviation` (P,). With θ = m + σ ε, ess = N_k/(τρ) (k, 1) and the cavity (l, c) over ess,
    (k, P) each, the gradient is, by reparametrization,

        in m       E[∇f(θ)] + c m − l
        in log σ   σ E[ε ∇f(θ)] + c σ² − 1/ess
    """

    def __init__(
        self, task: Task, mean: Tensor, deviation: Tensor, cavity: tuple[Tensor, ...], ess: Tensor, samples: int
    ) -> None:
        super().__init__(torch.cat([mean, deviation.log()]).expand(len(task.members), -1), task)
        self.samples, self.size = samples, len(mean)
        self.linear, self.curvature = (slot / ess for slot in cavity)
        self.entropy = 1.0 / ess
        self.gradient = mean.new_zeros(len(task.members), self.size)
        self.generators = task.generators(Purpose.NOISE)
        self.noise = torch.zeros_like(self.gradient)
        self.deviation, self.theta = torch.zeros_like(self.gradient), torch.zeros_like(self.gradient)
        self.drawn = 0

    def draw(self, active: int) -> None:
        """Fill the first rows of `noise`, each from its client's own stream."""
        for row, generator in zip(self.noise[:active], self.generators, strict=False):
            row.normal_(generator=generator)

    def point(self, active: int) -> Tensor:
        """θ = m + σ ε."""
        if self.drawn == 0:
            torch.exp(self.variables[:active, self.size :], out=self.deviation[:active])
            self.slope[:active] = 0
        self.draw(active)
        self.drawn += 1
        mean, out = self.variables[:active, : self.size], self.theta[:active]
        return torch.addcmul(mean, self.deviation[:active], self.noise[:active], out=out)

    def observe(self, active: int) -> None:
        """Add this sample's part of both gradients."""
        gradient, slope = self.gradient[:active], self.slope[:active]
        slope[:, : self.size].add_(gradient, alpha=1.0 / self.samples)
        slope[:, self.size :].addcmul_(gradient, self.noise[:active], value=1.0 / self.samples)

    def complete(self, active: int) -> None:
        """Add the terms of KL and dual."""
        mean, deviation, slope = self.variables[:active, : self.size], self.deviation[:active], self.slope[:active]
        curvature = self.curvature[:active]
        slope[:, : self.size].addcmul_(curvature, mean).sub_(self.linear[:active])
        # σ (E[ε∇f] + c σ) − 1/ess
        slope[:, self.size :].addcmul_(curvature, deviation).mul_(deviation).sub_(self.entropy[:active])
        self.drawn = 0
