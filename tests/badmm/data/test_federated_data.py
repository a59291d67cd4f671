"""Image files: what is read, what is refused with the file's name, and that a pickle cannot run code."""

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from badmm.data import batches, images as data
from tests.badmm.rounds.federated_problems import idx_bytes

RNG = np.random.default_rng(0)
ROOT = os.environ.get(data.ROOT_VARIABLE)


def write_idx_set(root: Path, folder: str, *, zipped: bool) -> dict[str, np.ndarray]:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    arrays = {}
    for stem, count in (("train", 7), ("t10k", 3)):
        arrays[f"{stem}-images-idx3-ubyte"] = RNG.integers(0, 256, (count, 5, 4)).astype(np.uint8)
        arrays[f"{stem}-labels-idx1-ubyte"] = RNG.integers(0, 10, count).astype(np.uint8)
    for name, array in arrays.items():
        content = idx_bytes(array)
        (raw / (name + ".gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return arrays


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("source", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_sets_are_read(tmp_path: Path, source: str, folder: str, zipped: bool) -> None:
    arrays = write_idx_set(tmp_path, folder, zipped=zipped)
    images = data.load(source, tmp_path)
    assert images.shape == (1, 5, 4)
    assert images.levels == 255
    np.testing.assert_array_equal(images.train_images[:, 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(images.test_images[:, 0], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(images.test_labels, arrays["t10k-labels-idx1-ubyte"])


@pytest.mark.parametrize("keys", ["bytes", "text"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_cifar10_batches_are_read(tmp_path: Path, protocol: int, keys: str) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = RNG.integers(0, 256, (6, 2, 3072)).astype(np.uint8)
    for index, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        batch = {"data": pixels[index], "labels": [index, 9], "batch_label": name}
        content = {key.encode(): value for key, value in batch.items()} if keys == "bytes" else batch
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    images = data.load("cifar10", tmp_path)
    np.testing.assert_array_equal(images.train_images.reshape(10, 3072), pixels[:5].reshape(10, 3072))
    assert images.train_labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert images.test_labels.tolist() == [5, 9]


# CIFAR's own files are protocol 2 pickles of Python 2: byte strings as SHORT_BINSTRING, arrays from numpy.core
PYTHON2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R"
    b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    b"\x89T\x00\x0c\x00\x00" + bytes(range(256)) * 12 + b"tbU\x0bfine_labels]K*aU\rcoarse_labels]K\x07au."
)


def test_cifar100_files_of_python_2_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / name).write_bytes(PYTHON2)
    images = data.load("cifar100", tmp_path)
    assert images.num_classes == 100
    assert images.train_labels.tolist() == [42]
    np.testing.assert_array_equal(images.train_images.ravel(), np.tile(np.arange(256), 12))


class Evil:
    def __init__(self, call: tuple[object, ...]) -> None:
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "call",
    [(os.system, "touch {path}"), (eval, "open({path!r}, 'w')"), (getattr, "", "join"), (bytearray, 3), (set, [1])],
    ids=["system", "eval", "getattr", "bytearray", "set"],
)
def test_a_pickle_cannot_call_anything(tmp_path: Path, call: tuple[object, ...]) -> None:
    mark = tmp_path / "mark"
    first, *rest = call
    rest = [item.format(path=str(mark)) if isinstance(item, str) else item for item in rest]
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": Evil((first, *rest)), "labels": []}, protocol=2))
    with pytest.raises(ValueError, match=r"data_batch_1: expected a batch of arrays.*not allowed"):
        batches.read_pickle(path)
    assert not mark.exists()


class Forged:
    """Pickled as a call and a state for what it returns."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self):
        return self.parts


RECONSTRUCT = np.zeros(1).__reduce__()[0]
OBJECTS = (3, "|", None, None, None, -1, -1)


@pytest.mark.parametrize(
    ("kind", "shape", "content"),
    [
        (Forged(np.dtype, ("O8", False, True), (*OBJECTS, 0x01)), (4,), b"A" * 32),  # pointers, not listed as such
        (Forged(np.dtype, ("u1", False, True), (*OBJECTS, 0x3F)), (32,), [b"A"] * 32),
        (Forged(np.dtype, ("V8", False, True), (3, "|", (np.dtype("u1"), (8,)), None, None, 8, 1, 0)), (4,), b"A" * 32),
        (Forged(np.dtype, ("u1", False, True), (3, "|", None, None, None, -1, -1, 0)), (1 << 40,), b"A" * 32),
        (np.dtype("M8[s]"), (4,), b"A" * 32),
        (b"u1", (32,), b"A" * 32),
    ],
    ids=["objects", "bytes in a list", "subarrays", "more than there is", "dates", "a type in bytes"],
)
def test_a_pickle_cannot_forge_an_array(tmp_path: Path, kind: object, shape: tuple[int, ...], content: object) -> None:
    array = Forged(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, shape, kind, False, content))
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": array, "labels": []}, protocol=4))
    with pytest.raises(ValueError, match="batch: expected a batch of arrays and plain values"):
        batches.read_pickle(path)


def test_a_pickle_cannot_build_other_array_kinds(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": np.ma.masked_array([1])}))
    with pytest.raises(ValueError, match="not allowed"):
        batches.read_pickle(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps([1]), "expected a dictionary, got list"),
        (b"", "expected a batch of arrays"),
        (pickle.dumps({"labels": [1]}), "expected a key 'data', got labels"),
        (
            pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]}),
            r"expected bytes of shape \(N, 3072\), got float64",
        ),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1.5]}), "labels: expected a list of integers"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1, 2]}), "labels: expected 1 labels.*got 2"),
    ],
)
def test_bad_batches_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "some_batch"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"some_batch: .*{words}"):
        batches.read_cifar(path, "labels")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c[:-1], "expected 140 bytes of data.*got 139"),
        (lambda c: b"\x00\x00\x0d\x03" + c[4:], "IDX header 00 00 08 03, got 00 00 0d 03"),
        (lambda c: b"", "got nothing"),
    ],
)
def test_bad_idx_files_are_named(tmp_path: Path, change, words: str) -> None:
    write_idx_set(tmp_path, "MNIST", zipped=False)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"train-images-idx3-ubyte: .*{words}"):
        data.load("mnist", tmp_path)


def test_damaged_gzip_is_named(tmp_path: Path) -> None:
    write_idx_set(tmp_path, "MNIST", zipped=True)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: expected a readable IDX file"):
        data.load("mnist", tmp_path)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(data.ROOT_VARIABLE, raising=False)
    with pytest.raises(ValueError, match=r"data\.root: expected a folder with the files of mnist .*BADMM_DATA_ROOT"):
        data.load("mnist")
    with pytest.raises(ValueError, match=r"data\.root: expected an existing folder, got .*gone"):
        data.load("mnist", tmp_path / "gone")
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte or .*\.gz in .*MNIST.raw, got none"):
        data.load("mnist", tmp_path)
    with pytest.raises(ValueError, match=r"data_batch_1 in .*cifar-10-batches-py, got none"):
        data.load("cifar10", tmp_path)
    with pytest.raises(ValueError, match=r"data\.source: expected one of digits, mnist.*got 'svhn'"):
        data.load("svhn")


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    write_idx_set(tmp_path, "MNIST", zipped=False)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([1, 11, 2], np.uint8)))
    with pytest.raises(ValueError, match=r"mnist: test labels: expected in 0\.\.9, got 11 at index 1"):
        data.load("mnist", tmp_path)


def test_digits_need_no_files() -> None:
    images = data.load("digits")
    assert images.shape == (1, 8, 8)
    assert images.train_images.max() == images.levels == 16
    assert len(images.train_labels) + len(images.test_labels) == 1797
    assert len(images.test_labels) == 359


def test_subsets_and_validation_parts_are_disjoint_and_seeded() -> None:
    images = data.load("digits")
    numbered = data.ImageSet(
        "n", np.arange(200, dtype=np.uint8)[:, None], np.arange(200), images.test_images, images.test_labels, 200
    )
    tenth = data.subset(numbered, 0.1, seed=3)
    assert len(np.unique(tenth.train_labels)) == 20
    np.testing.assert_array_equal(tenth.train_labels, data.subset(numbered, 0.1, seed=3).train_labels)
    assert tenth.train_labels.tolist() != data.subset(numbered, 0.1, seed=4).train_labels.tolist()
    rest, held = data.parted(200, 0.25, seed=3)
    assert len(held) == 50
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, held])), np.arange(200))


@pytest.mark.skipif(ROOT is None, reason=f"{data.ROOT_VARIABLE} names no folder with the real files")
@pytest.mark.parametrize(("source", "counts"), [("mnist", (60000, 10000)), ("cifar10", (50000, 10000))])
def test_the_real_sets(source: str, counts: tuple[int, int]) -> None:
    assert ROOT is not None
    folder = Path(ROOT) / {"mnist": "MNIST", "cifar10": "cifar-10-batches-py"}[source]
    if not folder.is_dir():
        pytest.skip(f"no {folder.name} under {data.ROOT_VARIABLE}")
    images = data.load(source)
    assert (len(images.train_labels), len(images.test_labels)) == counts
    assert np.bincount(images.train_labels, minlength=10).min() > 5000
    if source == "mnist":
        assert images.train_images.mean() == pytest.approx(33.3184, abs=1e-4)
