"""A user's own networks and data from a configuration: batch norm, a transformer, an LSTM, pixels; saved posteriors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from badmm.__main__ import main
from badmm.experiments import load_posterior, store
from badmm.experiments.config import ConfigError, networks as config
from badmm.networks import factories
from tests.badmm.networks import plain_networks as plain

HERE = "tests.badmm.networks.plain_networks"
FILE = """
name = "own"
[data]
factory = "{here}:datasets"
options = {{ kind = "{kind}", sizes = [18, 12, 9] }}
[model]
factory = "{here}:{network}"
{extra}
[local]
lr = 0.01
epochs = 2
batch_size = 6
[run]
rounds = {rounds}
seeds = [3]
threads = 1
posterior_samples = 2
[methods.fedavg]
[methods.scaffold]
[methods.ivon_admm]
[methods.ivon_admm.local]
lr = 0.05
"""
METHODS = ("fedavg", "scaffold", "ivon_admm")
REGRESSION = f'loss = "{HERE}:huber"\nmetrics = {{ mae = "{HERE}:mean_absolute_error" }}'
CASES = {
    "resnet": ("images", "ResNet", 'buffers = "average"', plain.ResNet),
    "transformer": ("tokens", "Transformer", "", plain.Transformer),
    "lstm": ("sequences", "Recurrent", REGRESSION, plain.Recurrent),
    "pixels": ("pixels", "Segmenter", f'metrics = {{ iou = "{HERE}:intersection_over_union" }}', plain.Segmenter),
}


def file(tmp_path: Path, kind: str, network: str, extra: str, rounds: int = 2) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(FILE.format(here=HERE, kind=kind, network=network, extra=extra, rounds=rounds))
    return path


@pytest.mark.parametrize("name", CASES)
def test_plain_networks_are_federated_by_three_methods(name: str, tmp_path: Path) -> None:
    kind, network, extra, make = CASES[name]
    out = tmp_path / "out"
    assert main(["run", str(file(tmp_path, kind, network, extra)), "--quiet", "--out", str(out)]) == 0
    for method in METHODS:
        folder = out / method / "seed-3"
        first, last = store.History(folder / "history.jsonl").read()
        assert last["used"] == 3 and last["excluded"] == {}
        assert last["loss"] < first["loss"]
        assert ("worst_client" in last) == (name in ("resnet", "transformer"))
        if "metrics =" in extra:
            (score,) = last["metrics"].values()
            assert score >= 0
        posterior = load_posterior(folder)
        model = posterior.load_into(make())
        assert isinstance(model, nn.Module)
        own = dict(model.named_parameters())
        assert own.keys() == posterior.mean.keys()
        assert all(torch.equal(own[key], value) for key, value in posterior.mean.items())
        assert bool(posterior.precision) == (method == "ivon_admm")
        _scored_again(model, kind, last["nll"], extra)
    summary = (out / "summary.md").read_text()
    assert "NLL at the mean" in summary and "nan" not in summary


def _scored_again(model: nn.Module, kind: str, nll: float, extra: str) -> None:
    """What the history says is what the loaded network does in evaluation mode, buffers included."""
    _, test = plain.datasets(kind, [18, 12, 9])
    x, y = test.tensors  # type: ignore[attr-defined]
    with torch.no_grad():
        outputs = model.eval()(x)
        losses = plain.huber(outputs, y) if "huber" in extra else nn.functional.cross_entropy(outputs, y)
    assert float(losses.mean()) == pytest.approx(nll, rel=1e-4)


def test_batch_norm_learns_with_averaged_statistics(tmp_path: Path) -> None:
    path = file(tmp_path, "images", "ResNet", 'buffers = "average"', rounds=8)
    assert main(["run", str(path), "--quiet", "--out", str(tmp_path / "out"), "--methods", "fedavg"]) == 0
    last = store.History(tmp_path / "out" / "fedavg" / "seed-3" / "history.jsonl").read()[-1]
    assert last["accuracy"] > 0.9


def test_buffers_that_training_changes_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, "images", "ResNet", "")
    assert main(["run", str(path), "--quiet", "--out", str(tmp_path / "no")]) == 2
    error = capsys.readouterr().err
    assert (
        'methods.fedavg: model.buffers: expected "average" or "local"' in error and "blocks.1.bn2.running_var" in error
    )


@pytest.mark.parametrize("policy", ["average", "local"])
def test_runs_with_buffers_resume_to_the_same_bits(policy: str, tmp_path: Path) -> None:
    path = file(tmp_path, "images", "ResNet", f'buffers = "{policy}"', rounds=3)
    arguments = ["run", str(path), "--quiet", "--methods", "fedavg,ivon_admm", "--out"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    assert main([*arguments, str(tmp_path / "parts"), "--set", "run.rounds=1"]) == 0
    assert main([*arguments, str(tmp_path / "parts"), "--resume"]) == 0
    for method in ("fedavg", "ivon_admm"):
        states = [tmp_path / name / method / "seed-3" / "state.safetensors" for name in ("whole", "parts")]
        assert states[0].read_bytes() == states[1].read_bytes()


def test_results_do_not_depend_on_workers_or_stacks(tmp_path: Path) -> None:
    """Dropout and batch norm see each client's own batch and stream, whatever trains beside it."""
    for name, (kind, network, extra) in {
        "drop": ("tokens", "Transformer", ""),
        "norm": ("images", "ResNet", 'buffers = "local"'),
    }.items():
        ends = []
        for stack, threads in ((1, 1), (3, 1), (1, 2)):
            out = tmp_path / f"{name}-{stack}-{threads}"
            more = ["--set", f"run.stack={stack}", "--set", f"run.threads={threads}", "--methods", "fedavg"]
            assert main(["run", str(file(tmp_path, kind, network, extra)), "--quiet", "--out", str(out), *more]) == 0
            ends.append(load_posterior(out / "fedavg" / "seed-3"))
        for group in ("mean", "buffers"):
            one, together, threaded = (getattr(end, group) for end in ends)
            assert all(torch.equal(value, threaded[key]) for key, value in one.items())
            for key, value in one.items():
                torch.testing.assert_close(value, together[key], rtol=1e-4, atol=1e-5)


