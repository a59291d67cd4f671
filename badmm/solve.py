"""`badmm.solve`: rounds of client, dual and server steps until the fixed-point residual is small."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from badmm.checks import Array, ClientError, ServerDomainError, positive_integer, positive_number, real_array
from badmm.clients.exact import ClientSolution, solve_client
from badmm.clients.problem import BoundClient, ClientProblem
from badmm.families.distributions import Distribution
from badmm.families.family import Family, Natural
from badmm.families.registry import bind
from badmm.likelihoods.base import EXPECTATIONS, Expectation
from badmm.methods import REGISTRY
from badmm.methods.base import Method
from badmm.rounds.history import Result, RoundRecord, SolverState
from badmm.rounds.mixing import DualMixing
from badmm.rounds.policy import Setting, Steps

Callback = Callable[[SolverState], Any]


def solve(
    clients: Sequence[Any],
    *,
    family: str,
    prior: Distribution,
    method: str = "bayes_admm",
    rho: Setting = "auto",
    alpha: Setting = "auto",
    damping: Setting = "auto",
    temperature: float = 1.0,
    expectation: Expectation = "auto",
    rounds: int = 100,
    tol: float = 1e-8,
    client_tol: float = 1e-12,
    client_max_iterations: int = 400,
    seed: int = 0,
    callbacks: Iterable[Callback] = (),
    start: Distribution | Natural | None = None,
    duals: Natural | None = None,
    state: SolverState | None = None,
) -> Result:
    """Minimise Σ_k E_q[ℓ_k]/τ + KL(q‖p_0) over q in the family, by rounds over K clients (arXiv:2506.13150, section 3).

    Each round, with penalty ρ, server step α and dual damping γ:

        client   λ_k ← argmin L_k(μ) − ⟨η_k, μ⟩ + ρ KL(q‖q_g)
        dual     η_k ← η_k + γρ(λ_g − λ_k)
        server   λ_g ← (1 − α) mean_k λ_k + α(λ_0 − Σ_k η_k)

    clients: objects that meet the protocol of `badmm.likelihoods.base`. family, prior: see `badmm_kernels.FAMILIES`; a
    scalar precision is spread over a diagonal or a matrix. method: "bayes_admm", "pvi" or "bregman_admm". rho > 0,
    alpha and
    damping in (0, 1], or "auto" (see rounds/policy.py). temperature τ > 0. expectation: how the package's likelihoods
    take E_q. tol: stop at this `gap`. client_tol: relative residual of a client's solution; client_max_iterations:
    its evaluations. seed: for `monte_carlo`. callbacks: called with the `SolverState` after every round. start, duals:
    other than the prior and zero. state: go on from the state of an earlier run with the same arguments; `rounds` then
    counts from that run's beginning.

    Raises `ValueError` for bad arguments, `ClientError` for a client that raises or returns what it should not,
    `LostClientError` for a client's problem without a solution, `ServerDomainError` where explicit step sizes take the
    server out of the domain.
    """
    server = bind(family, prior)
    bound = _bind(clients, server, temperature, expectation, seed)
    if method not in REGISTRY:
        raise ValueError(f"method: expected one of {', '.join(REGISTRY)}, got {method!r}")
    chosen = REGISTRY[method](server, len(bound), rho, alpha, damping)
    rounds = positive_integer(rounds, "rounds")
    if isinstance(tol, bool) or not isinstance(tol, int | float | np.number) or not tol >= 0:
        raise ValueError(f"tol: expected a number of at least 0, got {tol!r}")
    run = _Run(
        server,
        bound,
        chosen,
        positive_number(client_tol, "client_tol"),
        positive_integer(client_max_iterations, "client_max_iterations"),
    )
    if state is None:
        state = run.initial(start, duals)
    else:
        if start is not None or duals is not None:
            raise ValueError("state: expected no start or duals beside it, got both")
        state = run.resumed(state)
    hooks = tuple(callbacks)
    while not (state.records and state.gap <= tol) and state.round < rounds:
        state = run.round(state)
        for hook in hooks:
            hook(state)
    converged = bool(state.records) and state.gap <= tol
    reason = f"gap {state.gap:.3g} at most tol {tol:.3g}" if converged else f"{rounds} rounds"
    return Result(server.posterior(state.natural), state.records, state.round, converged, reason, state)


def _bind(
    clients: Sequence[Any], family: Family, temperature: float, expectation: Expectation, seed: int
) -> list[BoundClient]:
    members = list(clients)
    if not members:
        raise ValueError("clients: expected at least one client, got an empty list")
    if expectation not in EXPECTATIONS:
        raise ValueError(f"expectation: expected one of {', '.join(EXPECTATIONS)}, got {expectation!r}")
    tau = positive_number(temperature, "temperature")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected a non-negative integer, got {seed!r}")
    seeds = np.random.SeedSequence(int(seed)).generate_state(len(members))
    bound = []
    for k, member in enumerate(members):
        configured = getattr(member, "configured", None)
        client = member if configured is None else configured(expectation, int(seeds[k]))
        bound.append(BoundClient(k, client, family, tau))
    return bound


class _Run:
    """The rounds of one call of `solve`."""

    def __init__(
        self, family: Family, bound: list[BoundClient], method: Method, client_tol: float, client_max_iterations: int
    ) -> None:
        self.family, self.bound, self.method = family, bound, method
        self.client_tol, self.client_max_iterations = client_tol, client_max_iterations
        self.mixing = DualMixing(family, family.mixing_memory)

    def initial(self, start: Distribution | Natural | None, duals: Natural | None) -> SolverState:
        """The state before the first round."""
        family, K = self.family, len(self.bound)
        if start is None:
            natural = family.prior_natural
        elif isinstance(start, tuple):
            natural = self._slots(start, "start", family.shapes)
        else:
            natural = bind(family.name, start).prior_natural
        if not family.in_domain(natural):
            raise ValueError(f"start: expected a natural parameter in the domain of {family.name}, got one outside")
        shapes = tuple((K, *shape) for shape in family.shapes)
        eta = tuple(np.zeros(s) for s in shapes) if duals is None else self._slots(duals, "duals", shapes)
        members = tuple(np.broadcast_to(slot, (K, *slot.shape)) for slot in natural)
        return SolverState(0, natural, eta, members, self.method.policy.state(), (), family=family)

    def resumed(self, state: SolverState) -> SolverState:
        """`state` checked against this problem, with the policy set to where it was."""
        shapes = self.family.shapes
        stacked = tuple((len(self.bound), *shape) for shape in shapes)
        natural = self._slots(state.natural, "state.natural", shapes)
        duals = self._slots(state.duals, "state.duals", stacked)
        members = self._slots(state.clients, "state.clients", stacked)
        self.method.policy.restore(state.policy)
        memory = (state.mixing_lines, state.mixing_sums)
        self.mixing.restore(*memory)
        return SolverState(state.round, natural, duals, members, state.policy, state.records, *memory, self.family)

    @staticmethod
    def _slots(value: Natural, name: str, shapes: tuple[tuple[int, ...], ...]) -> Natural:
        if len(value) != len(shapes):
            raise ValueError(f"{name}: expected {len(shapes)} arrays, got {len(value)}")
        slots = tuple(real_array(slot, f"{name}[{i}]") for i, slot in enumerate(value))
        for i, (slot, shape) in enumerate(zip(slots, shapes, strict=True)):
            if slot.shape != shape:
                raise ValueError(f"{name}[{i}]: expected shape {shape}, got {slot.shape}")
        return slots

    def round(self, state: SolverState) -> SolverState:
        """One round."""
        began = time.perf_counter()
        family, policy = self.family, self.method.policy
        events: list[str] = []
        needs = self._required(state)
        steps = self.method.steps(state.natural, lambda: max(needs))
        events += self._violations(needs, steps.rho)
        solutions = self._client_step(state, steps)
        events += [event for solution in solutions for event in solution.events]
        clients = family.stack([solution.natural for solution in solutions])
        lines = self.method.dual(state.duals, state.natural, clients, steps)
        duals, mixed = self._mix(state, lines, steps)
        proposal = self.method.server(clients, duals, steps)
        if mixed and not family.in_domain(proposal):
            events.append("server: mixing left the domain, the round's own dual lines were used")
            duals, mixed = lines, 0
            proposal = self.method.server(clients, duals, steps)
        natural, shortened = self._inside(state.natural, proposal, steps)
        events += shortened
        policy.observe(_relative(proposal, state.natural, natural) / steps.damping)
        before = (state.record.bytes_up, state.record.bytes_down) if state.records else (0, 0)
        primal = _primal(clients, natural)
        consistent = self.method.server(clients, duals, Steps(steps.rho, 1.0, steps.damping))
        dual = _relative(consistent, natural, natural)
        record = RoundRecord(
            round=state.round + 1,
            gap=max(primal, dual),
            primal_residual=primal,
            dual_residual=dual,
            objective=self._objective(natural),
            bytes_up=before[0] + self._bytes(policy.scalars_up),
            bytes_down=before[1] + self._bytes(policy.scalars_down + mixed),
            seconds=time.perf_counter() - began,
            rho=steps.rho,
            alpha=steps.alpha,
            damping=steps.damping,
            client_iterations=[solution.iterations for solution in solutions],
            condition_margin=steps.rho - max(needs),
            mixed=mixed,
            events=events,
        )
        records = (*state.records, record)
        memory = (self.mixing.lines, self.mixing.sums)
        return SolverState(state.round + 1, natural, duals, clients, policy.state(), records, *memory, family)

    def _mix(self, state: SolverState, lines: Natural, steps: Steps) -> tuple[Natural, int]:
        """The new duals, and how many earlier rounds went into them."""
        if not steps.mixing:
            self.mixing.reset()
            return lines, 0
        weights = self.mixing.weights(state.natural, state.duals, lines)
        return (lines, 0) if len(weights) == 1 else (self.mixing.mix(weights), len(weights) - 1)

    def _bytes(self, scalars: int) -> int:
        return 8 * (self.family.message_doubles + scalars) * len(self.bound)

    def _required(self, state: SolverState) -> list[float]:
        return [
            bound.required_rho(state.natural, tuple(slot[k] for slot in state.duals))
            for k, bound in enumerate(self.bound)
        ]

    def _violations(self, needs: list[float], rho: float) -> list[str]:
        return [
            f"client {k}: existence condition violated at rho = {rho:.6g}, holds for rho > {need:.6g}"
            for k, need in enumerate(needs)
            if need >= rho
        ]

    def _client_step(self, state: SolverState, steps: Steps) -> list[ClientSolution]:
        # all clients share what is computed of λ_g
        natural = self.family.parameter(state.natural)
        solutions = []
        for k, bound in enumerate(self.bound):
            eta = tuple(slot[k] for slot in state.duals)
            problem = ClientProblem(bound, natural, eta, steps.rho)
            solutions.append(solve_client(problem, self.client_tol, self.client_max_iterations))
        return solutions

    def _inside(self, before: Natural, proposal: Natural, steps: Steps) -> tuple[Natural, list[str]]:
        """The proposal, or the first of its halvings towards the last λ_g that lies in the domain."""
        if self.family.in_domain(proposal):
            return proposal, []
        if not self.method.policy.safeguarded:
            raise ServerDomainError(
                f"the server's natural parameter left the domain of {self.family.name} at rho = {steps.rho:.6g}, "
                f'alpha = {steps.alpha:.6g}, damping = {steps.damping:.6g}; a smaller damping, or "auto", keeps it'
            )
        t = 0.5
        while t > 1e-12:
            candidate = tuple(b + t * (p - b) for b, p in zip(before, proposal, strict=True))
            if self.family.in_domain(candidate):
                return candidate, [f"server: step shortened to {t:.3g} of its length to stay in the domain"]
            t *= 0.5
        raise ServerDomainError(f"the server found no step inside the domain of {self.family.name}")

    def _objective(self, natural: Natural) -> float:
        q = self.family.posterior(natural)
        try:
            losses = [bound.loss(q) for bound in self.bound]
        except ClientError:
            raise
        return float(np.sum(losses)) + self.family.kl(natural, self.family.prior_natural)


def _relative(new: Natural, old: Natural, scale: Natural) -> float:
    """max over slots of ‖new − old‖ / ‖scale‖; 0 where nothing moved."""
    worst = 0.0
    for a, b, size in zip(new, old, scale, strict=True):
        miss = float(np.linalg.norm(a - b))
        if miss:
            length = float(np.linalg.norm(size))
            worst = max(worst, miss / length if length else float("inf"))
    return worst


def _primal(clients: Natural, natural: Natural) -> float:
    """max over slots of ‖λ_k − λ_g‖ over all clients, against √K ‖λ_g‖."""
    stacked: list[Array] = [np.broadcast_to(slot, many.shape) for many, slot in zip(clients, natural, strict=True)]
    return _relative(clients, tuple(stacked), tuple(stacked))
