"""Variational clients: descent on the mean and standard deviation of a diagonal Gaussian by sampled gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from badmm.clients.federation import Federation, LocalSettings, Task
from badmm.clients.training import Descent, LocalSolver
from badmm.methods.networks.gaussian import DUALS, FAMILY, GaussianMethod, refuse_weight_decay, server_natural
from badmm.rounds.lines import Lines
from badmm.rounds.network_method import State, Tensors, rows
from badmm.streams import Purpose


class GaussianDescent(Descent):
    """Descent on E_q[f_k] + (τ/N_k) [ρ KL(q‖q_g) − ⟨η_k, μ⟩] in m and log σ, variables (k, 2P), q = N(m, σ²).

    With θ = m + σ ε, c = (τ/N_k)(ρ S_g + η_S) and l = (τ/N_k)(ρ ξ_g + η_ξ) the gradient is, by reparametrization,

        in m       E[∇f(θ)] + c m − l
        in log σ   σ E[ε ∇f(θ)] + c σ² − ρ τ/N_k
    """

    def __init__(
        self, start: Tensor, task: Task, curvature: Tensor, linear: Tensor, entropy: Tensor, samples: int
    ) -> None:
        super().__init__(start, task)
        self.samples, self.size = samples, start.shape[1] // 2
        self.curvature, self.linear, self.entropy = curvature, linear, entropy
        self.gradient = start.new_zeros(len(start), self.size)
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
        # σ (E[ε∇f] + c σ) − ρτ/N_k
        slope[:, self.size :].addcmul_(curvature, deviation).mul_(deviation).sub_(self.entropy[:active])
        self.drawn = 0


class VariationalMethod(GaussianMethod):
    """Clients solve argmin_q E_q[ℓ_k]/τ − ⟨η_k, μ⟩ + ρ KL(q‖q_g) by `GaussianDescent`.

    The first round starts at the network's initialisation with the standard deviation `initial_sd`, later ones at q_g.
    """

    temperature: float
    initial_sd: float
    samples: int

    def check(self, settings: LocalSettings) -> None:
        """Refuses `weight_decay`."""
        refuse_weight_decay(settings)

    def start(self, federation: Federation, initial: Tensor) -> State:
        """λ_g = λ_0, duals 0."""
        self.check(federation.settings)
        return self.first(federation, initial)

    def solver(self, state: State, task: Task) -> GaussianDescent:
        """Descent from the server's posterior."""
        rho, _, _ = self.steps(state, task.federation)
        scale = self.temperature / task.sizes
        xi, precision = server_natural(state)
        dual_xi, dual_precision = (rows(state.clients, name, task) for name in DUALS)
        if state.round == 0:
            mean, log_sd = state.server["initial"], torch.full_like(xi, self.initial_sd).log()
        else:
            mean, log_sd = self.mean(state), -0.5 * precision.log()
        start = torch.cat([mean, log_sd]).expand(len(task.members), -1)
        curvature = scale * (rho * precision + dual_precision)
        return GaussianDescent(start, task, curvature, scale * (rho * xi + dual_xi), scale * rho, self.samples)

    def reply(self, state: State, task: Task, solver: LocalSolver) -> tuple[Tensors, Tensors]:
        """Sends λ_k, keeps η_k."""
        assert isinstance(solver, GaussianDescent)
        mean, log_sd = solver.variables.split(solver.size, dim=1)
        natural = Lines(FAMILY, mean.device).call("natural_from_standard", mean, (-2.0 * log_sd).exp())
        return self.exchange(state, task, natural)