def test_one_dataset_is_split_and_frozen_parameters_stay(tmp_path: Path) -> None:
    text = FILE.format(here=HERE, kind="images", network="ResNet", extra='buffers = "average"', rounds=2)
    text = text.replace(":datasets", ":one_dataset").replace("sizes = [18, 12, 9]", "count = 60")
    text = text.replace('buffers = "average"', 'buffers = "average"\noptions = { frozen_stem = true }')
    path = tmp_path / "split.toml"
    path.write_text(text + '\n[split]\nclients = 4\nkind = "dirichlet"\nminimum = 6\n')
    assert main(["run", str(path), "--quiet", "--out", str(tmp_path / "out")]) == 0
    for method in METHODS:
        posterior = load_posterior(tmp_path / "out" / method / "seed-3")
        assert "stem.weight" not in posterior.mean and "bn.weight" in posterior.mean
        model = plain.ResNet(frozen_stem=True)
        before = model.stem.weight.clone()
        assert torch.equal(posterior.load_into(model).stem.weight, before)


WRONG = {
    'model.factory="nowhere:make"': "model.factory: expected a file or module that can be imported, got nowhere",
    f'model.factory="{HERE}:nothing"': "model.factory: expected a function or class in",
    f'model.factory="{HERE}:huber"': "model.factory: expected keywords that",
    f'model.factory="{HERE}:one_dataset"': "model.factory: expected keywords that",
    "model.options={width=4, depth=3}": "model.factory: expected keywords that",
    f'data.factory="{HERE}:noisy"': "data.factory: expected keywords that",
    'model.factory="make"': 'model.factory: expected "package.module:name" or "file.py:name", got \'make\'',
}


@pytest.mark.parametrize("change", WRONG)
def test_what_does_not_fit_is_named_in_a_line(change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, "images", "ResNet", 'buffers = "average"')
    assert main(["run", str(path), "--quiet", "--out", str(tmp_path / "out"), "--set", change]) == 2
    error = capsys.readouterr().err
    assert WRONG[change] in error and "Traceback" not in error


def test_a_factory_may_lie_in_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("from torch import nn\n\ndef make():\n    return nn.LazyLinear(3)\n")
    path = file(tmp_path, "images", "ResNet", "")
    path.write_text(path.read_text().replace(f"{HERE}:ResNet", "nets.py:make"))
    loaded = config.load(path)
    assert loaded.model.factory == f"{tmp_path / 'nets.py'}:make"
    assert isinstance(factories.call(loaded.model.factory, "model.factory", {}), nn.LazyLinear)


def test_a_file_has_either_a_name_or_a_factory(tmp_path: Path) -> None:
    path = file(tmp_path, "images", "ResNet", 'name = "mlp"')
    with pytest.raises(
        ConfigError, match=r"model\.name: expected either name or factory, got name = 'mlp' and factory"
    ):
        config.load(path)
    path.write_text(path.read_text().replace('name = "mlp"', 'loss = "hinge"'))
    with pytest.raises(ConfigError, match=r"model\.loss: expected cross_entropy, squared_error or"):
        config.load(path)


def test_a_posterior_loads_only_into_its_network(tmp_path: Path) -> None:
    kind, network, extra, _ = CASES["lstm"]
    out = tmp_path / "out"
    path = file(tmp_path, kind, network, extra, rounds=1)
    assert main(["run", str(path), "--quiet", "--out", str(out), "--methods", "ivon_admm"]) == 0
    posterior = load_posterior(out / "ivon_admm" / "seed-3" / "posterior.safetensors")
    draws = [posterior.load_into(plain.Recurrent(), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    weights = [draw.get_parameter("head.weight") for draw in draws]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    with pytest.raises(ValueError, match=r"network: expected 'head.weight' of the shape \(1, 6\), got \(1, 4\)"):
        posterior.load_into(plain.Recurrent(width=4))
    with pytest.raises(ValueError, match=r"network: expected a trained parameter 'head.bias' as in the file"):
        posterior.load_into(plain.Segmenter())
    with pytest.raises(ValueError, match="expected a file, got none"):
        load_posterior(tmp_path)
    summary = json.loads((out / "summary.json").read_text())
    assert summary[0]["metrics"].keys() == {"mae"} and "reliability" not in summary[0]
