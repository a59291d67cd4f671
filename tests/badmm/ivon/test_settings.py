"""What settings may be: numbers and tensors of one element; a text, a truth value or none is refused by name."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from badmm.ivon import IVON
from tests.badmm.ivon.test_ivon import parameters, train
from tests.badmm.ivon.test_memory import pair, points, wide


@pytest.mark.parametrize("name", ["lr", "ess", "weight_decay", "clip_radius", "temperature", "hess_init"])
def test_settings_may_be_tensors(name: str) -> None:
    value: dict[str, Any] = {
        "lr": 0.1,
        "ess": 50.0,
        "weight_decay": 0.01,
        "clip_radius": 0.5,
        "temperature": 1.0,
        "hess_init": 0.5,
    }
    found = []
    for kind in (float, torch.tensor):
        network = wide()
        optimizer = IVON(network.parameters(), **{**value, name: kind(value[name])}, seed=0)
        train(network, optimizer, points(3))
        found.append(parameters(network))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-7)


def test_a_tensor_learning_rate_is_scheduled_in_place() -> None:
    network = wide()
    optimizer = IVON(network.parameters(), lr=torch.tensor(0.1), ess=50.0, seed=0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.0)
    train(network, optimizer, points(1))
    schedule.step()
    before = parameters(network)
    train(network, optimizer, points(1))
    assert torch.equal(parameters(network), before)


@pytest.mark.parametrize(
    "bad",
    [torch.tensor([0.1, 0.2]), "0.1x", "0.1", b"1", True, np.True_, torch.tensor(True), -0.1, math.nan]
    + [torch.tensor(-1.0), None, 1j, pytest.param(10**400, id="huge")],
)
def test_a_learning_rate_that_is_no_number_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"lr: expected a finite number >= 0, got"):
        IVON(wide().parameters(), lr=bad, ess=1.0)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("ess", "100", "ess: expected a positive number, got '100'"),
        ("beta1", "0.9", r"beta1: expected a number in \[0, 1\), got '0.9'"),
        ("hess_init", [1.0], r"hess_init: expected a positive number, got \[1.0\]"),
        ("temperature", None, "temperature: expected a positive number, got None"),
        ("sync", "no", "sync: expected True or False, got 'no'"),
        ("debias", None, "debias: expected True or False, got None"),
        ("rescale_lr", "false", "rescale_lr: expected True or False, got 'false'"),
        ("sample_in_closure", 2, "sample_in_closure: expected True or False, got 2"),
    ],
)
def test_a_setting_of_another_kind_is_refused(setting: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        IVON(wide().parameters(), **{"lr": 0.1, "ess": 1.0, setting: value})


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("lr", "0.1", "lr: expected a finite number >= 0, got '0.1'"),
        ("weight_decay", math.nan, "weight_decay: expected a finite number >= 0, got nan"),
        ("betas", (0.9,), r"betas: expected \(beta1, beta2\), got \(0.9,\)"),
        ("betas", ("a", 0.9), r"beta1: expected a number in \[0, 1\), got 'a'"),
        ("beta1", 2.0, r"beta1: expected a number in \[0, 1\), got 2.0"),
        ("clip_radius", -1.0, "clip_radius: expected a positive number, got -1.0"),
    ],
)
def test_a_setting_that_is_changed_to_no_value_is_named_by_the_step(setting: str, value: Any, words: str) -> None:
    network, optimizer = pair()
    train(network, optimizer, points(1))
    optimizer.param_groups[0][setting] = value
    with pytest.raises(ValueError, match=words):
        train(network, optimizer, points(1))


@pytest.mark.parametrize("seed", [1.5, True, "1", 1 << 64, -(1 << 63) - 1])
def test_a_seed_that_torch_would_not_take_is_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed: expected an integer"):
        IVON(wide().parameters(), lr=0.1, ess=1.0, seed=seed)
