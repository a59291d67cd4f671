"""The IVON kernels against PyPI's ivon-opt: the same normals, gradients of a real loss, a hundred steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ivon
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import badmm_kernels

STEPS, BATCH, SEED = 100, 64, 17
# hess_init and beta2 are numbers that float32 holds: ivon-opt rounds the one to float32 whatever the parameters' type,
# and with rounded beta2 and 1 - beta2 its float32 Hessian drifts by 1e-8 a step.
ESS, HESS_INIT, BETA1, BETA2, DECAY = 1797.0, 0.125, 0.9, 1 - 2.0**-10, 1e-3
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def network(dtype: torch.dtype) -> torch.nn.Module:
    """A small classifier with smooth activations, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = (torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
        return torch.nn.Sequential(*layers).to(dtype)


def batches(dtype: torch.dtype) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The digits in an order of its own, again and again."""
    data = load_digits()
    x, y = torch.tensor(data.data / 16.0, dtype=dtype), torch.tensor(data.target)
    rng = np.random.default_rng(5)
    while True:
        chosen = torch.from_numpy(rng.integers(0, len(y), BATCH))
        yield x[chosen], y[chosen]


def flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def gradient(model: torch.nn.Module, theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The gradient of the mean loss at given parameters, flat."""
    torch.nn.utils.vector_to_parameters(theta, model.parameters())
    loss = torch.nn.functional.cross_entropy(model(x), y)
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])


def drawn(step: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    out: torch.Tensor = badmm_kernels.load("ivon").noise(SEED, step, out=torch.empty(count, dtype=dtype))
    return out


@contextmanager
def normals_of_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ivon-opt draws our normals, counting its draws."""
    calls = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", lambda count, device, dtype: drawn(next(calls), count, dtype))
        yield


def peer_run(
    dtype: torch.dtype, samples: int, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> dict[str, torch.Tensor]:
    """Mean, precision and momentum after the steps, by ivon-opt."""
    model, stream = network(dtype), batches(dtype)
    settings = {"hess_init": HESS_INIT, "beta1": BETA1, "beta2": BETA2, "weight_decay": DECAY, "mc_samples": samples}
    optimizer = ivon.IVON(model.parameters(), ess=ESS, **settings, **options)
    with normals_of_ours(monkeypatch):
        for _ in range(STEPS):
            x, y = next(stream)
            for _ in range(samples):
                with optimizer.sampled_params(train=True):
                    optimizer.zero_grad()
                    torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    group = optimizer.param_groups[0]
    return {"mean": flat(model), "precision": group["hess"] + DECAY, "momentum": group["momentum"]}


def our_run(dtype: torch.dtype, samples: int, lr: float, clip: float | None, debias: bool) -> dict[str, torch.Tensor]:
    """The same by the kernels: a driver of a few lines, fused where there is one sample a step."""
    ns, model, stream = badmm_kernels.load("ivon"), network(dtype), batches(dtype)
    m = flat(model)
    s, v, theta, eps = (
        torch.full_like(m, HESS_INIT + DECAY),
        torch.zeros_like(m),
        torch.empty_like(m),
        torch.empty_like(m),
    )
    totals = (torch.zeros_like(m), torch.zeros_like(m))
    state, cavity = (m, s, v), (0.0, DECAY)
    common = {"ess": ESS, "lr": lr, "beta1": BETA1, "beta2": BETA2, "clip": clip}
    if samples == 1:
        ns.sample(m, s, ESS, seed=SEED, step=0, noise=eps, out=(theta,))
    for t in range(1, STEPS + 1):
        hyper = {**common, "debias": 1 - BETA1**t if debias else 1.0}
        x, y = next(stream)
        if samples == 1:
            g = gradient(model, theta, x, y)
            address = {"seed": SEED, "next_step": t, "noise": eps, "next_noise": eps}
            ns.update_sample(g, *state, cavity, **hyper, **address, out=(*state, theta))
            continue
        for k in range(samples):
            address = {"seed": SEED, "step": (t - 1) * samples + k}
            ns.sample(m, s, ESS, **address, out=(theta,))
            ns.accumulate(gradient(model, theta, x, y), *totals, **address, out=totals)
        ns.update_averaged(*totals, *state, cavity, samples, **hyper, out=state)
        totals[0].zero_()
        totals[1].zero_()
    return {"mean": m, "precision": s, "momentum": v}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("samples", "rescale", "clip", "debias"),
    [(1, True, None, True), (1, False, None, True), (1, True, 1e-2, False), (3, True, None, True)],
    ids=["one sample", "lr not rescaled", "clipped, no debiasing", "three samples"],
)
def test_a_hundred_steps_agree_with_ivon_opt(
    dtype: torch.dtype, samples: int, rescale: bool, clip: float | None, debias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lr = 0.1 if rescale else 0.01
    options = {"lr": lr, "rescale_lr": rescale, "debias": debias, **({} if clip is None else {"clip_radius": clip})}
    theirs = peer_run(dtype, samples, monkeypatch, **options)
    ours = our_run(dtype, samples, lr * (HESS_INIT + DECAY) if rescale else lr, clip, debias)
    start = flat(network(dtype))
    assert torch.linalg.norm(ours["mean"] - start) > 0.05 * torch.linalg.norm(start)  # it has gone somewhere
    for name, value in theirs.items():
        difference = torch.linalg.norm(ours[name] - value) / torch.linalg.norm(value)
        print(f"{dtype} {samples} {name}: {difference:.2e}")
        assert difference <= TOLERANCE[dtype], name
