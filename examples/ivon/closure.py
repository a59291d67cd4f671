"""IVON in a trainer that hands `step` a closure, as Lightning does: `sample_in_closure=True` draws around each call.

python examples/ivon/closure.py                 a trainer of ten lines
python examples/ivon/closure.py --lightning     Lightning's own, where it is installed

The closure clears the gradients, computes the loss and calls backward, and knows nothing of samples. With mc_samples=S
it is called S times a step. In Lightning leave accumulate_grad_batches at 1: batches that do not step call the closure
themselves, at the mean.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from badmm.ivon import IVON

POINTS, BATCH = 256, 32


def data() -> tuple[Tensor, Tensor]:
    """Noisy values of sin(3x) on [−1, 1]."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(POINTS, 1, generator=draw) * 2 - 1
    return x, torch.sin(3 * x) + 0.1 * torch.randn(POINTS, 1, generator=draw)


def batches(epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Minibatches in an order of their own every epoch."""
    x, y = data()
    draw = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for chosen in torch.randperm(POINTS, generator=draw).split(BATCH):
            yield x[chosen], y[chosen]


def network() -> nn.Sequential:
    """A perceptron 1-32-1."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))


def optimizer_for(model: nn.Module) -> IVON:
    """IVON that draws by itself; ess counts the data over the noise's variance, for a loss that is a mean square."""
    ess = POINTS * 50.0
    return IVON(model.parameters(), lr=0.3, ess=ess, hess_init=0.5, beta2=0.99, sample_in_closure=True, seed=0)


def fit(model: nn.Module, optimizer: Any, points: Iterable[tuple[Tensor, Tensor]]) -> list[float]:
    """A trainer that knows no optimizer: `step` gets a closure. Returns the losses."""
    losses = []
    for x, y in points:

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        losses.append(float(optimizer.step(closure).detach()))
    return losses


def lightning_module(lightning: Any) -> Any:
    """The same as a LightningModule with automatic optimization."""

    class Sine(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.losses = network(), list[float]()

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
            self.losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self) -> IVON:
            return optimizer_for(self.model)

    return Sine()


def fit_with_lightning(epochs: int) -> Any:
    """Lightning's Trainer on the CPU; returns the module."""
    import lightning

    module = lightning_module(lightning)
    points = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=BATCH, shuffle=True)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, gradient_clip_val=10.0, enable_model_summary=False, **quiet
    )
    trainer.fit(module, points)
    return module


def spread(model: nn.Module, optimizer: IVON, x: Tensor, samples: int = 32) -> Tensor:
    """The posterior's standard deviation of the prediction."""
    with torch.no_grad():
        drawn = []
        for _ in range(samples):
            with optimizer.sampled_params():
                drawn.append(model(x))
    return torch.stack(drawn).std(0)


def main(arguments: list[str]) -> int:
    """Train and print the losses."""
    show: Callable[[list[float]], str] = lambda losses: f"loss {losses[0]:.3f} at first, {losses[-1]:.4f} at last"  # noqa: E731
    if "--lightning" in arguments:
        print(show(fit_with_lightning(40).losses))
        return 0
    model = network()
    optimizer = optimizer_for(model)
    print(show(fit(model, optimizer, batches(40))))
    print("deviation of the prediction at 0 and at 3:", spread(model, optimizer, torch.tensor([[0.0], [3.0]])).tolist())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
