"""The easy data set on disk, a recipe for it, one thread for all tests, and no network."""

from __future__ import annotations

import atexit
import os
import runpy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from easy_data import easy_images
from harness.fixtures import undisturbed as undisturbed
from harness.fixtures import workplace as workplace

# Here and, through the environment, in every process that a test starts.
_NO_NETWORK = str(Path(__file__).parent / "no_network")
_TRIED = Path(tempfile.gettempdir()) / f"whit-test-tried-{os.getpid()}"
os.environ["WHIT_TEST_TRIED"] = str(_TRIED)
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [_NO_NETWORK, os.environ.get("PYTHONPATH")])
)
# As in an installation: without bytecode, each of a thousand processes compiles whit again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Tests that print what they do, and count workers, do not depend on what else the machine does;
# those of shared machines unset both.
os.environ["WHIT_CORES"] = str(os.cpu_count())
# Spinning threads of two tests on two cores slow each other down by more than they give.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="whit-test-runtime-")
atexit.register(shutil.rmtree, os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)
runpy.run_path(f"{_NO_NETWORK}/sitecustomize.py")

# How long an example takes says how busy the machine is, and nothing about whit.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture
def tried() -> Path:
    """Where connections that were tried are written down; a test that is to try one removes it."""
    return _TRIED


@pytest.fixture(autouse=True)
def _no_connection() -> Iterator[None]:
    yield
    if _TRIED.exists():
        said = _TRIED.read_text()
        _TRIED.unlink()
        pytest.fail(f"a connection was tried: {said}")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
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
schema = 2
name = "easy"
[model]
name = "plain"
widths = [8, 16]
pool_after = [1, 2]
[data]
name = "{easy_npz}"
[train]
epochs = 3
batch_size = 16
[optim]
lr = 0.1
[augment]
translate = 1.0
degrees = 2.0
[budget]
params = "< 20000"
epochs = "< 20"
accuracy = ">= 90"
require = ["batchnorm", "dropout", "gap"]
"""
    )
    return path
