"""IVON-ADMM (Möllenhoff, Swaroop, Doshi-Velez, Khan, ICLR 2026, arXiv:2506.13150): Adam-like Bayesian ADMM.

    client   q_k ← IVON steps on E_q[ℓ_k]/τ − ⟨η_k, μ⟩ + ρ KL(q‖q_g)        (arXiv:2402.17641, with prior and duals)
    dual     η_k ← η_k + γρ (λ_g − λ_k)
    server   λ_g ← (1 − α) mean_k λ_k + α (λ_0 − Σ_k η_k)

Diagonal Gaussians. A client's precision is S_k = ess (h + δ) with ess = N_k/(τρ), so that δ and h are curvatures of its
mean loss. On quadratics the fixed point has the posterior's mean and its diagonal of the precision.

Samples have the standard deviation √(τρ/(N_k (h + δ))). Where it is several times the weights of a layer, gradients
tell of the noise alone and nothing is learned, sooner the more layers there are. By default the temperature goes with
the network and the data, so that the first samples deviate by a part of the weights, w_l the layers' weight scales
(`badmm.networks.scales`):

    τ = (initial_sd · min_l w_l)² (δ + h_0) N/(Kρ)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from badmm.checks import positive_integer, positive_number
from badmm.clients.federation import Federation, LocalSettings, Task
from badmm.clients.ivon import IvonDescent, IvonSettings
from badmm.clients.training import LocalSolver
from badmm.methods.networks.gaussian import DUALS, FAMILY, GaussianMethod, refuse_weight_decay, server_natural
from badmm.networks.scales import weight_scales
from badmm.rounds.lines import Lines
from badmm.rounds.network_method import State, Tensors, rows


@dataclass(frozen=True)
class IvonADMM(GaussianMethod):
    """Prior, ADMM's step sizes, and IVON's settings; lr, schedule, epochs and batches are those of local training.

    δ and h_0 are curvatures of the mean loss. The prior's precision is δ N/(Kτρ), with δ in units of the average
    client's ess as the paper states it, unless `precision` (1/θ²) is positive. τ "auto" makes the first samples of an
    average client deviate by `initial_sd` times the weights of the layer where these are smallest; a number leaves
    `initial_sd` without a meaning. α "auto" is 1/(1 + ρK). Local training starts at q_g. In the first round λ_g is, by
    `origin`, the network's initialisation with h = h_0 above the prior ("initial"), or the prior, and then only local
    training starts at the initialisation ("prior", as in the paper). `clip` bounds the mean's direction: no coordinate
    moves more than lr · clip a step (inf: no bound), so that with the default lr is five times Adam's. With
    `keep_momentum` momentum and step count run on from round to round.
    """

    name = "ivon_admm"
    precision: float = 0.0
    delta: float = 5e-3
    rho: float = 1.0
    alpha: float | Literal["auto"] = "auto"
    damping: float = 0.5
    temperature: float | Literal["auto"] = "auto"
    initial_sd: float = 0.3
    hess_init: float = 5e-3
    beta1: float = 0.9
    beta2: float = 0.99999
    clip: float = 0.2
    samples: int = 1
    keep_momentum: bool = True
    origin: Literal["initial", "prior"] = "initial"

    def __post_init__(self) -> None:
        for name in ("delta", "rho", "initial_sd", "hess_init"):
            positive_number(getattr(self, name), name)
        if self.temperature != "auto":
            positive_number(self.temperature, "temperature")
        if self.precision != 0:
            positive_number(self.precision, "precision")
        positive_number(self.damping, "damping", 1.0)
        if self.alpha != "auto":
            positive_number(self.alpha, "alpha", 1.0)
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: expected a number in [0, 1), got {getattr(self, name)!r}")
        if not self.clip > 0:
            raise ValueError(f"clip: expected a positive number, got {self.clip!r}")
        positive_integer(self.samples, "samples")

    def steps(self, state: State, federation: Federation) -> tuple[float, float, float]:
        """ρ, α, γ."""
        alpha = 1.0 / (1.0 + self.rho * federation.num_clients) if self.alpha == "auto" else self.alpha
        return self.rho, alpha, self.damping

    def tau(self, federation: Federation, initial: Tensor) -> float:
        """τ, from the network's initialisation (P,) where it is "auto"."""
        if self.temperature != "auto":
            return self.temperature
        deviation = self.initial_sd * min(weight_scales(federation.stack, initial).values(), default=1.0)
        return deviation**2 * (self.delta + self.hess_init) * _average_size(federation) / self.rho

    def average_ess(self, federation: Federation, initial: Tensor) -> float:
        """N/(Kτρ), which makes a precision of a curvature of the mean loss."""
        return _average_size(federation) / (self.tau(federation, initial) * self.rho)

    def prior_precision(self, federation: Federation, initial: Tensor) -> Tensor:
        """`precision`, or δ in units of the average ess."""
        return torch.full_like(initial, self.precision or self.delta * self.average_ess(federation, initial))

    def check(self, settings: LocalSettings) -> None:
        """Refuses local `clip` and `weight_decay`."""
        refuse_weight_decay(settings)
        if settings.clip is not None:
            raise ValueError(
                f"local.clip: expected none (or inf), as IVON has a clip of its own, got {settings.clip!r}"
            )

    def start(self, federation: Federation, initial: Tensor) -> State:
        """λ_g by `origin`; duals, momenta and step counts 0."""
        self.check(federation.settings)
        state = self.first(federation, initial)
        if self.origin == "initial":
            precision = state.server["precision"] + self.hess_init * self.average_ess(federation, initial)
            state.server |= {"precision_mean": precision * initial, "precision": precision}
        if self.keep_momentum:
            state.clients["momentum"] = torch.zeros_like(state.clients[DUALS[0]])
            state.clients["steps"] = torch.zeros(federation.num_clients, 1, dtype=torch.int64, device=initial.device)
        return state

    def solver(self, state: State, task: Task) -> IvonDescent:
        """IVON from the server's posterior."""
        initial = state.server["initial"]
        scale, count = self.tau(task.federation, initial) / task.sizes, len(task.members)
        natural = server_natural(state)
        tilt = [
            rows(state.clients, dual, task).add_(own, alpha=self.rho).mul_(scale)
            for own, dual in zip(natural, DUALS, strict=True)
        ]
        ess = 1.0 / (scale * self.rho)
        precision, mean = natural[1] / ess, self.mean(state)
        if state.round == 0 and self.origin == "prior":
            mean, precision = initial, precision + self.hess_init
        if self.keep_momentum:
            momentum, steps = rows(state.clients, "momentum", task), rows(state.clients, "steps", task)
        else:
            momentum, steps = torch.zeros_like(tilt[0]), torch.zeros(count, 1, dtype=torch.int64)
        settings = IvonSettings(self.beta1, self.beta2, self.clip, self.samples)
        start = mean.repeat(count, 1)
        return IvonDescent(task, settings, start, precision, momentum, steps[:, 0], (tilt[0], tilt[1]), ess)

    def reply(self, state: State, task: Task, solver: LocalSolver) -> tuple[Tensors, Tensors]:
        """Sends λ_k, keeps η_k, momentum and step count."""
        assert isinstance(solver, IvonDescent)
        ess = task.sizes / (self.tau(task.federation, state.server["initial"]) * self.rho)
        natural = Lines(FAMILY, ess.device).call("natural_from_standard", solver.mean, ess * solver.precision)
        sent, kept = self.exchange(state, task, natural)
        if self.keep_momentum:
            done = torch.tensor(task.steps, device=ess.device).unsqueeze(1)
            kept |= {"momentum": solver.momentum, "steps": rows(state.clients, "steps", task) + done}
        return sent, kept


def _average_size(federation: Federation) -> float:
    """N/K."""
    return sum(federation.counts) / federation.num_clients
