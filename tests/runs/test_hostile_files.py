"""Untrusted files: nothing in them runs, none takes much memory, each gives one message.

Every file is given to a real process, which reports by how much its memory grew at most.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.processes import whit
from whit.errors import InputError
from whit.training.checkpoint import file_name

MOST = 150  # MB; a resumed run judges its network on batches of 500 images


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1000
    raise AssertionError(key)


def _measured(connection: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    before = _status("VmRSS")
    value = function(*arguments)
    connection.send((value, _status("VmHWM") - before))


def measured(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Call a function in a process of its own; return what it does, and MB of memory growth."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measured, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    value: tuple[Any, float] = ours.recv()
    process.join()
    assert process.exitcode == 0
    return value


def _command(folder: str, arguments: list[str]) -> tuple[int, str]:
    """Run a command line in this process; return its exit code and what it said of errors."""
    import contextlib
    import sys

    from whit.cli.app import main

    os.chdir(folder)
    sys.argv = ["whit", *arguments]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main()
    return code, said.getvalue()


def refused(folder: Path, *arguments: str) -> str:
    """Hold a command line to exit 2 with a message, without a traceback or much memory."""
    (code, said), growth = measured(_command, str(folder), list(arguments))
    assert code == 2, (arguments, said)
    assert said.startswith("whit: ")
    assert "Traceback" not in said
    assert growth < MOST, (arguments, growth)
    assert not (folder / "canary").exists(), "it was executed"
    return str(said)


class _Bomb:
    """Pickled, it runs a command when it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


@pytest.fixture
def bomb(workplace: Path) -> bytes:
    content = pickle.dumps(_Bomb(workplace / "canary"))
    torch_file = io.BytesIO()
    torch.save(_Bomb(workplace / "canary"), torch_file)
    pickle.loads(content)
    assert (workplace / "canary").exists(), "the bomb is real"
    (workplace / "canary").rmdir()
    (workplace / "bomb.pt").write_bytes(torch_file.getvalue())
    return content


@pytest.fixture
def untrusted(workplace: Path, undisturbed: Path) -> Path:
    """A finished run, to be spoilt."""
    shutil.copytree(undisturbed, workplace / "run")
    return workplace


def header(text: str | bytes, length: int | None = None) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def weights_files(bomb: bytes, pt: bytes) -> dict[str, bytes]:
    huge = json.dumps({"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 1 << 63]}})
    many = json.dumps(
        {f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(9000)}
    )
    return {
        "pickle": bomb,
        "torch": pt,
        "empty": b"",
        "short": b"\x01",
        "length": header("{}", 1 << 60),
        "negative": header("{}", (1 << 64) - 1),
        "deep": header("[" * 400_000),
        "deep object": header('{"a":' * 90_000),
        "huge shape": header(huge),
        "many tensors": header(many),
        "no json": header(bytes(range(256)) * 100),
    }


def test_weights(untrusted: Path, bomb: bytes) -> None:
    for name, content in weights_files(bomb, (untrusted / "bomb.pt").read_bytes()).items():
        (untrusted / "w.safetensors").write_bytes(content)
        said = refused(untrusted, "audit", "w.safetensors", "--recipe", "easy.toml")
        assert "w.safetensors" in said, name
    with (untrusted / "w.safetensors").open("wb") as stream:
        stream.truncate(20 << 30)  # a hole: it takes no disk
    assert "larger than" in refused(untrusted, "audit", "w.safetensors", "--recipe", "easy.toml")


def test_files_of_a_run(untrusted: Path, bomb: bytes) -> None:
    spoilt: dict[str, list[bytes]] = {
        "result.json": [
            bomb,
            b"[" * 1_900_000,
            b'{"a":' * 300_000,
            b"[" + b"[]," * 600_000 + b"1]",
            b'{"verdict": ' + b"9" * 100_000 + b"}",
        ],
        "log.jsonl": [bomb, b"[" * 9_000, b"\n" * 13_000, b'{"epoch": 1e999}\n'],
        "environment.json": [bomb, b"[" * 1_900_000],
        "recipe.toml": [bomb, b"a=" + b"[" * 90_000, b"a." * 45_000 + b"a=1", b"[[a]]\n" * 16_000],
        "weights.safetensors": [bomb],
    }
    for name, contents in spoilt.items():
        file = untrusted / "run" / name
        whole = file.read_bytes()
        for content in contents:
            file.write_bytes(content)
            assert name in refused(untrusted, "audit", "run")
        with file.open("wb") as stream:
            stream.truncate(20 << 30)
        assert name in refused(untrusted, "audit", "run")
        file.unlink()
        file.symlink_to("/dev/zero")
        assert name in refused(untrusted, "audit", "run")
        file.unlink()
        file.write_bytes(whole)


def test_an_unfinished_untrusted_run(untrusted: Path, bomb: bytes) -> None:
    run = untrusted / "run"
    (run / "result.json").unlink()
    (run / "checkpoint").mkdir()
    fakes = [bomb, header("[" * 400_000), header('{"__metadata__":{"whit":"[[[["}}')]
    for number, content in enumerate(fakes):
        (run / "checkpoint" / file_name(number, content)).write_bytes(content)
    (run / "checkpoint" / "owner.json").write_bytes(b"[" * 5_000_000)
    (code, said), growth = measured(
        _command, str(untrusted), ["train", "--resume", "run", "--quiet"]
    )
    assert code == 0, said
    assert said.count("damaged and ignored.") == 3
    assert growth < MOST
    assert not (untrusted / "canary").exists()


def test_a_checkpoint_folder_that_leads_elsewhere(untrusted: Path) -> None:
    run, other = untrusted / "run", untrusted / "other"
    (run / "result.json").unlink()
    other.mkdir()
    for name in (".mine.tmp", "000001-0123456789abcdef.safetensors"):
        (other / name).write_text("dear")
    (run / "checkpoint").symlink_to(other)
    assert "checkpoint: a link" in refused(untrusted, "train", "--resume", "run")
    assert len(list(other.iterdir())) == 2


def test_data(workplace: Path, bomb: bytes) -> None:
    images = np.zeros((40, 28, 28), np.uint8)
    labels = (np.arange(40) % 10).astype(np.uint8)
    names = ("x_train", "y_train", "x_test", "y_test")

    def packed(**arrays: bytes) -> None:
        with zipfile.ZipFile(workplace / "data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                whole = io.BytesIO()
                np.save(whole, images if name.startswith("x") else labels)
                archive.writestr(f"{name}.npy", arrays.get(name, whole.getvalue()))

    objects = io.BytesIO()
    np.save(objects, np.array([_Bomb(workplace / "canary")], dtype=object), allow_pickle=True)
    start = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        start, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 28, 28)}
    )
    for spoilt in (
        {"x_train": objects.getvalue()},
        {"y_train": bomb},
        {"x_train": start.getvalue() + bytes(200_000_000)},
        {"x_test": start.getvalue()},
    ):
        packed(**spoilt)
        refused(workplace, "data", "data.npz")
        shutil.copy(workplace / "data.npz", workplace / "easy.npz")
        refused(workplace, "train", "easy.toml", "--out", "r")
        assert not (workplace / "r").exists()


