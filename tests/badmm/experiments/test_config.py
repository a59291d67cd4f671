"""The run configuration: what it accepts, how overrides are read, errors that name key, expectation and value."""

from pathlib import Path

import pytest

import badmm
from badmm.experiments import config
from badmm.experiments.config import networks

CONFIGS = sorted((Path(__file__).resolve().parents[3] / "configs").glob("*.toml"))
MINIMAL = """
name = "small"
family = "full_gaussian"
[data]
source = "diabetes"
[split]
clients = 3
[likelihood]
kind = "linear_regression"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(MINIMAL)
    return file


@pytest.mark.parametrize("example", CONFIGS, ids=lambda path: path.stem)
def test_examples_are_valid(example: Path) -> None:
    loaded = config.load(example)
    assert isinstance(loaded, networks.NetworkConfig) == ("model" in config.read(example))


def test_what_is_written_reads_back(path: Path, tmp_path: Path) -> None:
    first = config.load(path, ["method.rho=0.25", "name=a-b", "run.tol=1e-12"])
    (tmp_path / "again.toml").write_text(first.dump())
    assert config.load(tmp_path / "again.toml") == first


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("method.rho=0.5", lambda c: c.method.rho == 0.5),
        ("method.rho=auto", lambda c: c.method.rho == "auto"),
        ("run.rounds=7", lambda c: c.run.rounds == 7),
        ("data.standardize=false", lambda c: c.data.standardize is False),
        ('split.kind="iid"', lambda c: c.split.kind == "iid"),
    ],
)
def test_overrides(path: Path, override: str, read) -> None:
    assert read(config.load(path, [override]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.rho=-1", ["method.rho", '"auto" or a number > 0', "-1"]),
        ("method.rho=nan", ["method.rho", '"auto" or a number > 0', "nan"]),
        ("method.alpha=1.5", ["method.alpha", "(0, 1]", "1.5"]),
        ("method.damping=0", ["method.damping", '"auto" or a number > 0', "0"]),
        ("method.damping=1.5", ["method.damping", "(0, 1]", "1.5"]),
        ("method.name=sgd", ["method.name", "bayes_admm, pvi, newton, bregman_admm", "sgd"]),
        ("family=cauchy", ["family", "isotropic_gaussian", "cauchy"]),
        ("likelihood.kind=probit", ["likelihood.kind", "one of linear_regression, logistic_regression", "probit"]),
        ("family=gamma", ["likelihood.kind", "poisson_rate", "(family = gamma)", "linear_regression"]),
        ("split.clients=0", ["split.clients", "greater than or equal to 1", "0"]),
        ("split.kind=column", ["split.column", "the name of a column", "none"]),
        ("prior.precision=-2.0", ["prior.precision", "positive", "-2.0"]),
        ('prior.precision="3"', ["prior.precision", "number", "'3'"]),
        ("run.rounds=2.5", ["run.rounds", "integer", "2.5"]),
        ("run.speed=9", ["run.speed", "rounds, tol, seed", "unknown key"]),
        ("name=../up", ["name", "matches", "../up"]),
        ("data=3", ["data", "dictionary", "3"]),
        ("data.exposure=y", ["data.exposure", "no such key (likelihood.kind = 'linear_regression'", "'y'"]),
        ("data.target=t", ["data.target", "no such key (data.source = 'diabetes'", "'t'"]),
        ("split.column=site", ["split.column", "no such key (split.kind = 'label')", "'site'"]),
        ("prior.shape=1.0", ["prior.shape", "one of mean, precision", "(family = full_gaussian)"]),
        ("likelihood.shape=1.0", ["likelihood.shape", "one of kind, noise_variance", "unknown key"]),
        ("data.source=data.xlsx", ["data.source", "diabetes, breast_cancer, digits", "data.xlsx"]),
        ("nonsense", ["--set", "section.key=value", "nonsense"]),
        ("name.x=3", ["--set", "a section", "small"]),
    ],
)
def test_errors_name_key_expectation_and_value(path: Path, override: str, words: list[str]) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.load(path, [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "expected" in str(caught.value)
    assert "got" in str(caught.value)


def test_a_missing_key_is_named(path: Path) -> None:
    path.write_text(MINIMAL.replace('kind = "linear_regression"', ""))
    with pytest.raises(config.ConfigError, match=r"likelihood\.kind: expected a value, got none"):
        config.load(path)


def test_every_problem_is_reported_at_once(path: Path) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.load(path, ["run.rounds=0", "method.rho=0"])
    assert len(str(caught.value).splitlines()) == 2


def test_malformed_toml_is_located_in_one_line(path: Path) -> None:
    path.write_text(MINIMAL + "\nrounds = = 3\n")
    with pytest.raises(
        config.ConfigError, match=r"small\.toml: expected valid TOML, got .*line 11, column 10"
    ) as caught:
        config.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "gone.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(config.ConfigError, match=r"gone\.toml: (expected a readable TOML|line 1: expected UTF-8)"):
        config.load(file)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (["likelihood.kind=logistic_regression", "likelihood.noise_variance=2.0"], "likelihood.noise_variance"),
        (
            ["family=gamma", "likelihood.kind=poisson_rate", "prior.shape=1.0", "prior.rate=1.0", "prior.mean=0.0"],
            "mean",
        ),
        (
            [
                "family=gamma",
                "likelihood.kind=exponential_rate",
                "prior.shape=1.0",
                "prior.rate=1.0",
                "data.intercept=true",
            ],
            "data.intercept",
        ),
        (["split.kind=column", "split.column=site", "data.source=t.csv"], "split.clients"),
    ],
)
def test_keys_that_have_no_effect_are_refused(path: Path, changes: list[str], key: str) -> None:
    with pytest.raises(config.ConfigError, match=key):
        config.load(path, changes)


def test_what_has_no_effect_is_not_written(path: Path) -> None:
    table = config.load(path).table()
    assert "target" not in table["data"] and "exposure" not in table["data"] and "column" not in table["split"]


@pytest.mark.parametrize("free", ["run.rounds=7", "run.tol=0.1", "run.checkpoint_every=3"])
def test_the_digest_is_of_what_may_not_change(path: Path, free: str) -> None:
    first = config.load(path)
    assert config.load(path, [free]).digest() == first.digest()
    assert config.load(path, ["run.seed=1"]).digest() != first.digest()
    assert first.differences(config.load(path, [free, "method.rho=0.5"])) == [("method.rho", "auto", 0.5)]


def test_text_of_every_kind_reads_back(path: Path, tmp_path: Path) -> None:
    odd = 'a "quoted" \\ name\twith\nlines, \x7f, \u00e9 and \U0001f600.csv'
    loaded = config.load(path)
    assert isinstance(loaded, config.SolverConfig)
    changed = loaded.model_copy(update={"data": loaded.data.model_copy(update={"source": str(tmp_path / odd)})})
    (tmp_path / "again.toml").write_text(changed.dump(), encoding="utf-8")
    assert config.read(tmp_path / "again.toml")["data"]["source"] == str(tmp_path / odd)


def test_a_family_that_leaves_something_to_choose_has_a_section_of_it(path: Path, tmp_path: Path) -> None:
    changes = ["family=block_diagonal_gaussian", "structure.blocks=[1, 10]"]
    loaded = config.load(path, changes)
    assert isinstance(loaded, config.SolverConfig)
    assert loaded.chosen == badmm.BlockDiagonalGaussian((1, 10))
    (tmp_path / "again.toml").write_text(loaded.dump())
    again = config.load(tmp_path / "again.toml")
    assert (
        again == loaded
        and again.digest() == loaded.digest() != config.load(path, changes[:1] + ["structure.blocks=11"]).digest()
    )
    rank = config.load(path, ["family=low_rank_gaussian", "structure.rank=3"])
    assert isinstance(rank, config.SolverConfig) and rank.chosen == badmm.LowRankGaussian(3)
    for wrong, words in (
        (["structure.rank=3"], ["structure", "rank"]),
        (["family=low_rank_gaussian"], ["structure", "rank", "required"]),
        (["family=low_rank_gaussian", "structure.rank=0"], ["structure", "rank: expected a positive integer, got 0"]),
    ):
        with pytest.raises(config.ConfigError) as caught:
            config.load(path, wrong)
        assert all(word in str(caught.value) for word in words), str(caught.value)
