"""Reading untrusted files: complete ones up to a limit, nothing that blocks, no links."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from harness.records import runs_of
from whit.errors import InputError
from whit.runs.layout import find_runs
from whit.runs.lock import read_lock_holder
from whit.runs.reader import read_run
from whit.system.untrusted_files import read_untrusted


def test_files_are_read_to_their_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for size in (0, 1, 99, 100, 101, 3_000_000):
        content = bytes(i % 251 for i in range(size))
        file.write_bytes(content)
        assert read_untrusted(file, 100) == content[:100]
        assert read_untrusted(str(file), 4_000_000) == content
    assert read_untrusted("/proc/self/status", 10_000)  # says that it is empty


def test_what_is_no_file_of_its_own_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
    for name in ("link", "dangling", "folder", "pipe", "socket"):
        assert read_untrusted(tmp_path / name, 10) is None, name
    with pytest.raises(FileNotFoundError):
        read_untrusted(tmp_path / "nothing", 10)


@pytest.mark.parametrize(
    "name", ["recipe.toml", "environment.json", "result.json", "log.jsonl", "owner.json"]
)
def test_a_pipe_in_a_run_is_not_waited_for(name: str, tmp_path: Path) -> None:
    """Nobody ever writes into it: a read that waited would hang this test."""
    run = shutil.copytree(runs_of("fewest-epochs")[0], tmp_path / "run")
    if name == "owner.json":
        (run / "checkpoint").mkdir()
        os.mkfifo(run / "checkpoint" / name)
        assert read_lock_holder(run / "checkpoint") is None
        return
    (run / name).unlink()
    os.mkfifo(run / name)
    assert find_runs([tmp_path]) == [run]  # and it is shown as damaged
    with pytest.raises(InputError, match=name):
        read_run(run)


def test_a_recipe_larger_than_one_can_be_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("a = 1\n" * 20_000)
    with pytest.raises(InputError, match="larger than 100,000 bytes"):
        read_run(tmp_path)


def test_equal_recipes_are_told_by_their_own_files(tmp_path: Path) -> None:
    """A wrong text is parsed again for each, so that the message names the right file."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.toml").write_text("name = 3\n")
        with pytest.raises(InputError, match=f"{name}/recipe.toml: name = 3"):
            read_run(tmp_path / name)
