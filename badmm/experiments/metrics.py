"""Scores of a server's model on points that no client trains on: `HeldOut` for classes, `Points` for other targets.

    HeldOut   accuracy, NLL and ECE at the mean and averaged over posterior draws, the worst client's accuracy
    Points    the mean loss at the mean, and −log of the mean likelihood over draws; accuracy where targets are integers

Both add a user's own metrics, functions of (outputs, targets).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
Metric = Callable[[Tensor, Tensor], Any]
"""A function of outputs (N, ...) and targets (N, ...) that returns a number."""


@dataclass(frozen=True)
class Server:
    """The scored model: parameters (P,) at the posterior's mean, draws (S, P) or None, buffers (B,) or None."""

    mean: Tensor
    draws: Tensor | None = None
    buffers: Tensor | None = None


def outputs_at(inputs: Tensor, levels: int | None, stack: Stacked, theta: Tensor, buffers: Tensor | None) -> Tensor:
    """Return outputs (N, ...) at parameters (P,) and buffers (B,), on the CPU; inputs are those of `ClientData`."""
    parts = []
    with torch.no_grad():
        for block in inputs.split(_BLOCK):
            x = block if levels is None else block.to(theta.dtype) / levels
            parts.append(stack.outputs(theta, x, buffers).cpu())
    return torch.cat(parts)


def own_scores(own: Mapping[str, Metric], outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the user's metrics by name."""
    return {name: float(metric(outputs, targets)) for name, metric in own.items()}


@dataclass(frozen=True)
class HeldOut:
    """Images as levels 0..`levels` (N, ...), labels (N,), and the clients' class mixes (K, C) in training.

    The accuracy of client k is Σ_c mix_kc · (accuracy on held-out points of class c), the expected accuracy on points
    with its class proportions; classes without held-out points are left out. "Worst client" is the smallest of these.
    """

    inputs: Tensor
    labels: NDArray[np.int64]
    mixes: Array
    levels: int | None = 1
    own: Mapping[str, Metric] = field(default_factory=dict)

    def probabilities(self, stack: Stacked, theta: Tensor, buffers: Tensor | None = None) -> Array:
        """softmax of the network's outputs at parameters (P,), (N, C), in float64."""
        outputs = outputs_at(self.inputs, self.levels, stack, theta, buffers)
        return np.asarray(outputs.double().softmax(dim=1).numpy())

    def record(self, stack: Stacked, server: Server) -> dict[str, Any]:
        """Return the scores at the mean, and under `averaged` those of predictions averaged over the draws or None."""
        found: dict[str, Any] = scores(self, self.probabilities(stack, server.mean, server.buffers))
        if self.own:
            outputs = outputs_at(self.inputs, self.levels, stack, server.mean, server.buffers)
            found |= {"metrics": own_scores(self.own, outputs, torch.from_numpy(self.labels))}
        return {**found, "averaged": None if server.draws is None else scores(self, self._averaged(stack, server))}

    def reliability(self, stack: Stacked, server: Server) -> dict[str, Any]:
        """Return the bins of the reliability diagrams at the `mean` and `averaged`, or None without draws."""
        bins = {"mean": reliability(self, self.probabilities(stack, server.mean, server.buffers))}
        return {**bins, "averaged": None if server.draws is None else reliability(self, self._averaged(stack, server))}

    def _averaged(self, stack: Stacked, server: Server) -> Array:
        assert server.draws is not None
        return averaged(self, stack, server.draws, server.buffers)


@dataclass(frozen=True)
class Points:
    """Inputs in the form of `ClientData`, and targets (N, ...) of any task with a loss."""

    inputs: Tensor
    targets: Tensor
    levels: int | None = 1
    own: Mapping[str, Metric] = field(default_factory=dict)

    def record(self, stack: Stacked, server: Server) -> dict[str, Any]:
        """Return `nll` (the mean loss), own metrics, `accuracy` of integer targets; `averaged`: −log mean e^−loss."""
        outputs = outputs_at(self.inputs, self.levels, stack, server.mean, server.buffers)
        targets = self.targets.cpu()
        found: dict[str, Any] = {"nll": float(stack.loss.points(outputs, targets).double().mean())}
        if not targets.is_floating_point() and outputs.ndim == targets.ndim + 1:
            found["accuracy"] = float((outputs.argmax(dim=1) == targets).double().mean())
        if self.own:
            found["metrics"] = own_scores(self.own, outputs, targets)
        return {**found, "averaged": None if server.draws is None else self._averaged(stack, server)}

    def reliability(self, stack: Stacked, server: Server) -> dict[str, Any] | None:
        """Return None: confidence is defined for classes alone."""
        return None

    def _averaged(self, stack: Stacked, server: Server) -> dict[str, float]:
        assert server.draws is not None
        likelihoods = [
            -stack.loss.points(outputs_at(self.inputs, self.levels, stack, theta, server.buffers), self.targets.cpu())
            for theta in server.draws
        ]
        mean = torch.stack(likelihoods).double().logsumexp(dim=0) - np.log(len(likelihoods))
        return {"nll": float(-mean.mean())}


def averaged(held_out: HeldOut, stack: Stacked, draws: Tensor, buffers: Tensor | None = None) -> Array:
    """Return the mean of the class probabilities (N, C) over parameter draws (S, P)."""
    total = np.zeros((len(held_out.labels), 1))
    for theta in draws:
        total = total + held_out.probabilities(stack, theta, buffers)
    return np.asarray(total / len(draws))


def scores(held_out: HeldOut, probability: Array) -> dict[str, float]:
    """Return `accuracy`, `nll` (nats per point), `ece` (15 bins), `worst_client` of class probabilities (N, C).

    All are NaN if a probability is not finite, as of a network that overflows.
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
    """Return mean `confidence`, `accuracy` and `share` of points per nonempty `bin`, for a reliability diagram.

    All lists are empty if a probability is not finite.
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


def point_flops(stack: Stacked, inputs: Tensor) -> float:
    """Floating point operations of one point's gradient: what a client's FLOPs are counted in.

    It counts the multiply-adds of matrix products and convolutions as two operations, forward and backward (without the
    gradient in the inputs), by `torch.utils.flop_counter`; elementwise work (activations, norms, the optimizer) is not
    counted. inputs: points (n, ...), n ≥ 1.
    """
    from torch.utils.flop_counter import FlopCounterMode

    network = copy.deepcopy(stack.network).train()
    device = next(network.parameters()).device
    drawn = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with drawn, FlopCounterMode(display=False) as counter:
        network(inputs.to(device)).sum().backward()
    return float(counter.get_total_flops()) / len(inputs)
