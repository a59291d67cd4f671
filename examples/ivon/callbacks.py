"""IVON in a trainer with callbacks and a loop of its own, as transformers' Trainer has: one block per optimizer step.

python examples/ivon/callbacks.py                    a trainer of twenty lines
python examples/ivon/callbacks.py --transformers     transformers' own, where it is installed

`SampledSteps` opens a block before the first of a step's minibatches and closes it before the optimizer steps, so that
all of them, however many gradients are accumulated, see one sample, and evaluation and checkpoints see the mean. The
trainer clips inside the block.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from badmm.ivon import IVON

POINTS, BATCH, CLASSES = 192, 16, 3


class SampledSteps:
    """Callbacks in the names that transformers gives them."""

    def __init__(self) -> None:
        self._block: AbstractContextManager[None] | None = None

    def on_step_begin(self, *_: Any, optimizer: Any, **__: Any) -> None:
        """Before a step's first minibatch; accelerate wraps the optimizer."""
        own: IVON = optimizer if isinstance(optimizer, IVON) else optimizer.optimizer
        self._block = own.sampled_params(train=True)
        self._block.__enter__()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """After clipping, before the optimizer's step."""
        if self._block is not None:
            self._block.__exit__(None, None, None)
            self._block = None


def data() -> tuple[Tensor, Tensor]:
    """Points around three corners and which corner it is."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(POINTS) % CLASSES
    corners = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return corners[labels] + torch.randn(POINTS, 2, generator=draw) * 0.7, labels


class Classifier(nn.Module):
    """A perceptron 2-16-3 that computes its loss, as transformers' models do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, CLASSES))

    def forward(self, points: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Logits, and the loss where labels are given."""
        logits = self.layers(points)
        return (
            {"logits": logits}
            if labels is None
            else {
                "loss": nn.functional.cross_entropy(logits, labels),
                "logits": logits,
            }
        )


def optimizer_for(model: nn.Module) -> IVON:
    """IVON for the data."""
    return IVON(model.parameters(), lr=0.2, ess=POINTS, hess_init=0.5, beta2=0.99, seed=0)


def fit(model: nn.Module, optimizer: IVON, callback: SampledSteps, epochs: int, accumulate: int = 2) -> list[float]:
    """A trainer with callbacks that accumulates gradients and clips; returns the losses by step."""
    points, labels = data()
    draw, losses = torch.Generator().manual_seed(1), []
    for _ in range(epochs):
        parts = torch.randperm(POINTS, generator=draw).split(BATCH)
        for first in range(0, len(parts), accumulate):
            callback.on_step_begin(optimizer=optimizer)
            total = 0.0
            for chosen in parts[first : first + accumulate]:
                loss = model(points[chosen], labels[chosen])["loss"] / accumulate
                loss.backward()
                total += float(loss.detach())
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            callback.on_pre_optimizer_step(optimizer=optimizer)
            optimizer.step()
            model.zero_grad()
            losses.append(total)
    return losses


def fit_with_transformers(model: nn.Module, optimizer: IVON, epochs: int) -> list[float]:
    """transformers' Trainer on the CPU, two minibatches a step; returns the logged losses."""
    import transformers

    callback = type("Callback", (SampledSteps, transformers.TrainerCallback), {})()
    points, labels = data()
    rows = [{"points": p, "labels": k} for p, k in zip(points, labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=1,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        trainer = transformers.Trainer(
            model=model, args=settings, train_dataset=rows, optimizers=(optimizer, schedule), callbacks=[callback]
        )
        trainer.train()
        return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def main(arguments: list[str]) -> int:
    """Train and print the losses."""
    model = Classifier()
    optimizer = optimizer_for(model)
    if "--transformers" in arguments:
        losses = fit_with_transformers(model, optimizer, epochs=10)
    else:
        losses = fit(model, optimizer, SampledSteps(), epochs=10)
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.4f} at last")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
