"""How good a server's model is: accuracy, NLL and ECE at the mean and averaged over posterior draws, worst client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from badmm.experiments import predictive
from badmm.networks.stacked import Stacked

BINS = 15
"""Equal-width bins of the expected calibration error."""
_BLOCK = 1000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """Images as levels 0..`levels` (N, ...), labels (N,), and the clients' class mixes (K, C) in training.

    What "worst client" means: client k's accuracy is Σ_c mix_kc · (accuracy on held-out points of class c), that on
    points drawn with the class proportions it trains on; classes without held-out points are left out.
    """

    inputs: Tensor
    labels: NDArray[np.int64]
    mixes: Array
    levels: int = 1

    def probabilities(self, stack: Stacked, theta: Tensor) -> Array:
        """softmax of the network's outputs at parameters (P,), (N, C), in float64."""
        parts = []
        with torch.no_grad():
            for block in self.inputs.split(_BLOCK):
                outputs = stack.outputs(theta, block.to(theta.dtype) / self.levels)
                parts.append(outputs.double().softmax(dim=1).cpu())
        return np.asarray(torch.cat(parts).numpy())


def averaged(held_out: HeldOut, stack: Stacked, draws: Tensor) -> Array:
    """The mean of the class probabilities (N, C) over parameter draws (S, P)."""
    total = np.zeros((len(held_out.labels), 1))
    for theta in draws:
        total = total + held_out.probabilities(stack, theta)
    return np.asarray(total / len(draws))


def scores(held_out: HeldOut, probability: Array) -> dict[str, float]:
    """`accuracy`, `nll` (nats a point), `ece` (15 bins) and `worst_client` accuracy of class probabilities (N, C).

    All are NaN where a probability is: a network that overflows predicts nothing.
    """
    if not np.isfinite(probability).all():
        return dict.fromkeys(("accuracy", "nll", "ece", "worst_client"), float("nan"))
    whole = predictive.class_scores(probability, held_out.labels, bins=BINS)
    return {**whole.as_dict(), "worst_client": worst_client(held_out, probability)}


def worst_client(held_out: HeldOut, probability: Array) -> float:
    """The smallest accuracy of a client, as `HeldOut` defines it."""
    classes = held_out.mixes.shape[1]
    right = probability.argmax(axis=1) == held_out.labels
    counts = np.bincount(held_out.labels, minlength=classes)
    hits = np.bincount(held_out.labels, weights=right, minlength=classes)
    present = counts > 0
    weights = held_out.mixes[:, present]
    total = weights.sum(axis=1)
    of_client = (weights @ (hits[present] / counts[present]))[total > 0] / total[total > 0]
    return float(of_client.min()) if of_client.size else float("nan")


def reliability(held_out: HeldOut, probability: Array) -> dict[str, list[float]]:
    """For a reliability diagram: mean `confidence`, `accuracy` and `share` of the points in each `bin` that has any.

    No bin has any where a probability is NaN.
    """
    if not np.isfinite(probability).all():
        return {"bin": [], "confidence": [], "accuracy": [], "share": []}
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == held_out.labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    some = count > 0
    sums: dict[str, Any] = {
        name: np.bincount(bins, weights=values, minlength=BINS)[some] / count[some]
        for name, values in (("confidence", confidence), ("accuracy", right))
    }
    means = {name: values.tolist() for name, values in sums.items()}
    return {"bin": np.flatnonzero(some).tolist(), **means, "share": (count[some] / len(bins)).tolist()}


def point_flops(stack: Stacked, inputs: Tensor, dtype: torch.dtype) -> float:
    """Floating point operations of one point's gradient: what a client's FLOPs are counted in.

    The rule: multiply-adds of matrix products and convolutions, two operations each, forward and backward (no gradient
    in the inputs), as `torch.utils.flop_counter` counts them; elementwise work (activations, norms, the optimizer) is
    left out. `inputs` (n, ...) are some points, n ≥ 1.
    """
    from torch.utils.flop_counter import FlopCounterMode

    theta = {name: view.clone().requires_grad_() for name, view in stack.views(stack.initial(dtype)).items()}
    with FlopCounterMode(display=False) as counter:
        torch.func.functional_call(stack.network, theta, (inputs[:2].to(dtype).cpu(),)).sum().backward()
    return float(counter.get_total_flops()) / len(inputs[:2])
