"""The easy data set on disk, a recipe for it, and one thread for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from easy_data import easy_images


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Spinning threads of two tests on two cores slow each other down by more than they give.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
