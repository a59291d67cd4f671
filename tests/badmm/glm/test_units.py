"""The estimates do not depend on the units and origins of columns, response, exposure and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("formulaic", reason="needs the extra glm")

from badmm.glm import fit

RNG = np.random.default_rng(11)
N = 240
X = RNG.normal(size=N)
A = 0.3 + 0.8 * X
WHOLE = pd.DataFrame(
    {
        "y": (RNG.random(N) < 1 / (1 + np.exp(-A))).astype(int),
        "count": RNG.poisson(np.exp(A)),
        "g": A + RNG.normal(size=N),
        "x": X,
        "z": RNG.normal(size=N),
        "time": RNG.exponential(5.0, N) + 0.01,
        "w": RNG.integers(1, 4, N),
    }
)
RESPONSES = {"binomial": "y", "poisson": "count", "gaussian": "g"}


def split(data: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"north": data[:90], "south": data[90:91], "east": data[91:]}


@pytest.mark.parametrize("family", RESPONSES)
@pytest.mark.parametrize(
    ("origin", "unit"),
    [(2020.0, 1.0), (1.6e9, 1e4), (1e8, 1.0), (0.0, 1e-12), (-1e6, 1e-2), (0.0, 1e12)],
    ids=["years", "seconds since 1970", "1e8", "tiny", "far", "huge"],
)
def test_a_column_may_be_far_from_zero_and_in_any_unit(family: str, origin: float, unit: float) -> None:
    formula = f"{RESPONSES[family]} ~ x + z"
    plain = fit(formula, split(WHOLE), family)
    moved = fit(formula, split(WHOLE.assign(x=origin + unit * WHOLE["x"])), family)
    assert moved.converged
    assert moved.rounds <= plain.rounds + 1
    # the column itself is rounded, by eps · origin / unit
    rounding = 1e-8 + 100 * np.finfo(float).eps * abs(origin) / unit
    assert moved.params["x"] * unit == pytest.approx(plain.params["x"], rel=rounding)
    assert moved.bse["x"] * unit == pytest.approx(plain.bse["x"], rel=rounding)
    assert moved.params["z"] == pytest.approx(plain.params["z"], abs=rounding)
    assert moved.deviance == pytest.approx(plain.deviance, rel=rounding)


@pytest.mark.parametrize(
    ("origin", "unit"), [(1e9, 1.0), (0.0, 1e5), (0.0, 1e-9), (1e6, 1e3)], ids=["far", "large", "tiny", "both"]
)
def test_a_gaussian_response_may_be_in_any_unit(origin: float, unit: float) -> None:
    plain = fit("g ~ x + z", split(WHOLE), "gaussian")
    moved = fit("g ~ x + z", split(WHOLE.assign(g=origin + unit * WHOLE["g"])), "gaussian")
    assert moved.converged
    assert moved.params[["x", "z"]].to_numpy() / unit == pytest.approx(plain.params[["x", "z"]].to_numpy(), abs=1e-6)
    assert moved.bse.to_numpy() / unit == pytest.approx(plain.bse.to_numpy(), rel=1e-6)
    assert (moved.params["Intercept"] - origin) / unit == pytest.approx(plain.params["Intercept"], abs=1e-6)


@pytest.mark.parametrize("unit", [1e-9, 1e6, 1e30])
def test_an_exposure_may_be_in_any_unit(unit: float) -> None:
    plain = fit("count ~ x", split(WHOLE), "poisson", exposure="time")
    moved = fit("count ~ x", split(WHOLE.assign(time=unit * WHOLE["time"])), "poisson", exposure="time")
    assert moved.converged
    assert moved.rounds <= plain.rounds + 1
    assert moved.params["x"] == pytest.approx(plain.params["x"], abs=1e-8)
    assert moved.params["Intercept"] + np.log(unit) == pytest.approx(plain.params["Intercept"], abs=1e-8)
    assert moved.null_deviance == pytest.approx(plain.null_deviance)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_weights_scale_the_information(family: str, unit: float) -> None:
    formula = f"{RESPONSES[family]} ~ x"
    plain = fit(formula, split(WHOLE), family, weights="w")
    moved = fit(formula, split(WHOLE.assign(w=unit * WHOLE["w"])), family, weights="w")
    assert moved.params.to_numpy() == pytest.approx(plain.params.to_numpy(), abs=1e-6)
    assert moved.bse.to_numpy() * unit**0.5 == pytest.approx(plain.bse.to_numpy(), rel=1e-6)


@pytest.mark.parametrize("formula", ["g ~ x", "g ~ 0 + x", "g ~ 1"])
@pytest.mark.parametrize("exact", [lambda d: 2.0 * d["x"] + 1e6, lambda d: 0.0 * d["x"] + 3.0])
def test_an_exact_gaussian_fit_ends(formula: str, exact: Callable[[pd.DataFrame], Any]) -> None:
    found = fit(formula, split(WHOLE.assign(g=exact(WHOLE))), "gaussian")
    assert found.converged
    assert np.isfinite(found.params).all()
    assert (found.bse > 0).all()
    assert np.isfinite(found.aic)


def test_a_prior_means_the_same_with_columns_far_from_zero() -> None:
    options: dict[str, Any] = {"prior": {"x": 4.0}, "prior_intercept": 2.0}
    far = fit("y ~ x", split(WHOLE.assign(x=WHOLE["x"] + 3.0)), **options)
    x, y = WHOLE["x"].to_numpy() + 3.0, WHOLE["y"].to_numpy()
    b0, b1 = far.params
    residual = y - 1 / (1 + np.exp(-b0 - b1 * x))
    # the gradient of the log posterior, whose prior is on the coefficients shown, is 0
    assert residual.sum() - 2.0 * b0 == pytest.approx(0.0, abs=1e-5)
    assert residual @ x - 4.0 * b1 == pytest.approx(0.0, abs=1e-5)


def test_separation_at_a_level_of_one_site_is_told_beside_other_sites() -> None:
    data = WHOLE.assign(center=np.repeat(["a", "b", "c"], N // 3))
    data.loc[data["center"] == "b", "y"] = 0
    found = fit("y ~ x + center", {str(name): part for name, part in data.groupby("center")})
    assert [note for note in found.notes if note.startswith("separation: 'center[T.b]' predict")]