def png(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds little."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(50_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_folder_of_images(workplace: Path, bomb: bytes) -> None:
    for name, content in (
        ("bomb", png(50_000, 50_000)),
        ("wide", png(1 << 30, 1)),
        ("pickle", bomb),
        ("zip", b"PK\x03\x04" + bytes(1000)),
    ):
        root = workplace / name
        for label in ("a", "b"):
            (root / label).mkdir(parents=True)
            (root / label / "1.png").write_bytes(content)
        refused(workplace, "data", name)
    root = workplace / "links"
    (root / "a").mkdir(parents=True)
    (root / "a" / "1.png").symlink_to("/etc/passwd")
    (root / "b").symlink_to("/etc")
    assert "link" in refused(workplace, "data", "links")


def test_names_that_lead_elsewhere(workplace: Path) -> None:
    recipe = (workplace / "easy.toml").read_text()
    for name in ("../../evil", "/tmp/evil", "a/b", "..", "a\\u0000b", "\\u001b[2J"):
        (workplace / "evil.toml").write_text(recipe.replace('"easy"', f'"{name}"', 1))
        assert "name" in refused(workplace, "train", "evil.toml")
    assert not (workplace / "runs").exists()


def _mutated(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                changed[place : place + rng.randint(1, 9)] = b""
            case 2:
                changed[place:place] = rng.choice(
                    [b"[", b"{", b'"', b"9" * 30, b"-", b"\xff", b"1e999", b"null", b"\n", b"="]
                )
            case 3:
                other = rng.randrange(len(changed))
                changed[place:place] = changed[other : other + rng.randint(1, 60)]
        if not changed:
            changed = bytearray(b" ")
    return bytes(changed)


def _load_mutated_weights(folder: str, count: int) -> tuple[int, int]:
    from whit.models.build import build_initialized_model
    from whit.models.weights import load_weights
    from whit.recipes.recipe import load_recipe

    content = Path(folder, "run/weights.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little") + 8
    model = build_initialized_model(load_recipe(Path(folder, "run/recipe.toml")), (1, 28, 28), 10)
    rng, file = random.Random(6), Path(folder, "mutated.safetensors")
    loaded = refusals = 0
    for _ in range(count):
        file.write_bytes(_mutated(content[:length], rng) + content[length:])
        try:
            load_weights(model, file)
            loaded += 1
        except InputError:
            refusals += 1
    return loaded, refusals


def _parse_mutated_recipes(folder: str, count: int) -> tuple[int, int]:
    from whit.recipes.recipe import load_recipe

    content = Path(folder, "run/recipe.toml").read_bytes()
    rng, file = random.Random(7), Path(folder, "mutated.toml")
    loaded = refusals = 0
    for _ in range(count):
        file.write_bytes(_mutated(content, rng))
        try:
            load_recipe(file)
            loaded += 1
        except InputError:
            refusals += 1
    return loaded, refusals


@pytest.mark.parametrize(
    "count", [500, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "ten thousand"]
)
@pytest.mark.parametrize("read", [_load_mutated_weights, _parse_mutated_recipes])
def test_mutated_files(
    untrusted: Path, read: Callable[[str, int], tuple[int, int]], count: int
) -> None:
    (loaded, refusals), growth = measured(read, str(untrusted), count)
    assert loaded + refusals == count
    assert refusals > count // 2
    assert growth < MOST


def test_only_files_that_were_asked_for_are_imported(workplace: Path) -> None:
    """A recipe names a file, never a module on the path."""
    (workplace / "evil.py").write_text("class Net: open('canary', 'w')\n")
    recipe = (workplace / "easy.toml").read_text()
    for name in ("evil:Net", "os:mkdir", "evil.Net", "torch.hub:load"):
        (workplace / "evil.toml").write_text(recipe.replace('"plain"', f'"{name}"'))
        refused(workplace, "plan", "evil.toml")
    code, said = whit(workplace, "plan", "easy.toml")
    assert code == 0, said
