"""What every method accepts as its settings, by one table, and what the exact methods say of step sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from badmm import Gaussian, solve
from badmm.likelihoods import Quadratic
from badmm.methods import EXACT, NETWORKS
from badmm.methods.bayes_admm import IvonADMM
from badmm.methods.bregman_admm import BregmanADMM
from badmm.methods.newton import Newton
from badmm.methods.pvi import PVI

POSITIVE = ("a positive number", (1e-300, 3.0), (0.0, -1.0, float("nan"), True))
FRACTION = ("a number in (0, 1]", (1e-9, 1.0), (0.0, -0.5, 1.5, float("nan")))
COUNT = ("a positive integer", (1, 7), (0, -1, 1.5))
BELOW_ONE = ("a number in [0, 1)", (0.0, 0.999), (1.0, -0.1))
# by setting: what is expected, values that are fine, values that are not
RULES: dict[str, tuple[str, tuple[Any, ...], tuple[Any, ...]]] = {
    **dict.fromkeys(("rho", "precision", "temperature", "initial_sd", "delta", "hess_init", "server_step"), POSITIVE),
    "damping": FRACTION,
    "alpha": FRACTION,
    "samples": COUNT,
    "beta1": BELOW_ONE,
    "beta2": BELOW_ONE,
    "clip": ("a positive number", (0.1, float("inf")), (0.0, -1.0, float("nan"))),
}
OWN_RULES: dict[tuple[str, str], tuple[str, tuple[Any, ...], tuple[Any, ...]]] = {
    ("fedprox", "rho"): ("a number of at least 0", (0.0, 2.0), (-1.0, float("nan"))),
    ("bregman_admm", "damping"): ("a positive number", (0.5, 3.0), (0.0, -1.0)),
    ("ivon_admm", "precision"): ("a positive number", (0.0, 2.0), (-1.0, float("nan"))),
}
FREE = {"warm_start", "keep_momentum", "origin", "penalty", "control", "mean_step"}
SETTINGS = [(name, f.name) for name, method in NETWORKS.items() for f in dataclasses.fields(method)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "setting"), [one for one in SETTINGS if one[1] not in FREE])
def test_a_setting_out_of_its_range_is_named(method: str, setting: str) -> None:
    expected, fine, refused = OWN_RULES.get((method, setting), RULES.get(setting, ("", (), ())))
    assert fine, f"{method}.{setting}: no rule"
    for value in fine:
        assert getattr(NETWORKS[method](**{setting: value}), setting) == value
    for value in refused:
        with pytest.raises(ValueError, match=setting) as caught:
            NETWORKS[method](**{setting: value})
        assert str(caught.value) == f"{setting}: expected {expected}, got {value!r}"


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("ivon_admm", "temperature"),
        ("ivon_admm", "alpha"),
        ("ivon_admm", "damping"),
        ("bregman_admm", "damping"),
        ("fedlap", "precision"),
        ("fedlap", "damping"),
        ("fedlap_cov", "precision"),
        ("fedlap_cov", "damping"),
    ],
)
def test_some_settings_can_be_automatic(method: str, setting: str) -> None:
    assert getattr(NETWORKS[method](**{setting: "auto"}), setting) == "auto"


CLIENTS = [Quadratic(np.diag([1.0, 3.0]), np.ones(2)), Quadratic(np.diag([2.0, 0.5]), np.arange(2.0))]
SHARED: dict[str, Any] = {"clients": CLIENTS, "family": "full_gaussian", "prior": Gaussian(np.zeros(2), 1.0)}


def solved(**options: Any) -> Any:
    arguments = SHARED | {"rounds": 1, "tol": 0.0} | options
    return solve(arguments.pop("clients"), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pvi", "rho": 0.5}, 'rho: expected 1 or "auto" for method "pvi", got 0.5'),
        ({"method": "pvi", "alpha": 0.5}, 'alpha: expected 1 or "auto" for method "pvi", got 0.5'),
        ({"method": "pvi", "damping": 1.5}, "damping: expected a number in (0, 1], got 1.5"),
        ({"method": "newton", "rho": 1.0}, 'rho: expected inf or "auto" for method "newton", got 1.0'),
        ({"method": "newton", "alpha": 0.5}, 'alpha: expected 1 or "auto" for method "newton", got 0.5'),
        ({"method": "newton", "damping": 1.5}, "damping: expected a number in (0, 1], got 1.5"),
        ({"method": "bregman_admm", "damping": 0.0}, "damping: expected a positive number, got 0.0"),
        ({"method": "bregman_admm", "alpha": 1.5}, "alpha: expected a number in (0, 1], got 1.5"),
        ({"rho": "large"}, "rho: expected \"auto\" or a number, got 'large'"),
        ({"alpha": "large"}, "alpha: expected \"auto\" or a number, got 'large'"),
        ({"damping": "large"}, "damping: expected \"auto\" or a number, got 'large'"),
    ],
)
def test_step_sizes_that_a_method_does_not_have_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        solved(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"method": "pvi"}, (1.0, 1.0, 1.0)),
        ({"method": "pvi", "rho": 1, "alpha": 1.0, "damping": 0.25}, (1.0, 1.0, 0.25)),
        ({"method": "newton"}, (float("inf"), 1.0, 1.0)),
        ({"method": "newton", "rho": float("inf"), "alpha": 1, "damping": 0.5}, (float("inf"), 1.0, 0.5)),
        ({"method": "bayes_admm", "rho": 0.3, "alpha": 0.4, "damping": 0.9}, (0.3, 0.4, 0.9)),
        ({"method": "bregman_admm", "rho": 0.3, "alpha": 0.4, "damping": 2.0}, (0.3, 0.4, 2.0)),
        ({"method": "bregman_admm", "rho": 0.5, "damping": 0.1}, (0.5, 0.5, 0.1)),
    ],
)
def test_the_step_sizes_of_a_round_are_those_asked_for(options: dict[str, Any], steps: tuple[float, ...]) -> None:
    record = solved(**options).history[0]
    assert (record.rho, record.alpha, record.damping) == pytest.approx(steps)


def test_automatic_steps_of_bregman_admm() -> None:
    """ρ at least 1, α = 1/(1 + ρK), γ the inverse of a bound on the Fisher information at λ_g."""
    record = solved(method="bregman_admm").history[0]
    assert (record.rho, record.alpha) == pytest.approx((1.0, 1.0 / 3.0))
    # at mean 0 and precision 1 the Fisher information of (ξ, S) has the eigenvalues 1 and 1/2: the bound is their sum
    assert record.damping == pytest.approx(1.0 / 1.5)
    policy = BregmanADMM.policy(4, "auto", "auto", "auto")
    steps = policy.steps(lambda: 2.0, lambda: 8.0)
    assert (steps.rho, steps.damping, steps.mixing) == (3.0, 0.125, False)
    assert steps.alpha == pytest.approx(1 / 13)
    policy.observe(1.0)
    assert policy.steps(lambda: 0.0, lambda: 4.0).rho == 1.0


def test_newtons_duals_are_gradients_at_the_server_and_damping_goes_part_of_the_way() -> None:
    whole, half = solved(method="newton"), solved(method="newton", damping=0.5)
    for k, client in enumerate(CLIENTS):
        np.testing.assert_allclose(whole.duals[0][k], -client.linear, atol=1e-14)
        np.testing.assert_allclose(whole.duals[1][k], -client.hessian, atol=1e-14)
        np.testing.assert_allclose(half.duals[1][k], -0.5 * client.hessian, atol=1e-14)
    np.testing.assert_allclose(whole.clients[0].mean, np.zeros(2))  # λ_k = λ_g, where it was
    later = solved(method="newton", damping=0.5, rounds=2)
    np.testing.assert_allclose(later.duals[1][0], -0.75 * CLIENTS[0].hessian, atol=1e-14)


def test_the_steps_of_a_networks_method() -> None:
    assert PVI(damping=0.3).settings() == (1.0, 1.0, 0.3)
    assert BregmanADMM(rho=0.4, damping=2.0).settings() == (0.4, "auto", 2.0)
    assert IvonADMM(rho=0.4, alpha=0.2, damping=0.6).settings() == (0.4, 0.2, 0.6)
    steps = IvonADMM.policy(5, 0.5, "auto", 0.6).steps(lambda: 9.0)
    assert (steps.rho, steps.damping) == (0.5, 0.6) and steps.alpha == pytest.approx(1 / 3.5)
    assert IvonADMM.policy(5, 0.5, 0.25, 0.6).steps(lambda: 9.0).alpha == 0.25
    assert set(EXACT) >= {"bayes_admm", "pvi", "newton", "bregman_admm"}
    assert Newton.name not in NETWORKS
