"""Small problems with known solutions: least squares and logistic regression over clients that differ; IDX files."""

import struct
import types
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import softplus

import badmm_kernels
from badmm.clients.federation import ClientData, Federation, LocalSettings
from badmm.clients.ivon import IvonDescent
from badmm.clients.variational import GaussianDescent
from badmm.networks.losses import CROSS_ENTROPY, Loss, squared_error
from badmm.networks.models import Linear
from badmm.networks.stacked import Stacked
from badmm.rounds import network_round as rounds
from badmm.rounds.loop import Played
from badmm.rounds.network_method import NetworkMethod, State

SIZES = (12, 9, 6, 14)
DIM = 3
SIGNS = torch.tensor([[1, 1, 1], [1, -1, 1], [1, 1, -1], [1, -1, -1]], dtype=torch.float64)
CUBE = torch.cat([SIGNS, -SIGNS])
"""Eight points with the mean 0 and covariance I: their averages of quadratics are the normal law's expectations."""


LOGISTIC = Loss(
    lambda outputs, targets: (softplus(outputs) - targets.view(-1, 1) * outputs).squeeze(1),
    lambda outputs: (outputs.sigmoid() * (-outputs).sigmoid()).sqrt().unsqueeze(-1),
)
"""log(1 + exp z) − y z: a chain of dense layers has its gradients for all clients at once."""


class TwoClass(Linear):
    """Logits (0, xᵀθ): logistic regression as a softmax, by a forward pass that is no chain of dense layers, so that
    autograd has every client's gradient by itself."""

    def forward(self, x):
        z = super().forward(x)
        return torch.cat([torch.zeros_like(z), z], dim=1)


def outputs(stack: Stacked, theta: Tensor, x: Tensor) -> Tensor:
    """The network's own forward pass at parameters (P,), which autograd can differentiate."""
    result: Tensor = functional_call(stack.network, stack.views(theta), (x,))
    return result


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """X (N, d), responses, rows of each client; truths and directions differ, every XᵀX/n has eigenvalues ½, 1, 1½."""
    rng = np.random.default_rng(seed)
    designs, responses = [], []
    for n in SIZES:
        left, right = (np.linalg.qr(rng.normal(size=(m, DIM)))[0] for m in (n, DIM))
        designs.append(np.sqrt(n) * left * np.sqrt([0.5, 1.0, 1.5]) @ right)
        responses.append(designs[-1] @ rng.normal(size=DIM) + 0.3 * rng.normal(size=n))
    rows = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
    return np.concatenate(designs), np.concatenate(responses), rows


def federation(kind: str = "squares", device: str = "cpu", **settings: Any) -> Federation:
    """All points a step; float64; the start is at zero. "softmax" is "logistic" through `TwoClass`."""
    X, y, rows = data()
    chosen: dict[str, Any] = {"optimizer": "sgd", "lr": 0.9, "epochs": 25, "batch_size": None, **settings}
    network = (TwoClass(DIM) if kind == "softmax" else Linear(DIM)).double()
    torch.nn.init.zeros_(network.get_parameter("layers.0.weight"))
    loss = {"squares": squared_error(), "logistic": LOGISTIC, "softmax": CROSS_ENTROPY}[kind]
    targets = torch.tensor({"squares": y, "logistic": (y > 0) * 1.0, "softmax": (y > 0).astype(np.int64)}[kind])
    own = tuple(torch.tensor(part, device=device) for part in rows)
    points = ClientData(torch.tensor(X, device=device), targets.to(device), own)
    return Federation(points, Stacked(network.to(device), loss), LocalSettings(**chosen), seed=0, dtype=torch.float64)


def solve(method: NetworkMethod, fed: Federation, count: int, **options: Any) -> State:
    """The state after `count` rounds."""
    state = method.start(fed, fed.stack.initial(fed.dtype, fed.device))
    for index in range(count):
        rounds.play(method, fed, state, lr=fed.settings.lr * fed.settings.decay(index, count), **options)
    return state


def hessians() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """H_k, b_k with f_k = ½ θᵀH_kθ − b_kᵀθ + constant, the mean over the client's points."""
    X, y, rows = data()
    return [X[r].T @ X[r] / len(r) for r in rows], [X[r].T @ y[r] / len(r) for r in rows]


def pooled(kind: str, precision: float = 0.0) -> np.ndarray:
    """argmin Σ_i ℓ_i + precision/2 ‖θ‖² over all points: normal equations, or BFGS refined by Newton steps."""
    X, y, _ = data()
    ridge = precision * np.eye(DIM)
    if kind == "squares":
        return np.linalg.solve(X.T @ X + ridge, X.T @ y)
    labels = y > 0

    def objective(theta: np.ndarray) -> float:
        z = X @ theta
        return float(np.sum(np.logaddexp(0, z) - labels * z) + 0.5 * precision * theta @ theta)

    theta = minimize(objective, np.zeros(DIM)).x
    for _ in range(20):
        p = expit(X @ theta)
        gradient = X.T @ (p - labels) + precision * theta
        theta = theta - np.linalg.solve((X.T * (p * (1 - p))) @ X + ridge, gradient)
    return np.asarray(theta)


def replace_normals(monkeypatch: pytest.MonkeyPatch, points: Tensor) -> None:
    """Clients that sample go through `points` (n, DIM) in place of normals: n samples a step are a quadrature rule."""
    namespace = badmm_kernels.load("ivon")
    replaced = types.SimpleNamespace(**vars(namespace))
    start = IvonDescent.__init__

    def draw(self: GaussianDescent, active: int) -> None:
        self.noise[:active] = points[self.drawn]

    def sample(mean, precision, ess, *, seed, step, noise, out):
        noise[:] = points[step % len(points)]
        return namespace.sample(mean, precision, ess, noise=noise, out=out)

    def begin(self: IvonDescent, *arguments: Any, **keywords: Any) -> None:
        start(self, *arguments, **keywords)
        self.kernels = replaced

    replaced.sample = sample
    monkeypatch.setattr(GaussianDescent, "draw", draw)
    monkeypatch.setattr(IvonDescent, "__init__", begin)


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of unsigned bytes as an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def with_data(fed: Federation, kind: type[ClientData], inputs: torch.Tensor | None = None) -> Federation:
    old = fed.data
    data = kind(old.inputs if inputs is None else inputs, old.targets, old.rows)
    return Federation(data, fed.stack, fed.settings, fed.seed, fed.dtype)


def one_round(method: NetworkMethod, fed: Federation, largest: int = 4, workers: int = 1) -> tuple[State, Played]:
    state = method.start(fed, torch.full((DIM,), 0.1, dtype=torch.float64, device=fed.device))
    return state, rounds.play(method, fed, state, lr=fed.settings.lr, largest=largest, workers=workers)


SMALL = """
name = "small"
[data]
fraction = 0.1
[split]
clients = 4
[model]
name = "mlp"
hidden = [6]
[local]
lr = 0.02
epochs = 2
batch_size = 8
[run]
rounds = 6
seeds = [3]
threads = 1
posterior_samples = 2
[methods.scaffold]
[methods.pvi]
temperature = 0.1
[methods.pvi.local]
lr = 0.05
"""
"""A file of a run of seconds."""
