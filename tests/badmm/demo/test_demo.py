"""The demo: its central and exact solutions against independent ones, its figures, and what it leaves behind."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.optimize import minimize

from badmm.__main__ import main
from badmm.demo import command, contest, exact, outcome, pictures, problems, report
from badmm.demo.ellipses import pair_of
from badmm.demo.noise import unknown_noise

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[outcome.SplitOutcome]]:
    out, text = tmp_path_factory.mktemp("demo") / "deep", StringIO()
    console = Console(file=text, width=100)
    picture = out / "overview.png"
    played = command.main(out, quick=True, seeds=[0, 1], only=["diabetes"], console=console, picture=picture)
    return out, text.getvalue(), played["diabetes"]


def test_full_bayesian_admm_is_exact_in_one_round_on_linear_regression(results) -> None:
    for played in results[2]:
        trace = played.traces["Bayes, full"]
        assert trace.rounds_to(1e-8) == 1
        mean, precision = exact.linear_posterior(
            played.problem.train_X,
            played.problem.train_y,
            played.problem.noise_variance,
            played.problem.prior_precision,
        )
        np.testing.assert_allclose(trace.posterior.mean, mean, rtol=1e-9)
        np.testing.assert_allclose(trace.posterior.precision, precision, rtol=1e-9, atol=1e-12 * precision.max())


def test_every_contender_started_at_the_prior_and_none_broke(results) -> None:
    for played in results[2]:
        assert set(played.traces) == {contender.label for contender in contest.CONTENDERS}
        for trace in played.traces.values():
            assert trace.failure == "" or trace.failure.startswith("distance not reduced by a tenth in 60 rounds")
            assert trace.start > 0
            assert np.all(np.diff(trace.bytes_sent) > 0)
            assert trace.distance[-1] < trace.start


def test_bytes_are_those_of_the_messages(results) -> None:
    played = results[2][0]
    d, clients = played.problem.dimension, len(played.problem.clients)
    # before the first round λ_g and a number go down and four come up; a round sends a λ and six numbers down, seven up
    assert played.traces["classic ADMM"].bytes_sent[0] == clients * 8 * ((d + 6) + (d + 7) + (d + 5))
    assert played.traces["PVI, diagonal"].bytes_sent[0] >= 2 * clients * 8 * 2 * d


def test_what_is_printed_and_written(results) -> None:
    out, text, played = results
    for words in ("diabetes (linear)", "rounds to", "classic ADMM: ρ = ", "RMSE", "Verdict", "not at 1e-8"):
        assert words in text
    stored = json.loads((out / "results.json").read_text())
    assert [record["seed"] for record in stored] == [0, 1]
    assert stored[0]["contenders"]["Bayes, full"]["distance"] == played[0].traces["Bayes, full"].distance
    assert (out / "convergence.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "posterior.png").read_bytes().startswith(b"\x89PNG")


def test_the_noise_may_be_unknown(results) -> None:
    found = unknown_noise(results[2][0].problem)
    assert found.difference < 1e-12
    assert 50 < found.noise < 60 and 0 < found.resolved < found.coefficients == 11
    assert "noise unknown (Gaussian-gamma): after one round" in results[1]


def test_ellipses_of_the_full_family_are_exact_on_linear_regression(results) -> None:
    played = results[2][0]
    pair = pair_of(played.problem, played.posteriors, seed=0)
    for approximate, true in zip(pair.families["full"], pair.exact, strict=True):
        np.testing.assert_allclose(approximate, true, rtol=1e-8)
    # a diagonal precision cannot hold the correlation, and its variances are those given the other coordinates
    diagonal = pair.families["diagonal"][1]
    assert diagonal[0, 1] == 0
    assert diagonal[0, 0] < pair.exact[1][0, 0]
    assert pictures.ellipses([pair]).axes


@pytest.mark.parametrize("name", ["breast_cancer", "digits"])
def test_classic_admm_is_measured_against_the_maximum_a_posteriori(name: str) -> None:
    problem = problems.make(name, 0)
    central = contest.central_solution(problem, "isotropic_gaussian")

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        logits = problem.train_X @ theta.reshape(problem.train_X.shape[1], -1)
        if name == "breast_cancer":
            logits = np.hstack([np.zeros_like(logits), logits])
        normal = np.logaddexp.reduce(logits, axis=1)
        error = np.exp(logits - normal[:, None]) - np.eye(logits.shape[1])[problem.train_y]
        gradient = (problem.train_X.T @ error)[:, 1 if name == "breast_cancer" else 0 :].ravel()
        fit = normal.sum() - logits[np.arange(len(logits)), problem.train_y].sum()
        return fit + 0.5 * problem.prior_precision * theta @ theta, gradient + problem.prior_precision * theta

    found = minimize(objective, np.zeros(problem.dimension), jac=True, method="BFGS", options={"gtol": 1e-5})
    np.testing.assert_allclose(central.posterior.mean, found.x, atol=2e-4)
    assert np.linalg.norm(objective(central.posterior.mean)[1]) < 1e-6


def test_clients_hold_the_training_rows_and_differ() -> None:
    problem = problems.make("digits", 0)
    sizes = [len(client.y) for client in problem.clients]
    assert sum(sizes) == len(problem.train_y)
    assert max(sizes) > 2 * min(sizes)


def test_slice_sampling_has_the_moments_of_a_known_posterior() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((3, 3))
    mean, precision = np.array([1.0, -2.0, 0.5]), root @ root.T + np.eye(3)
    # ellipses come from another Gaussian than the one that is sampled
    draws = exact.sample(
        lambda theta: -0.5 * float((theta - mean) @ precision @ (theta - mean)),
        mean + 0.2,
        0.7 * np.eye(3),
        40_000,
        seed=1,
    )
    covariance = np.linalg.inv(precision)
    assert np.all(np.abs(draws.mean(0) - mean) < 0.05 * np.sqrt(np.diag(covariance)))
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.05 * covariance.max())


def test_spread() -> None:
    np.testing.assert_allclose(outcome.spread([1, 3, None]), (2.0, np.sqrt(2), 1))
    assert outcome.spread([5]) == (5.0, 0.0, 0)
    assert np.isnan(outcome.spread([None])[0])


def test_a_target_that_is_not_reached() -> None:
    trace = contest.Trace(distance=[1.0, 1e-4], bytes_sent=[10, 20])
    assert (trace.rounds_to(1e-3), trace.bytes_to(1e-3)) == (2, 20)
    assert (trace.rounds_to(1e-8), trace.bytes_to(1e-8)) == (None, None)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--only", "iris"], "only: expected some of diabetes, breast_cancer, digits, got 'iris'"),
        (["--seeds", "-1"], "seeds"),
    ],
)
def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str) -> None:
    assert main(["demo", "--out", str(tmp_path / "out"), *extra]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_table_marks_no_winner_where_none_arrived(results) -> None:
    table = report.convergence_table([results[2][0]], rounds=1)
    assert len(table.rows) == len(contest.CONTENDERS)
