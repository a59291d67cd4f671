"""Image sets for federated experiments: scikit-learn's digits, which need no files, and MNIST and CIFAR under a root.

The root is laid out as torchvision lays it out (MNIST/raw, FashionMNIST/raw, cifar-10-batches-py, cifar-100-python).
It is an argument, or the environment variable BADMM_DATA_ROOT. Nothing is downloaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badmm.data import batches, readers
from badmm.streams import Purpose, generator

ROOT_VARIABLE = "BADMM_DATA_ROOT"
SOURCES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ImageSet:
    """Images (N, channels, height, width) as integer levels 0..`levels` and labels (N,) in 0..num_classes−1.

    A network sees pixel = level / levels, in [0, 1].
    """

    name: str
    train_images: readers.Bytes
    train_labels: Labels
    test_images: readers.Bytes
    test_labels: Labels
    num_classes: int
    levels: int = 255

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        return self.train_images.shape[1:]


def load(source: str, root: str | Path | None = None) -> ImageSet:
    """An image set of `SOURCES`; ValueError for another name, a missing root or file, or labels out of range."""
    if source not in SOURCES:
        raise ValueError(f"data.source: expected one of {', '.join(SOURCES)}, got {source!r}")
    if source == "digits":
        return _digits()
    base = _root(source, root)
    loaders = {"mnist": ("MNIST", _idx), "fashion_mnist": ("FashionMNIST", _idx)}
    if source in loaders:
        folder, load_files = loaders[source]
        images = load_files(source, base / folder / "raw")
    elif source == "cifar10":
        images = _cifar(source, base / "cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)], "test_batch")
    else:
        images = _cifar(source, base / "cifar-100-python", ["train"], "test")
    for part, labels in (("training", images.train_labels), ("test", images.test_labels)):
        wrong = np.flatnonzero((labels < 0) | (labels >= images.num_classes))
        if wrong.size:
            allowed = f"in 0..{images.num_classes - 1}"
            raise ValueError(f"{source}: {part} labels: expected {allowed}, got {labels[wrong[0]]} at index {wrong[0]}")
    return images


def part(count: int, fraction: float, seed: int) -> NDArray[np.intp]:
    """A random `fraction` of 0..count−1 (rounded, at least one), without replacement, sorted."""
    if fraction == 1.0:
        return np.arange(count)
    return np.sort(generator(seed, Purpose.HOLD_OUT, 0).permutation(count)[: max(1, round(count * fraction))])


def parted(count: int, fraction: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """0..count−1 without a random `fraction`, and that fraction, sorted."""
    cut = round(count * fraction)
    order = generator(seed, Purpose.HOLD_OUT, 1).permutation(count)
    return np.sort(order[cut:]), np.sort(order[:cut])


def subset(images: ImageSet, fraction: float, seed: int) -> ImageSet:
    """A random `fraction` of the training images; see `part`."""
    rows = part(len(images.train_labels), fraction, seed)
    return replace(images, train_images=images.train_images[rows], train_labels=images.train_labels[rows])


def _root(source: str, root: str | Path | None) -> Path:
    chosen = root if root is not None else os.environ.get(ROOT_VARIABLE)
    if not chosen:
        raise ValueError(f"data.root: expected a folder with the files of {source} (or {ROOT_VARIABLE}), got none")
    if not Path(chosen).is_dir():
        raise ValueError(f"data.root: expected an existing folder, got {str(chosen)!r}")
    return Path(chosen)


def _idx(source: str, folder: Path) -> ImageSet:
    train, test = (readers.read_idx_pair(folder, stem) for stem in ("train", "t10k"))
    return ImageSet(source, *train, *test, num_classes=10)


def _cifar(source: str, folder: Path, train: list[str], test: str) -> ImageSet:
    classes, key = (10, "labels") if source == "cifar10" else (100, "fine_labels")
    parts = [batches.read_cifar(_existing(folder / name), key) for name in train]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ImageSet(source, images, labels, *batches.read_cifar(_existing(folder / test), key), num_classes=classes)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"data.root: expected a file {path.name} in {path.parent}, got none")
    return path


def _digits() -> ImageSet:
    """1797 images of 8×8 with levels 0..16; a fifth, drawn with a fixed seed, are the test set."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = np.sort(order[: len(order) // 5]), np.sort(order[len(order) // 5 :])
    return ImageSet("digits", images[train], labels[train], images[test], labels[test], num_classes=10, levels=16)
