"""Noise against weights: the start that adapts to the network, what is reported, and a network that learns by it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from badmm.__main__ import main
from badmm.experiments.events import scalars
from badmm.methods import persistence
from badmm.methods.bayes_admm import IvonADMM
from badmm.networks import models, noise
from badmm.networks.losses import CROSS_ENTROPY
from badmm.networks.scales import weight_scales
from badmm.networks.stacked import Stacked
from benchmarks.noise import BEFORE, Setting, play
from tests.badmm.rounds.federated_problems import SMALL
from tests.badmm.rounds.test_federated_training import federation as networks

SHAPES = {
    "mlp": (1, 8, 8),
    "linear": (1, 8, 8),
    "cifarnet": (3, 32, 32),
    "acarnet": (3, 32, 32),
    "resnet20": (3, 32, 32),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_weight_scale_is_that_of_torchs_initialisation(name: str) -> None:
    """U(−1/√n, 1/√n) with n the fan-in has the standard deviation 1/√(3n); vectors have none of their own."""
    stack = Stacked(models.build(name, SHAPES[name], 10, 0), CROSS_ENTROPY)
    scales = weight_scales(stack, stack.initial())
    shapes = {n: p.shape for n, p in stack.network.named_parameters() if p.ndim > 1}
    assert list(scales) == list(shapes)
    for layer, shape in shapes.items():
        exact = 1.0 / math.sqrt(3.0 * math.prod(shape[1:]))
        # the mean square of m uniforms deviates by √(4/5 m) of its size
        assert scales[layer] == pytest.approx(exact, rel=4.0 * math.sqrt(0.2 / shape.numel()))


def test_a_layer_of_zeros_has_the_scale_that_its_fan_in_gives() -> None:
    network = models.MLP((12, 5, 3))
    nn.init.zeros_(network.get_parameter("layers.1.weight"))
    nn.init.constant_(network.get_parameter("layers.0.weight"), -0.25)
    stack = Stacked(network, CROSS_ENTROPY)
    assert weight_scales(stack, stack.initial()) == {
        "layers.0.weight": 0.25,
        "layers.1.weight": pytest.approx(1.0 / math.sqrt(15.0)),
    }


@pytest.mark.parametrize("rho", [1.0, 0.2])
def test_the_first_samples_deviate_by_a_part_of_the_smallest_weights(rho: float) -> None:
    """1/√S_g = initial_sd · min w_l; τ by the formula, in the units of the average client."""
    fed = networks(torch.float64)
    method = IvonADMM(rho=rho, initial_sd=0.4, delta=2e-3, hess_init=6e-3)
    initial = fed.stack.initial(fed.dtype)
    least = min(weight_scales(fed.stack, initial).values())
    state = method.start(fed, initial)
    torch.testing.assert_close(method.deviation(state), torch.full_like(initial, 0.4 * least), rtol=1e-12, atol=0)
    average = sum(fed.counts) / fed.num_clients
    assert method.tau(fed, initial) == pytest.approx((0.4 * least) ** 2 * 8e-3 * average / rho, rel=1e-12)
    prior = method.prior_precision(fed, initial)
    torch.testing.assert_close(prior, torch.full_like(initial, 0.25 / (0.4 * least) ** 2), rtol=1e-12, atol=0)


def test_a_temperature_that_is_given_is_taken() -> None:
    fed = networks(torch.float64)
    initial = fed.stack.initial(fed.dtype)
    assert IvonADMM(temperature=0.25).tau(fed, initial) == 0.25
    for value, words in ((0.0, "temperature: expected a positive number, got 0.0"),):
        with pytest.raises(ValueError, match=words):
            IvonADMM(temperature=value)
    with pytest.raises(ValueError, match=r"initial_sd: expected a positive number, got -1\.0"):
        IvonADMM(initial_sd=-1.0)


def test_noise_is_the_median_deviation_over_the_weights() -> None:
    network = models.MLP((2, 2, 1))
    stack = Stacked(network, CROSS_ENTROPY)
    mean = torch.tensor([3.0, 4.0, 0.0, 0.0, 9.0, 9.0, 0.0, 0.0, 9.0])  # weights, biases, weights, bias
    deviation = torch.tensor([1.0, 5.0, 2.0, 5.0, 99.0, 99.0, 1.0, 1.0, 99.0])
    ratios = noise.against_weights(stack, mean, deviation)
    assert ratios == {"layers.0.weight": pytest.approx(2.0 / 2.5), "layers.1.weight": None}
    assert noise.largest_noise(ratios) == ("layers.1.weight", math.inf)
    assert noise.largest_noise({}) is None


def test_a_loud_layer_is_named() -> None:
    record: dict[str, Any] = {"label": "mine", "seed": 4, "round": 7, "noise": {"a.weight": 2.9, "b.weight": 6.13}}
    text = noise.warning(record)
    assert text is not None
    assert text.startswith(
        "mine, seed 4, round 7: the posterior's standard deviation is 6.1 times the weights in b.weight"
    )
    assert noise.warning({**record, "noise": {"a.weight": 2.9}}) is None
    assert noise.warning({**record, "noise": {}}) is None


def test_a_run_warns_once_and_its_history_has_every_rounds_noise_and_dual_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(SMALL + "[methods.ivon_admm]\ntemperature = 10.0\n", encoding="utf-8")
    options = ["--set", "run.rounds=3", "--methods", "scaffold,ivon_admm"]
    assert main(["run", str(file), "--out", str(out), *options]) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if "times the weights in layers." in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("ivon_admm, seed 3, round 1: ")
    history = {name: read(out / name / "seed-3") for name in ("scaffold", "ivon_admm")}
    assert [record["noise"] for record in history["scaffold"]] == [{}] * 3
    assert len(history["ivon_admm"]) == 3
    for record in history["ivon_admm"]:
        assert set(record["noise"]) == {"layers.0.weight", "layers.1.weight"}
        assert max(record["noise"].values()) > noise.LOUD
        assert persistence.LEAST <= record["damping"] <= 1
        assert scalars({**record, "seconds": 1.0})["training/damping"] == record["damping"]
    assert history["ivon_admm"][0]["damping"] == persistence.FIRST
    assert "damping" not in history["scaffold"][0]
    assert "| ivon_admm |" in (out / "summary.md").read_text().split("the noisiest layer")[1]


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_convolutional_network_learns_from_the_first_round_by_default() -> None:
    """The settings of before guess for as long: their first losses are above those of a network that knows nothing."""
    course = play(Setting("ivon_admm", 5e-3, count=4), seed=62)
    assert course.loss[0] < 2.2
    assert course.loss[1] < 1.9
    assert course.accuracy[3] > 60.0
    assert max(course.noise) < 0.5
    blind = play(Setting("ivon_admm", 4e-4, BEFORE, count=4), seed=62)
    assert blind.loss[0] > 4.0
    assert max(blind.accuracy) < 20.0
    assert blind.noise[0] > 1.5
