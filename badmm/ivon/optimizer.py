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
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor

from badmm.checks import positive_integer
from badmm.ivon import backends, ranks, settings
from badmm.ivon.arrange import Arrangement, check_apart
from badmm.ivon.diagnosis import STILL, Diagnosis, diagnose
from badmm.ivon.prior import Values, set_cavity
from badmm.ivon.slots import Phase, Slot
from badmm.ivon.states import readable
from badmm.ivon.stores import Run
from badmm.ivon.waiting import Frame, Waiting

_OWN = ("mc_samples", "hess_approx", "sync", "debias", "rescale_lr", "sample_in_closure", "_backend")


class IVON(torch.optim.Optimizer):
    """Improved variational online Newton with ivon-opt's keywords; q = N(m, 1/(ess/τ · (h + δ))) over the parameters.

    lr: step size, times (hess_init + weight_decay) where `rescale_lr`. ess: effective sample size, points in the data.
    hess_init: h at the start. beta1, beta2: decays of momentum and h. weight_decay: δ, the prior's precision over
    ess/τ (mean 0; `set_prior` for others and for duals). mc_samples: how often `step` calls a closure. hess_approx:
    "price", E[∇ℓ ε]√(ess(h + δ)), or "gradsq", E[∇ℓ²] of the minibatch's mean gradient, which ivon-opt 0.1.3 multiplies
    by ess once too often (its issue 8). clip_radius: largest entry of the mean's direction. sync: average gradients and
    curvatures over torch.distributed's ranks, each with normals of its own, inside DistributedDataParallel or without
    it. debias: divide the momentum by 1 − β₁ᵗ. temperature: τ. seed: of the normals; None: drawn from torch's
    generator, so that `torch.manual_seed` sets it. backend: see `backends.load`. sample_in_closure: `step` draws a
    sample around every call of its closure, for trainers whose closure knows nothing of samples.

    Parameters keep their memory: it holds the mean, and inside a block each `.data` is a new tensor with the sample.
    Frozen ones (requires_grad False, at any time) are neither drawn nor moved. State is float32 for bfloat16 and
    float16, whose mean is kept in float32 and rounded. The sample's gradient is what `.grad` holds when the block ends;
    clipping or unscaling it until the step counts, a later backward pass does not; a parameter without one has
    gradient 0; sparse ones become dense. A normal depends on the seed, the draw's number, the rank and the parameter's
    place in its group, where those below 8192 entries share one stream; not on the device, threads or what is frozen.
    A group holds β₁ and β₂ as beta1, beta2 and as betas, whichever a user or scheduler (OneCycleLR) sets. The state
    of an unfinished step is not saved.

    Raises ValueError for settings, parameters that share parts of their memory, and a gradient that is not finite (on a
    GPU, whose kernels do not wait to tell, in `badmm_kernels.synchronize`), after which the state is lost, except under
    a GradScaler, whose skipped step changes nothing; with several samples a step leave unscaling to `GradScaler.step`.
    RuntimeError for a step without a sample and for what a block cannot hold.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
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
        sample_in_closure: bool = False,
    ) -> None:
        if hess_approx not in ("price", "gradsq"):
            raise ValueError(f'hess_approx: expected "price" or "gradsq", got {hess_approx!r}')
        self.mc_samples = positive_integer(mc_samples, "mc_samples")
        self.hess_approx, self._backend = hess_approx, backend
        self.sync, self.debias = settings.flag(sync, "sync"), settings.flag(debias, "debias")
        self.rescale_lr = settings.flag(rescale_lr, "rescale_lr")
        self.sample_in_closure = settings.flag(sample_in_closure, "sample_in_closure")
        self._start()
        drawn = int(torch.randint(1 << 62, (1,))) if seed is None else seed
        options: dict[str, Any] = {"lr": lr, "ess": ess, "hess_init": hess_init, "beta1": beta1, "beta2": beta2}
        options |= {"weight_decay": weight_decay, "clip_radius": clip_radius, "temperature": temperature}
        super().__init__(params, {**options, "betas": (beta1, beta2), "seed": drawn, "draws": 0, "step": 0})

    def _start(self) -> None:
        """What lives beside the saved state."""
        self._phase, self._frames = Phase(), list[Frame]()
        self._arrangements: list[Arrangement] = []
        self._state_seen: list[int] = []
        self._betas: list[tuple[float, float]] = []
        self._waiting, self._looked = Waiting(self.hess_approx == "gradsq"), False

    @torch.no_grad()
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own."""
        super().add_param_group(settings.with_betas(param_group, self.defaults))
        group = self.param_groups[-1]
        try:
            settings.check(group)
            self._refresh()
        except (ValueError, RuntimeError):
            self.param_groups.pop()
            del self._arrangements[len(self.param_groups) :], self._betas[len(self.param_groups) :]
            raise

    def _refresh(self) -> None:
        """Follow what the user did to parameters, groups and state since the last call."""
        if self._frames:
            return
        for number in range(len(self._arrangements), len(self.param_groups)):
            group = self.param_groups[number]
            load = partial(backends.load, "ivon", backend=self._backend)  # not a method: no circle keeps state alive
            self._arrangements.append(Arrangement(number, group, load, self._phase))
            self._betas.append(settings.settle_betas(group))
        moved = [arranged.moved() for arranged in self._arrangements]
        if True in moved or self._state_ids() != self._state_seen:
            self._state_seen = [0]  # so that what is refused now is looked at again by the next call
            with torch.no_grad():
                for arranged in self._arrangements:
                    arranged.refresh(self.state, waiting=self._waiting.count > 0)
            check_apart(slot for arranged in self._arrangements for slot in arranged.slots)
            self._state_seen = self._state_ids()

    def _state_ids(self) -> list[int]:
        """Which tensors the state holds: a user may replace them."""
        return [*map(id, chain.from_iterable(map(dict.values, self.state.values())))]

    @contextmanager
    def sampled_params(self, train: bool = False) -> Iterator[None]:
        """Within it the parameters are a sample of q; after it, whatever happened, its mean.

        With `train`, the gradients there at its end are taken as this sample's, unless it ends with an exception. A
        block without `train` may be inside another one.
        """
        frame = self._enter(train)
        try:
            yield
        except BaseException:
            self._leave(frame)
            raise
        replaced = self._leave(frame)
        if replaced:
            raise RuntimeError(
                f"params: {replaced[0].place} was given other memory inside sampled_params, where it is a sample; "
                "replace, move or load parameters outside"
            )
        if train:
            self._waiting.collect(self._runs(), self._phase.local)

    def _enter(self, train: bool) -> Frame:
        if train and self._frames:
            raise RuntimeError("sampled_params: expected train=False inside another block, got train=True")
        self._refresh()
        if train:
            self._waiting.flush(self._arrangements, another=True)
            self._phase.local = self.sync and ranks.size() > 1
        elif not self._looked:
            self._look()
        frame = Frame(self._phase.open)
        outer = {id(slot): sample for slot, _, sample in self._frames[-1].shown} if self._frames else {}
        try:
            for slot, sample in self._draw("noise" if train else "other noise"):
                frame.show(slot, outer.get(id(slot), slot.home), sample)
        except BaseException:
            frame.restore()
            raise
        self._phase.open = train
        self._frames.append(frame)
        return frame

    def _leave(self, frame: Frame) -> list[Slot]:
        """Put back what was shown before; the slots whose sample is not there any more."""
        del self._frames[next(k for k, f in enumerate(self._frames) if f is frame) :]
        self._phase.open = frame.outer
        return frame.restore()

    def _draw(self, normals: str) -> list[tuple[Slot, Tensor]]:
        """A sample per slot that is trained, from normals in the buffers of that name."""
        rank, found = ranks.rank() if self.sync else 0, list[tuple[Slot, Tensor]]()
        for group, arranged in zip(self.param_groups, self._arrangements, strict=True):
            ess = _posterior_size(group)
            for run in arranged.runs:
                if not self._frames:
                    run.gather()
                at = arranged.seed(run.store, rank), group["draws"]
                found += zip(run.slots, run.sample(ess, normals, at), strict=True)
            group["draws"] += 1
        return found

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step from the samples since the last one; a closure takes one, and is called `mc_samples` times.

        Returns the mean of what the closure returned, or None. With `sample_in_closure` each call of it is inside a
        block of its own.
        """
        if self._frames:
            raise RuntimeError("step: expected the end of sampled_params first, got a call inside it")
        loss = None if closure is None else self._call(closure)
        if self._waiting.count == 0:
            raise RuntimeError(
                "step: expected a sample from sampled_params(train=True), got none since the last step; with "
                "sample_in_closure=True a closure is given one"
            )
        self._refresh()
        scale, found = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)  # a GradScaler's
        average = self.sync and ranks.size() > 1
        if not self._waiting.settle(self._arrangements, scale, found, average):
            for number, (group, arranged) in enumerate(zip(self.param_groups, self._arrangements, strict=True)):
                group["step"] += 1
                self._betas[number] = settings.settle_betas(group, self._betas[number])
                self._update(group, arranged.runs)
        self._waiting.forget(self._arrangements)
        return loss

    def _call(self, closure: Callable[[], Any]) -> Any:
        losses = []
        for _ in range(self.mc_samples):
            with torch.enable_grad():
                if self.sample_in_closure:
                    with self.sampled_params(train=True):
                        losses.append(closure())
                else:
                    losses.append(closure())
        return None if losses[0] is None else sum(losses) / self.mc_samples

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients to None, or to 0; the sample that waits for its step keeps its own."""
        if not set_to_none and not self._frames:
            self._waiting.flush(self._arrangements)
        super().zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """State by parameter and group; tensors are copies where the optimizer keeps small parameters' together."""
        found: dict[str, Any] = super().state_dict()
        for number, own in found["state"].items():
            together = {k: v for k, v in own.items() if v.untyped_storage().nbytes() > v.nbytes}
            found["state"][number] = {**own, **{k: v.clone() for k, v in together.items()}}
        return found

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken: the same normals, the same numbers. The model's own state is its mean.

        ivon-opt's state loads too, with its h and momentum. ValueError for another optimizer's or another model's.
        """
        if self._frames:
            raise RuntimeError("load_state_dict: expected a call outside sampled_params, got one inside it")
        given = readable(state_dict, self.param_groups)
        super().load_state_dict(given)
        for saved, group in zip(given["param_groups"], self.param_groups, strict=True):
            for number, p in zip(saved["params"], group["params"], strict=True):
                own = given["state"].get(number, {})  # torch would round it to the parameter's type
                self.state[p] = {name: value.detach().clone() for name, value in own.items()}
        self._start()
        self._refresh()

    def __getstate__(self) -> dict[str, Any]:
        if self._frames:
            raise RuntimeError("IVON: expected to be copied or pickled outside sampled_params, got a call inside it")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _OWN}}

    @torch.no_grad()
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._start()
        self._refresh()

    @torch.no_grad()
    def set_prior(
        self, mean: Values, precision: Values, duals: tuple[Values, Values] | None = None, rho: float = 1.0
    ) -> None:
        """Replace the prior by N(mean, 1/precision), and h by hess_init above it; with duals (η_ξ, η_S) for ADMM.

        Minimises E[ℓ]/τ − ⟨η, μ⟩ + ρ KL(q‖prior) where ess is N/ρ (arXiv:2506.13150); ℓ sums over N points. Values: a
        number, or tensors like the parameters in their order. `weight_decay` still scales lr where `rescale_lr`.
        """
        self._refresh()
        set_cavity(self._arrangements, self.state, mean, precision, duals or (0.0, 0.0), rho)

    @property
    def mean(self) -> list[Tensor]:
        """m, one tensor per parameter; the parameters' own memory, or float32 beside those in half precision."""
        self._refresh()
        for run in self._runs() if not self._frames else ():
            run.gather()
        homes = {id(p): slot.home for slot in self._slots() for p in slot.parameters}
        listed = [p for group in self.param_groups for p in group["params"]]
        return [self.state[p].get("mean", homes[id(p)]) for p in listed]

    @property
    def precision(self) -> list[Tensor]:
        """The posterior's precision ess/τ · (h + δ), one tensor per parameter; at its start for one frozen so far."""
        self._refresh()
        found = []
        for group in self.param_groups:
            size, start = _posterior_size(group), group["hess_init"] + group["weight_decay"]
            for p in group["params"]:
                own = self.state[p].get("precision") if p in self.state else None
                found.append((torch.full_like(p.detach(), start) if own is None else own) * size)
        return found

    @torch.no_grad()
    def sample(self) -> list[Tensor]:
        """A draw from the posterior, one tensor per parameter; the model keeps its mean."""
        self._refresh()
        drawn = {id(p): sample for slot, sample in self._draw("other noise") for p in slot.parameters}
        homes = {id(p): slot.home for slot in self._slots() for p in slot.parameters}
        listed = [p for group in self.param_groups for p in group["params"]]
        return [drawn.get(id(p), homes[id(p)]).clone() for p in listed]

    def diagnose(self) -> list[Diagnosis]:
        """Per group: how far h is from hess_init, and the samples' deviation beside the weights'."""
        self._refresh()
        return [diagnose(*pair) for pair in zip(self.param_groups, self._arrangements, strict=True)]

    def _look(self) -> None:
        """Warn once where a posterior is drawn from whose h training has not moved."""
        for group in self.param_groups:
            if group["step"] < STILL.steps:
                return
        self._looked = True
        for found in self.diagnose():
            if found.still:
                warnings.warn(str(found), UserWarning, stacklevel=5)

    def _slots(self) -> Iterator[Slot]:
        return (slot for arranged in self._arrangements for slot in arranged.slots)

    def _runs(self) -> list[Run]:
        return [run for arranged in self._arrangements for run in arranged.runs]

    def _update(self, group: dict[str, Any], runs: list[Run]) -> None:
        """The kernels' step."""
        number, squares = partial(settings.number, group), self._waiting.squares
        weight, beta1 = number("weight_decay"), number("beta1")
        lr = number("lr") * (number("hess_init") + weight if self.rescale_lr else 1.0)
        debias = 1.0 - beta1 ** group["step"] if self.debias else 1.0
        scalars = (_posterior_size(group), lr, beta1, number("beta2"), debias, number("clip_radius"))
        for run in runs:
            run.gather()
            try:
                if self._waiting.pending:
                    run.update(scalars, weight)
                else:
                    run.update_averaged(scalars, weight, self._waiting.count, squares)
            except ValueError as error:
                self._waiting.forget(self._arrangements)
                settings.check(group)  # the kernels see lr times a sum of others: this names the setting itself
                raise ValueError(f"{error}, in {run.place}") from error
            run.scatter()


def _posterior_size(group: dict[str, Any]) -> float:
    """ess/τ."""
    return settings.number(group, "ess") / settings.number(group, "temperature")
