"""Whether training has moved h, and how the samples' noise compares with the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from badmm.ivon import settings
from badmm.ivon.arrange import Arrangement


@dataclass(frozen=True)
class Still:
    """When h counts as not moved: after so many steps, its mean |h − h₀|/h₀ below this share."""

    steps: int = 100
    share: float = 0.05


STILL = Still()


@dataclass(frozen=True)
class Diagnosis:
    """One group after `steps` steps. moved: mean |h − h₀|/h₀ over its coordinates. memory: 1/(1 − β₂), the steps that h
    averages over. noise: root mean square of the samples' deviation 1/√(ess (h + δ)/τ). weights: that of the mean.
    """

    group: int
    steps: int
    moved: float
    memory: float
    noise: float
    weights: float

    @property
    def still(self) -> bool:
        """Whether the posterior's precision still is that of the start."""
        return self.steps >= STILL.steps and self.moved < STILL.share

    def __str__(self) -> str:
        said = "has not moved" if self.still else "has moved"
        text = f"IVON: h of group {self.group} {said} from hess_init: by {self.moved:.2%} in {self.steps} steps"
        if self.still:
            text += f"; beta2 averages over {self.memory:.0f} steps, so that the posterior's precision is hess_init's"
        return f"{text} (samples deviate by {self.noise:.2g}, weights are {self.weights:.2g}, root mean squares)"


def diagnose(group: dict[str, Any], arranged: Arrangement) -> Diagnosis:
    """Look at a group's state."""
    start, weight = settings.number(group, "hess_init"), settings.number(group, "weight_decay")
    size = settings.number(group, "ess") / settings.number(group, "temperature")
    count, moved, variance, square = 0, 0.0, 0.0, 0.0
    for store in arranged.trained:
        s = store.arrays["precision"].double()
        cavity = store.arrays["cavity_precision"].double() if "cavity_precision" in store.arrays else weight
        count += s.numel()
        moved += float((s - cavity - start).abs().sum()) / start
        variance += float((1 / (size * s)).sum())
        square += sum(float(slot.home.double().square().sum()) for slot in store.slots)
    memory = 1 / (1 - settings.number(group, "beta2")) if settings.number(group, "beta2") < 1 else float("inf")
    n = max(count, 1)
    return Diagnosis(arranged.number, group["step"], moved / n, memory, (variance / n) ** 0.5, (square / n) ** 0.5)
