"""A data set of 10 easy classes in memory and on disk, and one thread for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from whit.data.splits import Split


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Spinning threads of two tests on two cores slow each other down by more than they give.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def easy_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) uint8 of stripes whose direction is the label, and the labels."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 10).astype(np.uint8)
    y, x = np.mgrid[:28, :28]
    angles = (np.pi * labels / 10)[:, None, None]
    phases = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    waves = np.sin(1.2 * (np.cos(angles) * x + np.sin(angles) * y) + phases)
    noise = rng.normal(0, 10, (count, 28, 28))
    return np.clip(127 + 100 * waves + noise, 0, 255).astype(np.uint8), labels


def easy_split(name: str, count: int, seed: int = 0) -> Split:
    images, labels = easy_images(count, seed)
    return Split(
        name,  # type: ignore[arg-type]
        torch.from_numpy(images)[:, None].contiguous(),
        torch.from_numpy(labels).long(),
    )


@pytest.fixture(scope="session")
def easy_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "easy.npz"
    images, labels = easy_images(400, 1)
    test_images, test_labels = easy_images(100, 2)
    np.savez(path, x_train=images, y_train=labels, x_test=test_images, y_test=test_labels)
    return path


@pytest.fixture
def easy_recipe(easy_npz: Path, tmp_path: Path) -> Path:
    """A recipe file that reaches its budget on the easy data in about a second."""
    path = tmp_path / "easy.toml"
    path.write_text(
        f"""
name = "easy"
[model]
name = "plain"
widths = [8, 16]
pools = [1, 2]
[data]
name = "{easy_npz}"
[train]
epochs = 3
batch_size = 16
[optim]
lr = 0.1
[augment]
shift = 1.0
rotate = 2.0
[budget]
params = "< 20000"
epochs = "< 20"
accuracy = ">= 90"
require = ["batchnorm", "dropout", "gap"]
"""
    )
    return path
