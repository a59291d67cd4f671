"""`badmm.solve`: rounds of client, dual and server steps until the fixed-point residual is small."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from badmm.checks import implementation, positive_integer, positive_number, real_array, same_columns
from badmm.clients.problem import BoundClient
from badmm.clients.tolerance import Tolerance
from badmm.families.distributions import Distribution
from badmm.families.family import Choice, FamilyGeometry, Natural
from badmm.families.registry import bind
from badmm.likelihoods.base import EXPECTATIONS, Expectation
from badmm.methods import EXACT
from badmm.methods.admm import ExactMethod
from badmm.rounds.exact_clients import ExactClients
from badmm.rounds.exact_server import ExactServer
from badmm.rounds.history import Result, RoundRecord, SolverState
from badmm.rounds.loop import Deadline, Loop, participants
from badmm.rounds.one_by_one import OneByOne
from badmm.rounds.policy import Setting
from badmm.rounds.workers import Workers, available_cores
from badmm.transports.in_process import InProcess
from badmm.transports.messages import Deterministic, Following, Remembering, Reply, Screening, Transport, joined

RELATIVE = {True: 1e-3, False: 1e-5}
"""The automatic tolerance of a client over its displacement, by whether the family keeps the whole curvature.

A client is solved as exactly as the round needs. Where the posterior cannot hold the curvature, errors of clients
disturb the mixing of dual lines: poisson/diabetes/iid-20 of the suite, diagonal, is at 1e-3 after 28 rounds, but with
1e-3 for it not after 45.
"""
Callback = Callable[[SolverState], Any]


def solve(
    clients: Sequence[Any],
    *,
    family: str | Choice,
    prior: Distribution,
    method: str | type[ExactMethod] = "bayes_admm",
    rho: Setting = "auto",
    alpha: Setting = "auto",
    damping: Setting = "auto",
    temperature: float = 1.0,
    expectation: Expectation = "auto",
    rounds: int = 100,
    tol: float = 1e-8,
    client_tol: float | str = "auto",
    client_max_iterations: int = 400,
    seed: int = 0,
    callbacks: Iterable[Callback] = (),
    start: Distribution | Natural | None = None,
    duals: Natural | None = None,
    state: SolverState | None = None,
    participation: float = 1.0,
    per_round: int | None = None,
    workers: int | None = None,
    transport: Transport | None = None,
) -> Result:
    """Minimise Σ_k E_q[ℓ_k]/τ + KL(q‖p_0) over q in the family, by rounds over K clients (arXiv:2506.13150, section 3).

    Each round, with penalty ρ, server step α and dual damping γ:

        client   λ_k ← argmin L_k(μ) − ⟨η_k, μ⟩ + ρ KL(q‖q_g)
        dual     η_k ← η_k + γρ(λ_g − λ_k)
        server   λ_g ← (1 − α) mean_k λ_k + α(λ_0 − Σ_k η_k)

    clients: objects that meet the protocol of `badmm.likelihoods.base`. family, prior: see `badmm_kernels.FAMILIES`; a
    scalar precision is spread over a diagonal or a matrix. A family that leaves something to choose is an object, such
    as `badmm.BlockDiagonalGaussian(blocks=[3, 2])`. method: "bayes_admm", "pvi", "newton", "bregman_admm", or one of
    your own: a subclass of `badmm.methods.ExactMethod` or where it is, "module:Class" or "file.py:Class". rho > 0,
    alpha and damping in (0, 1], or "auto" (see rounds/policy.py). temperature τ > 0. expectation: how the package's
    likelihoods take E_q. tol: stop at this `gap`, in posterior standard deviations. client_tol: the residual of a
    client's solution in its posterior standard deviations, or "auto": a thousandth of how far the client moves, which
    falls with the gap. client_max_iterations: evaluations that a client's problem may take. seed: for `monte_carlo` and
    participation. callbacks: called with the `SolverState` after every round. start, duals: other than the prior and
    zero. state: go on from the state of an earlier run with the same arguments; `rounds` then counts from that run's
    beginning. A client that has left is taken out of it by `SolverState.without`, one that is new comes in by
    `SolverState.joined_by`. participation: the fraction of clients that take part in a round; per_round: their number.
    workers: threads that serve clients, each on one core (default: the cores); results do not depend on it. transport:
    how messages reach the clients (`badmm.transports`; default: all are in this process). With several ranks every rank
    makes the same call with the clients that live there (or none); clients are counted through the ranks in order, and
    `start`, `duals`, `state` and the result's `duals` and `clients` are those of the rank's own, all else is the same
    on every rank.

    Raises `ValueError` for bad arguments, `ClientError` for a client that raises or returns what it should not,
    `LostClientError` for a client's problem without a solution, `ServerDomainError` where explicit step sizes take the
    server out of the domain, `RankError` on the other ranks for what only one of them meets.
    """
    server = bind(family, prior)
    limits = _client_tolerance(client_tol, client_max_iterations, server)
    hooks = _callbacks(callbacks)
    rounds = positive_integer(rounds, "rounds")
    tol = _tolerance(tol)
    share = positive_number(participation, "participation", 1.0)
    transport = InProcess() if transport is None else transport
    with joined(transport), Workers(available_cores() if workers is None else workers) as pool:
        members, first, total = _locate(_clients(clients), transport)
        fraction = share if per_round is None else _fraction(per_round, share, total)
        bound = _bind(members, server, temperature, expectation, seed, first, total)
        chosen = implementation(method, EXACT, ExactMethod, "method")
        policy = chosen.policy(total, rho, alpha, damping, server.mixed_damping)
        terms = isinstance(transport, Remembering) and transport.remembers
        population: Any = ExactClients(bound, server, chosen.dual, limits, pool, first, terms=terms)
        if isinstance(transport, Deterministic) and transport.deterministic:
            alone = [ExactClients([one], server, chosen.dual, limits, pool, one.index) for one in bound]
            population = OneByOne(alone, pool)
        everyone = len(participants(total, 0, fraction, seed)) == total
        exact = ExactServer(server, policy, total, everyone, changes=not everyone and not terms)
        identity = [str(family), server.shapes, chosen.name, temperature, expectation]
        loop = Loop(exact, population, transport, total, identity, fraction=fraction, seed=seed)
        run = _Run(population, exact, loop, pool)
        if isinstance(transport, Screening):
            transport.judge = exact
        if isinstance(transport, Following):
            return _followed(transport, run, start, duals, tol)
        state = run.begin(start, duals) if state is None else run.resume(state, start, duals)
        heard = partial(participants, total, fraction=fraction, seed=seed)
        while loop.goes_on((gap := _gap(state, heard, total)) > tol and state.round < rounds, gap):
            state = run.round(state)
            for hook in hooks:
                hook(state)
    converged = gap <= tol
    reason = _why(state.round, gap, tol, converged)
    return Result(server.posterior(state.natural), state.records, state.round, converged, reason, state)


def _gap(state: SolverState, heard: Callable[[int], list[int]], total: int) -> float:
    """The largest residual of the last rounds in which every one of K clients was heard.

    A round's residual is that of the clients `heard` in it: where a few take part, they can agree with each other while
    the others do not. It is infinite while a client has not been heard, or where one was asked and was absent.
    """
    missing, worst = set(range(total)), 0.0
    for record in reversed(state.records):
        if record.absent:
            break
        missing -= set(heard(record.round - 1))
        worst = max(worst, record.gap)
        if not missing:
            return worst
    return float("inf")


def _why(rounds: int, gap: float, tol: float, converged: bool) -> str:
    return f"gap {gap:.3g} at most tol {tol:.3g}" if converged else f"{rounds} rounds"


def _followed(transport: Following, run: _Run, start: Any, duals: Any, tol: float) -> Result:
    """A site's result: the server's λ_g, and its own clients."""
    population = run.population
    run.place(start, duals)
    with run.workers.one_blas_thread():
        transport.begin(population, lambda message: population.answer(message, Deadline(None)), run.loop.digest)
        last = transport.follow()
    natural, gap = population.natural, last.numbers["gap"]
    memory = {"sent": population.sent, "mixing_lines": tuple(population.lines)}
    state = SolverState(last.round, natural, population.duals, population.clients, {}, (), family=run.family, **memory)
    why = _why(last.round, gap, tol, gap <= tol)
    return Result(run.family.posterior(natural), (), last.round, gap <= tol, why, state)


def _callbacks(callbacks: Any) -> tuple[Callback, ...]:
    hooks = tuple(callbacks) if isinstance(callbacks, Iterable) and not isinstance(callbacks, str) else None
    if hooks is None or not all(map(callable, hooks)):
        raise ValueError(f"callbacks: expected functions of the state, got {callbacks!r:.80}")
    return hooks


def _tolerance(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1e300:
        raise ValueError(f"tol: expected a number of at least 0, got {value!r:.80}")
    return float(value)


def _client_tolerance(value: float | str, evaluations: int, family: FamilyGeometry) -> Tolerance:
    limit = positive_integer(evaluations, "client_max_iterations")
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f'client_tol: expected "auto" or a positive number, got {value!r}')
        return Tolerance(relative=RELATIVE[family.keeps_curvature], max_evaluations=limit)
    return Tolerance(positive_number(value, "client_tol"), max_evaluations=limit)


def _clients(clients: Any) -> list[Any]:
    if not isinstance(clients, Iterable):
        raise ValueError(f"clients: expected a sequence of client objects, got {type(clients).__name__}")
    return list(clients)


def _locate(members: list[Any], transport: Transport) -> tuple[list[Any], int, int]:
    """This rank's clients, the index of its first, and K."""
    counts = np.zeros(transport.size)
    counts[transport.rank] = len(members)
    counts = transport.reduce(Reply(0, "", len(members), sums={"clients": counts})).sums["clients"]
    if not counts.sum():
        raise ValueError("clients: expected at least one client, got an empty list")
    return members, int(counts[: transport.rank].sum()), int(counts.sum())


