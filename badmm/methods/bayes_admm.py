"""Bayesian ADMM (Möllenhoff, Swaroop, Doshi-Velez, Khan, ICLR 2026, arXiv:2506.13150): duals in natural parameters.

    client   q_k ← argmin E_q[ℓ_k]/τ − ⟨η_k, μ⟩ + ρ KL(q‖q_g)
    dual     η_k ← η_k + γρ (λ_g − λ_k)
    server   λ_g ← (1 − α) mean_k λ_k + α (λ_0 − Σ_k η_k)

`badmm.solve` has it as "bayes_admm"; it is classic consensus ADMM under `isotropic_gaussian`. With networks, diagonal
Gaussians and IVON as the client (arXiv:2402.17641, with prior and duals) it is IVON-ADMM, an Adam-like method.

IVON's client has the precision S_k = ess (h + δ) with ess = N_k/(τρ_k), so that δ and h are curvatures of its mean
loss. On quadratics the fixed point has the posterior's mean and its diagonal of the precision. Samples have the
standard deviation √(τρ_k/(N_k (h + δ))). Where it is several times the weights of a layer, gradients tell of the noise
alone and nothing is learned, sooner the more layers there are. By default the temperature goes with the network and
the data, so that the first samples deviate by a part of the weights, w_l the layers' weight scales
(`badmm.networks.scales`):

    τ = (initial_sd · min_l w_l)² (δ + h_0) N/(Kρ)

Penalties ρ_k = ρ K N_k/N go with the clients' sizes, so that ess is N/(Kτρ) for all: a local step is as long for a
client of few points as for one of many, and the server's mean counts points, not clients, as federated averaging does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from badmm.checks import positive_integer, positive_number
from badmm.methods import persistence
from badmm.methods.admm import ExactMethod
from badmm.methods.gaussian import GaussianMethod, refuse_weight_decay
from badmm.rounds.lines import Slots
from badmm.rounds.network_method import State, Tensors, rows
from badmm.rounds.policy import Policy, Setting, setting
from badmm_kernels.scalars import effective_sample_size, server_step

if TYPE_CHECKING:
    from torch import Tensor

    from badmm.clients.federation import Federation, LocalSettings, Task
    from badmm.clients.ivon import IvonDescent
    from badmm.clients.training import LocalSolver


class BayesADMM(ExactMethod):
    """With clients that are solved to a tolerance: any ρ > 0, α and γ in (0, 1]."""

    name = "bayes_admm"


@dataclass(frozen=True)
class IvonADMM(GaussianMethod):
    """For networks: prior, ADMM's step sizes, and IVON's settings. lr, schedule, epochs and batches are those of local
    training.

    δ and h_0 are curvatures of the mean loss. The prior's precision is δ N/(Kτρ), with δ in units of the average
    client's ess as the paper states it, unless `precision` (1/θ²) is positive. τ "auto" makes the first samples of an
    average client deviate by `initial_sd` times the weights of the layer where these are smallest; a number leaves
    `initial_sd` without a meaning. α "auto" is 1/(1 + ρK). γ (`damping`) "auto" is each client's own, by how much of
    its residual persists (`badmm.methods.persistence`). Local training starts at q_g. In the first round λ_g is, by
    `origin`, the network's initialisation with h = h_0 above the prior, with duals that make the server line hold there
    ("initial"), or the prior, and then only local training starts at the initialisation ("prior", as in the paper).
    `penalty` is "size" for ρ_k = ρ K N_k/N, or "alike" for ρ_k = ρ (as in the paper). `mean_step` "local" gives the
    mean's direction to the optimizer of local training, Adam by default, fresh every round. "ivon" divides it by h + δ,
    as in the paper, and `clip` bounds it: no coordinate moves more than lr · clip per step (inf: no bound), so that
    with the default lr is Adam's; the fixed point is the same. With "ivon" and `keep_momentum` momentum and
    step count run on from round to round.
    """

    name = "ivon_admm"
    precision: float = 0.0
    delta: float = 1e-3
    rho: float = 1.0
    alpha: float | Literal["auto"] = "auto"
    damping: float | Literal["auto"] = "auto"
    temperature: float | Literal["auto"] = "auto"
    initial_sd: float = 0.3
    hess_init: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999999
    clip: float = 1.0
    samples: int = 1
    keep_momentum: bool = True
    origin: Literal["initial", "prior"] = "initial"
    penalty: Literal["size", "alike"] = "size"
    mean_step: Literal["ivon", "local"] = "local"

    def __post_init__(self) -> None:
        for name in ("delta", "rho", "initial_sd", "hess_init"):
            positive_number(getattr(self, name), name)
        setting(self.temperature, "temperature")
        if self.precision != 0:
            positive_number(self.precision, "precision")
        setting(self.damping, "damping", 1.0)
        setting(self.alpha, "alpha", 1.0)
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: expected a number in [0, 1), got {getattr(self, name)!r}")
        if not self.clip > 0:
            raise ValueError(f"clip: expected a positive number, got {self.clip!r}")
        positive_integer(self.samples, "samples")

    @property
    def _runs_on(self) -> bool:
        """Whether clients keep a momentum from round to round; the local optimizer's is fresh every round."""
        return self.keep_momentum and self.mean_step == "ivon"

    def settings(self) -> tuple[Setting, Setting, Setting]:
        """ρ, α, γ; the γ of clients that find their own is at most 1."""
        return self.rho, self.alpha, 1.0 if self.damping == "auto" else self.damping

    @classmethod
    def policy(
        cls, num_clients: int, rho: Setting, alpha: Setting, damping: Setting, mixed_damping: float = 0.0
    ) -> Policy:
        """Any ρ > 0, α and γ in (0, 1]; an automatic α is the paper's 1/(1 + ρK)."""
        alpha = server_step(rho, num_clients) if alpha == "auto" else alpha
        return super().policy(num_clients, rho, alpha, damping, mixed_damping)

    def penalties(self, federation: Federation, index: Tensor) -> Tensor:
        """K N_k/N, or 1."""
        own = super().penalties(federation, index)
        return federation.weights[index].unsqueeze(1) if self.penalty == "size" else own

    def tau(self, federation: Federation, initial: Tensor) -> float:
        """τ, from the network's initialisation (P,) where it is "auto"."""
        from badmm.networks.scales import weight_scales

        if self.temperature != "auto":
            return self.temperature
        deviation = self.initial_sd * min(weight_scales(federation.stack, initial).values(), default=1.0)
        return deviation**2 * (self.delta + self.hess_init) * _average_size(federation) / self.rho

    def average_ess(self, federation: Federation, initial: Tensor) -> float:
        """N/(Kτρ), which makes a precision of a curvature of the mean loss."""
        ess: float = effective_sample_size(_average_size(federation), self.tau(federation, initial), self.rho)
        return ess

    def prior_precision(self, federation: Federation, initial: Tensor) -> Tensor:
        """`precision`, or δ in units of the average ess."""
        return initial.new_full(initial.shape, self.precision or self.delta * self.average_ess(federation, initial))

    def check(self, settings: LocalSettings) -> None:
        """Refuses local `clip` and `weight_decay`."""
        refuse_weight_decay(settings)
        if settings.clip is not None:
            raise ValueError(
                f"local.clip: expected none (or inf), as IVON has a clip of its own, got {settings.clip!r}"
            )

    def start(self, federation: Federation, initial: Tensor) -> State:
        """λ_g and duals by `origin`; momenta and step counts 0."""
        self.check(federation.settings)
        natural = None
        if self.origin == "initial":
            precision = self.prior_precision(federation, initial)
            natural = self.member(initial, precision + self.hess_init * self.average_ess(federation, initial))
        state = self.first(federation, initial, natural)
        if self._runs_on:
            state.clients["momentum"] = _zeros(state.clients["precision"])
            state.clients["steps"] = _zeros(state.clients["precision"][:, :1]).long()
        if self.damping == "auto":
            persistence.begin(state)
        return state

    def dampings(self, state: State, task: Task, natural: Slots) -> Tensors:
        """By the residuals of the means in posterior deviations, unless `damping` is a number."""
        if self.damping != "auto":
            return {}
        residual = (natural[0] / natural[1] - self.mean(state)) / self.deviation(state)
        return persistence.dampings(state, task, residual)

    def solver(self, state: State, task: Task) -> IvonDescent:
        """IVON from the server's posterior."""
        from badmm.clients.ivon import IvonDescent, IvonSettings, OptimizedIvonDescent

        ess, cavity = self.ess(state, task), self.cavity(state, task)
        precision, mean = state.server["precision"] / ess, self.mean(state)
        if state.round == 0 and self.origin == "prior":
            mean, precision = state.server["initial"], precision + self.hess_init
        if self._runs_on:
            momentum, steps = rows(state.clients, "momentum", task), rows(state.clients, "steps", task)
        else:
            momentum, steps = _zeros(cavity[0]), _zeros(task.index.unsqueeze(1))
        settings = IvonSettings(self.beta1, self.beta2, self.clip, self.samples)
        start, over = mean.repeat(len(task.members), 1), (cavity[0].div_(ess), cavity[1].div_(ess))
        kind = IvonDescent if self.mean_step == "ivon" else OptimizedIvonDescent
        return kind(task, settings, start, precision, momentum, steps[:, 0], over, ess)

    def natural(self, state: State, task: Task, solver: LocalSolver) -> Slots:
        """From m_k and S_k = ess (h + δ)."""
        return self.member(solver.mean, self.ess(state, task) * solver.precision)  # type: ignore[attr-defined]

    def reply(self, state: State, task: Task, solver: LocalSolver) -> tuple[Tensors, Tensors]:
        """Keeps momentum and step count too."""
        sent, kept = super().reply(state, task, solver)
        if self._runs_on:
            done = task.index.new_tensor(task.steps).unsqueeze(1)
            momentum = solver.momentum  # type: ignore[attr-defined]
            kept |= {"momentum": momentum, "steps": rows(state.clients, "steps", task) + done}
        return sent, kept


def _zeros(rows: Tensor) -> Tensor:
    return rows.new_zeros(rows.shape)


def _average_size(federation: Federation) -> float:
    """N/K."""
    return sum(federation.counts) / federation.num_clients
