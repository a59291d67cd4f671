"""badmm.ivon.IVON against ivon-opt and references of its own, and what a training loop may do to it."""

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import ivon as peer
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import badmm_kernels
from badmm.ivon import IVON
from badmm.ivon.backends import Sweeps

SEED = 11


def model(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)


def batches(count: int, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(count, 16, 5, generator=draw, dtype=torch.float64).to(dtype)
    return [(part, part[:, :3].argmax(dim=1)) for part in x]


def train(network: nn.Module, optimizer: Any, data: list[tuple[Tensor, Tensor]], samples: int = 1) -> list[float]:
    losses = []
    for x, y in data:
        for _ in range(samples):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network(x), y)
                loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def parameters(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def normals(groups: int = 1) -> Callable[..., Tensor]:
    """torch.randn as IVON(seed=SEED) draws: group by group, then the next draw."""
    calls = iter(range(10**6))

    def randn(count: int, *, device: Any = None, dtype: torch.dtype = torch.float64) -> Tensor:
        step, group = divmod(next(calls), groups)
        word = np.random.SeedSequence(SEED, spawn_key=(group, 0, 0)).generate_state(1, np.uint64)[0]
        out = torch.empty(count, dtype=dtype)
        badmm_kernels.load("ivon").noise(int(word), step, out=out)
        return out

    return randn


def draw_instead(monkeypatch: pytest.MonkeyPatch, normals: Callable[[int], Any]) -> None:
    """Let optimizers take `normals` of a draw's number for those of a group without frozen parameters."""

    def drawer(own: Sweeps, mean: Any, precision: Any, noise: Any) -> Callable[..., None]:
        sample = own.sampler(mean, precision, noise)

        def draw(theta: Any, ess: float, at: tuple[int, int]) -> None:
            np.asarray(noise)[:] = normals(at[1])
            sample(theta, ess)

        return draw

    monkeypatch.setattr(Sweeps, "drawer", drawer)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("samples", [1, 3])
def test_it_agrees_with_ivon_opt(rescale: bool, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 steps in float64, two groups, given the same normals; ivon-opt rounds hess_init to float32."""
    options: dict[str, Any] = {"lr": 0.05, "ess": 300.0, "hess_init": 0.375, "beta2": 0.995, "weight_decay": 1e-3}
    options |= {"rescale_lr": rescale, "clip_radius": 0.3, "mc_samples": samples}
    first, second = model(), model()

    def grouped(network: nn.Sequential) -> list[dict[str, Any]]:
        return [{"params": network[0].parameters()}, {"params": network[2].parameters(), "lr": 0.02}]

    ours, theirs = IVON(grouped(first), **options, seed=SEED), peer.IVON(grouped(second), **options)
    data = batches(200)
    own = train(first, ours, data, samples)
    monkeypatch.setattr(torch, "randn", normals(2))
    np.testing.assert_allclose(own, train(second, theirs, data, samples), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(parameters(first), parameters(second), rtol=1e-12, atol=1e-13)
    for group, known in enumerate(theirs.param_groups):
        precision = known["ess"] * (known["hess"] + known["weight_decay"])
        own_precision = torch.cat([s.reshape(-1) for s in ours.precision[2 * group : 2 * group + 2]])
        torch.testing.assert_close(own_precision, precision, rtol=1e-12, atol=1e-12)


def test_gradsq_averages_squared_gradients_of_the_mean_loss() -> None:
    """arXiv:2402.17641's step with h's estimate E[g²], written out here; two samples a step, temperature 2."""
    network, tau, wd, lr, b1, b2, ess = model(), 2.0, 0.01, 0.05, 0.8, 0.99, 50.0
    other = model()
    optimizer = IVON(
        network.parameters(), lr, ess, 0.3, b1, b2, wd, 2, "gradsq", seed=SEED, temperature=tau, rescale_lr=False
    )
    data = batches(50)
    train(network, optimizer, data, samples=2)
    m, h, v = parameters(other), torch.full((39,), 0.3, dtype=torch.float64), torch.zeros(39).double()
    randn = normals()
    for t, (x, y) in enumerate(data, start=1):
        gradients = []
        for _ in range(2):
            theta = m + randn(39) / (ess / tau * (h + wd)).sqrt()
            nn.utils.vector_to_parameters(theta, other.parameters())
            loss = nn.functional.cross_entropy(other(x), y)
            gradients.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(other.parameters()))]))
        g, f = sum(gradients) / 2, sum(g * g for g in gradients) / 2
        v = b1 * v + (1 - b1) * g
        h = b2 * h + (1 - b2) * f + 0.5 * (1 - b2) ** 2 * (h - f) ** 2 / (h + wd)
        m = m - lr * (v / (1 - b1**t) + wd * m) / (h + wd)
    torch.testing.assert_close(parameters(network), m, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(torch.cat([s.reshape(-1) for s in optimizer.precision]), ess / tau * (h + wd))


def test_a_closure_takes_the_samples_and_returns_their_mean() -> None:
    first, second = model(), model()
    ours = IVON(first.parameters(), 0.1, 100.0, mc_samples=3, seed=SEED)
    loop = IVON(second.parameters(), 0.1, 100.0, seed=SEED)
    for x, y in batches(5):
        seen: list[Tensor] = []

        def closure(x: Tensor = x, y: Tensor = y, seen: list[Tensor] = seen) -> Tensor:
            with ours.sampled_params(train=True):
                ours.zero_grad()
                loss = nn.functional.cross_entropy(first(x), y)
                loss.backward()
            seen.append(loss.detach())
            return loss

        assert float(ours.step(closure).detach()) == pytest.approx(float(sum(seen)) / 3)
        assert len(seen) == 3
        train(second, loop, [(x, y)], samples=3)
    assert torch.equal(parameters(first), parameters(second))


def test_gradients_accumulate_over_small_batches() -> None:
    first, second = model(), model()
    ours, whole = (IVON(net.parameters(), 0.1, 100.0, seed=SEED) for net in (first, second))
    for x, y in batches(20):
        with ours.sampled_params(train=True):
            first.zero_grad()  # the module's own sets gradients to None
            for part, label in zip(x.split(4), y.split(4), strict=True):
                (nn.functional.cross_entropy(first(part), label) / 4).backward()
        ours.step()
        train(second, whole, [(x, y)])
    torch.testing.assert_close(parameters(first), parameters(second), rtol=1e-12, atol=1e-13)


def test_the_mean_comes_back_after_an_exception() -> None:
    network = model()
    optimizer = IVON(network.parameters(), 0.1, 10.0)
    before = parameters(network)

    def fail() -> None:
        with optimizer.sampled_params(train=True):
            assert not torch.equal(parameters(network), before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.equal(parameters(network), before)
    with pytest.raises(RuntimeError, match="step: expected a sample"):
        optimizer.step()
    with optimizer.sampled_params():
        assert not torch.equal(parameters(network), before)
    assert torch.equal(parameters(network), before)


@pytest.mark.parametrize("samples", [1, 2])
def test_a_saved_state_goes_on_bit_identically(samples: int) -> None:
    network, data = model(dtype=torch.float32), batches(12, torch.float32)
    optimizer = IVON(network.parameters(), 0.1, 100.0, seed=3)
    optimizer.set_prior(0.1, 5.0)
    train(network, optimizer, data[:6], samples)
    saved = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    train(network, optimizer, data[6:], samples)
    again = model(seed=9, dtype=torch.float32)
    resumed = IVON(again.parameters(), 0.3, 7.0)
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    train(again, resumed, data[6:], samples)
    assert torch.equal(parameters(network), parameters(again))
    assert all(torch.equal(a, b) for a, b in zip(optimizer.precision, resumed.precision, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(optimizer.sample(), resumed.sample(), strict=True))


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("hess_approx", ["price", "gradsq"])
def test_a_grad_scaler_changes_nothing_but_skips_infinities(samples: int, hess_approx: Any) -> None:
    data = batches(8)
    first, second = model(), model()
    ours, plain = (IVON(n.parameters(), 0.1, 100.0, hess_approx=hess_approx, seed=1) for n in (first, second))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    for number, (x, y) in enumerate(data):
        bad = number == 4
        before = (parameters(first), *[s.clone() for s in ours.precision], ours.state_dict()["param_groups"][0]["step"])
        for sample in range(samples):
            with ours.sampled_params(train=True):
                ours.zero_grad()
                loss = nn.functional.cross_entropy(first(x), y) * (float("inf") if bad and sample == 0 else 1.0)
                scaler.scale(loss).backward()
        scaler.step(ours)
        scaler.update()
        if bad:
            after = (parameters(first), *ours.precision, ours.state_dict()["param_groups"][0]["step"])
            assert all(torch.equal(a, b) for a, b in zip(before[:-1], after[:-1], strict=True))
            assert before[-1] == after[-1]
            for _ in range(samples):  # the skipped step drew too
                with plain.sampled_params():
                    pass
        else:
            train(second, plain, [(x, y)], samples)
    torch.testing.assert_close(parameters(first), parameters(second), rtol=1e-12, atol=1e-13)


def test_gradients_may_be_unscaled_and_clipped_before_the_step() -> None:
    network = model()
    optimizer, scaler = IVON(network.parameters(), 0.1, 100.0, seed=1), torch.amp.GradScaler("cpu")
    other = model()
    plain = IVON(other.parameters(), 0.1, 100.0, seed=1)
    for x, y in batches(5):
        for net, opt, scaled in ((network, optimizer, True), (other, plain, False)):
            with opt.sampled_params(train=True):
                opt.zero_grad()
                loss = nn.functional.cross_entropy(net(x), y)
                (scaler.scale(loss) if scaled else loss).backward()
            if scaled:
                scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            scaler.step(opt) if scaled else opt.step()
        scaler.update()
    torch.testing.assert_close(parameters(network), parameters(other), rtol=1e-12, atol=1e-13)


def test_prior_and_duals_are_those_of_an_admm_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a quadratic mean loss ½ θᵀdiag(a)θ − bᵀθ the fixed point is λ = λ_g + (η − ∇L)/ρ."""
    a, b = torch.tensor([0.5, 2.0, 1.0]).double(), torch.tensor([1.0, -1.0, 0.3]).double()
    n, tau, rho = 40.0, 2.0, 0.5
    theta = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = IVON([theta], 0.05, n / rho, 0.1, 0.0, 0.9, temperature=tau, rescale_lr=False, seed=0)
    m_g, s_g = torch.tensor([0.2, 0.1, -0.4]).double(), torch.tensor([3.0, 1.0, 2.0]).double()
    eta = (torch.tensor([0.5, -2.0, 1.0]).double(), torch.tensor([-4.0, 2.0, -1.0]).double())
    optimizer.set_prior([m_g], [s_g], ([eta[0]], [eta[1]]), rho)
    signs = torch.cat([torch.eye(3), -torch.eye(3)]).double() * 3**0.5

    draw_instead(monkeypatch, lambda draw: signs[draw % 6])
    for _ in range(600):
        for _ in range(6):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                (0.5 * (a * theta * theta).sum() - b @ theta).backward()
        optimizer.step()
    precision = s_g + (eta[1] + n / tau * a) / rho
    xi = s_g * m_g + (eta[0] + n / tau * b) / rho
    torch.testing.assert_close(optimizer.precision[0], precision, rtol=1e-10, atol=0)
    torch.testing.assert_close(optimizer.mean[0], xi / precision, rtol=1e-9, atol=1e-10)


def test_samples_have_the_posteriors_moments() -> None:
    theta = nn.Parameter(torch.full((4, 50_000), 2.0))
    optimizer = IVON([theta], 0.1, 25.0, 0.3, weight_decay=0.1, seed=5)
    (draw,) = optimizer.sample()
    assert draw.shape == theta.shape
    error = (draw - theta.detach()) * 10**0.5
    assert float(error.mean()) == pytest.approx(0, abs=5 / 200_000**0.5)
    assert float(error.var()) == pytest.approx(1, abs=5 * (2 / 200_000) ** 0.5)
    assert not torch.equal(optimizer.sample()[0], draw)


def test_parameters_of_two_dtypes_and_frozen_ones() -> None:
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, dtype=torch.float64))
    frozen = nn.Parameter(torch.ones(4), requires_grad=False)
    optimizer = IVON([a, b, frozen], 0.1, 10.0, weight_decay=0.0, seed=0)
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        (a.square().sum() + b.square().sum()).backward()
    optimizer.step()
    assert torch.equal(frozen.detach(), torch.ones(4))
    assert [m.dtype for m in optimizer.mean] == [torch.float32, torch.float64, torch.float32]
    assert not torch.equal(a.detach(), torch.ones(3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, "lr: expected a finite number >= 0, got -1.0"),
        ({"ess": 0.0}, "ess: expected a positive number, got 0.0"),
        ({"beta1": 1.0}, r"beta1: expected a number in \[0, 1\), got 1.0"),
        ({"mc_samples": 0}, "mc_samples: expected a positive integer, got 0"),
        ({"hess_approx": "fisher"}, 'hess_approx: expected "price" or "gradsq", got \'fisher\''),
        ({"backend": "cuda"}, "backend: expected one of auto, .*got 'cuda'"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        IVON(model().parameters(), **{"lr": 0.1, "ess": 10.0, **options})


def test_what_cannot_go_on_is_refused() -> None:
    network = model()
    optimizer = IVON(network.parameters(), 0.1, 10.0)
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        (network(torch.ones(1, 5).double()).sum() * float("nan")).backward()
    with pytest.raises(ValueError, match="gradient: expected finite, got nan"):
        optimizer.step()


def test_importing_badmm_loads_no_torch() -> None:
    program = "import sys, badmm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