def _fraction(per_round: Any, share: float, total: int) -> float:
    if share != 1.0:
        raise ValueError(f"per_round: expected no participation beside it, got {share!r}")
    if positive_integer(per_round, "per_round") > total:
        raise ValueError(f"per_round: expected at most {total} clients, got {per_round}")
    return int(per_round) / total


def _bind(
    members: list[Any],
    family: FamilyGeometry,
    temperature: float,
    expectation: Expectation,
    seed: int,
    first: int,
    total: int,
) -> list[BoundClient]:
    same_columns(members)
    if not isinstance(expectation, str) or expectation not in EXPECTATIONS:
        raise ValueError(f"expectation: expected one of {', '.join(EXPECTATIONS)}, got {expectation!r:.80}")
    tau = positive_number(temperature, "temperature")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected a non-negative integer, got {seed!r:.80}")
    seeds = np.random.SeedSequence(int(seed)).generate_state(total)
    bound = []
    for k, member in enumerate(members, start=first):
        configured = getattr(member, "configured", None)
        client = member if configured is None else configured(expectation, int(seeds[k]))
        bound.append(BoundClient(k, client, family, tau))
    return bound


class _Run:
    """Clients and server of one call of `solve`, and the state that both leave after a round."""

    def __init__(self, population: Any, server: ExactServer, loop: Loop, workers: Workers) -> None:
        self.population, self.server, self.loop, self.workers = population, server, loop, workers
        self.family, self.policy = server.family, server.policy

    def place(self, start: Distribution | Natural | None, duals: Natural | None) -> Natural:
        """Put the clients where they start; λ_g."""
        family, K = self.family, len(self.population)
        if start is None:
            natural = family.prior_natural
        elif isinstance(start, tuple):
            natural = _slots(start, "start", family.shapes)
        else:
            natural = type(family)(family.ns, start).prior_natural
        if not family.in_domain(natural):
            raise ValueError(f"start: expected a natural parameter in the domain of {family.name}, got one outside")
        shapes = tuple((K, *shape) for shape in family.shapes)
        eta = tuple(np.zeros(s) for s in shapes) if duals is None else _slots(duals, "duals", shapes)
        members = tuple(np.repeat(slot[None], K, axis=0) for slot in natural)
        self.population.start(natural, eta, members)
        return natural

    def begin(self, start: Distribution | Natural | None, duals: Natural | None) -> SolverState:
        """The state before the first round."""
        natural = self.place(start, duals)
        with self.workers.one_blas_thread():
            self.server.start(natural, (), self.loop.ask)
        return self._state(())

    def resume(self, state: SolverState, start: Any, duals: Any) -> SolverState:
        """Go on from `state`, checked against this problem."""
        if not isinstance(state, SolverState):
            raise ValueError(f"state: expected a SolverState, got {type(state).__name__}")
        if start is not None or duals is not None:
            raise ValueError("state: expected no start or duals beside it, got both")
        shapes = self.family.shapes
        stacked = tuple((len(self.population), *shape) for shape in shapes)
        natural = _slots(state.natural, "state.natural", shapes)
        eta = _slots(state.duals, "state.duals", stacked)
        members = _slots(state.clients, "state.clients", stacked)
        sent = _slots(state.sent, "state.sent", stacked) if state.sent else ()
        self.policy.restore(state.policy)
        self.server.mixing.restore(state.mixing_totals, state.mixing_changes)
        self.population.start(natural, eta, members, sent, state.mixing_lines)
        self.loop.index = state.round
        with self.workers.one_blas_thread():
            total = () if self.server.changes and not sent else state.total
            self.server.start(natural, total, self.loop.ask, regrouped=not state.total)
        if state.records:
            self.loop.bytes_up, self.loop.bytes_down = state.record.bytes_up, state.record.bytes_down
        return self._state(state.records)

    def round(self, state: SolverState) -> SolverState:
        """One round."""
        with self.workers.one_blas_thread():
            record = self.server.record(self.loop.round())
        return self._state((*state.records, record))

    def _state(self, records: tuple[RoundRecord, ...]) -> SolverState:
        server, population = self.server, self.population
        return SolverState(
            self.loop.index,
            server.natural,
            population.duals,
            population.clients,
            self.policy.state(),
            records,
            total=server.total,
            sent=population.sent,
            mixing_lines=tuple(population.lines),
            mixing_totals=tuple(server.mixing.totals),
            mixing_changes=tuple(server.mixing.changes),
            family=self.family,
        )


def _slots(value: Any, name: str, shapes: tuple[tuple[int, ...], ...]) -> Natural:
    if not isinstance(value, tuple | list) or len(value) != len(shapes):
        got = len(value) if isinstance(value, tuple | list) else type(value).__name__
        raise ValueError(f"{name}: expected {len(shapes)} arrays, got {got}")
    slots = tuple(real_array(slot, f"{name}[{i}]") for i, slot in enumerate(value))
    for i, (slot, shape) in enumerate(zip(slots, shapes, strict=True)):
        if slot.shape != shape:
            raise ValueError(f"{name}[{i}]: expected shape {shape}, got {slot.shape}")
    return slots
