"""Runs to look at, and one server that shows them to all tests that change nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from asking import Server

import whit
from harness.forging import reseal

RECIPE = """\
schema = 2
name = "easy"
[model]
name = "plain"
widths = [8, 16]
pool_after = [1, 2]
[data]
name = "easy.npz"
[train]
epochs = 2
batch_size = 16
precision = "fp32"
[budget]
params = "< 20000"
epochs = "< 20"
accuracy = ">= 20"
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, easy_npz: Path) -> Path:
    """A folder with easy.npz, easy.toml and a finished run of it."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(easy_npz, folder / "easy.npz")
    (folder / "easy.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        whit.train("easy.toml", seed=0, out="run", threads=1, quiet=True)
    return folder


@pytest.fixture
def shelf(trained: Path, tmp_path: Path) -> Path:
    """A folder of somebody's own, with the data, to put runs into."""
    shutil.copy(trained / "easy.npz", tmp_path / "easy.npz")
    return tmp_path


@pytest.fixture
def put(trained: Path) -> Callable[[Path], Path]:
    """Put a copy of the finished run somewhere."""

    def copy(path: Path) -> Path:
        shutil.copytree(trained / "run", path)
        return path

    return copy


@pytest.fixture(scope="session")
def shown(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind: finished, in studies and searches, stopped, diverged, damaged."""
    folder = tmp_path_factory.mktemp("shown")
    shutil.copy(trained / "easy.npz", folder / "easy.npz")

    def copy(path: str) -> Path:
        shutil.copytree(trained / "run", folder / path)
        return folder / path

    copy("runs/one")
    (copy("runs/stopped") / "result.json").unlink()
    (copy("runs/damaged") / "result.json").write_text("[1, 2]")
    edited = copy("runs/edited") / "result.json"
    edited.write_text(edited.read_text().replace('"seed": 0', '"seed": 1'))
    (copy("runs/no-weights") / "weights.safetensors").unlink()
    own = copy("runs/own-model") / "recipe.toml"
    (folder / "mine.py").write_text("class Net: open('canary', 'w')\n")
    own.write_text(own.read_text().replace('name = "plain"', 'name = "mine.py:Net"'))
    reseal(own.parent)
    for seed in range(3):
        environment = copy(f"studies/easy-01234567/seed-{seed}") / "environment.json"
        told = json.loads(environment.read_text())
        environment.write_text(json.dumps({**told, "seed": seed}))
        reseal(environment.parent)
    copy("searches/small/trials/0004/seed-0")
    shutil.copy(trained / "run" / "recipe.toml", folder / "searches/small/trials/0004")
    copy("records/easy/easy-01234567/seed-0")
    return folder


@pytest.fixture(scope="session")
def server(shown: Path) -> Iterator[Server]:
    started = Server(shown)
    yield started
    code, said = started.end()
    assert (code, said) == (130, "whit: stopped by SIGINT.\n")


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers, as `serve(folder, *arguments)`; they are ended after the test."""
    started: list[Server] = []

    def start(folder: Path, *arguments: str, before: str = "pass") -> Server:
        started.append(Server(folder, *arguments, before=before))
        return started[-1]

    yield start
    for server in started:
        server.close()
