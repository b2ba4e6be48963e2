"""Processes that take turns: never two at once on the same cores, and nobody waits for ever."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from waiting import wait_until
from whit.system.processor import turns
from whit.system.processor.turns import Turns, list_members, turns_folder

# Takes turns until it is killed, and writes `+ID` at the beginning of each and `-ID` at its end.
_CHILD = """
import os, sys, time
from pathlib import Path
from whit.system.processor import turns
name, threads, cores, folder, log = sys.argv[1:]
log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
turns._TURN_SECONDS = 0.005
take, release = turns.Turns._take, turns.Turns._release
def taken(self):
    take(self)
    os.write(log, f"+{name}\\n".encode())
def given(self):
    os.write(log, f"-{name}\\n".encode())
    release(self)
turns.Turns._take, turns.Turns._release = taken, given
with turns.Turns(int(threads), int(cores), Path(folder)) as mine:
    while True:
        time.sleep(0.001)
        mine.between_steps()
"""


@contextmanager
def _child(name: str, threads: int, cores: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [name, str(threads), str(cores), str(folder), str(folder / "log")]
    with subprocess.Popen([sys.executable, "-c", _CHILD, *arguments]) as process:
        try:
            yield process
        finally:
            process.kill()


def _log(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().split() if log.exists() else []


def test_two_that_need_all_cores_never_run_at_once(tmp_path: Path) -> None:
    with _child("a", 2, 2, tmp_path), _child("b", 2, 2, tmp_path):
        wait_until(lambda: min(_log(tmp_path).count("+a"), _log(tmp_path).count("+b")) >= 20)
    running: set[str] = set()
    for sign, name in _log(tmp_path):
        if sign == "-":
            running.discard(name)
        else:
            assert not running
            running.add(name)


def test_two_that_need_one_core_each_run_at_once(tmp_path: Path) -> None:
    def run_together() -> bool:
        running: set[str] = set()
        for sign, name in _log(tmp_path):
            running = running | {name} if sign == "+" else running - {name}
            if len(running) == 2:
                return True
        return False

    with _child("a", 1, 2, tmp_path), _child("b", 1, 2, tmp_path):
        wait_until(run_together)
        wait_until(lambda: len(list_members(tmp_path)) == 2)


def test_turn_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with _child("a", 2, 2, tmp_path) as process:
        wait_until(lambda: "+a" in _log(tmp_path))
        assert list_members(tmp_path) == [process.pid]
        process.kill()
    with Turns(2, 2, tmp_path) as mine:
        assert mine._is_held
    assert list_members(tmp_path) == []
    assert not list(tmp_path.glob("process-*"))


def test_suspended_process_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_PATIENCE_SECONDS", 0.05)
    with _child("a", 2, 2, tmp_path) as process:
        wait_until(lambda: "+a" in _log(tmp_path))
        process.send_signal(signal.SIGSTOP)
        with Turns(2, 2, tmp_path) as mine:
            mine.between_steps()  # goes on without a turn
            assert not mine._is_held
            assert mine.others() == [process.pid]


def test_signal_ends_the_wait(tmp_path: Path) -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    waiting = Turns(1, 2, tmp_path, check)
    with Turns(2, 2, tmp_path), pytest.raises(KeyboardInterrupt):
        waiting._take()
    assert not waiting._is_held
    with Turns(2, 2, tmp_path) as next_one:  # the queue is free again
        assert next_one._is_held


def test_without_a_folder_nobody_waits() -> None:
    with Turns(2, 2, None) as one, Turns(2, 2, None) as other:
        one.between_steps()
        other.between_steps()
        assert one.others() == []


def test_folder_is_this_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert turns_folder() == tmp_path / "whit"
    assert (tmp_path / "whit").stat().st_mode & 0o777 == 0o700
    (tmp_path / "whit").rmdir()
    (tmp_path / "whit").symlink_to(tmp_path)  # as another user could have made it
    assert turns_folder() is None
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert turns_folder() is None


def test_file_system_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Turns(2, 2, tmp_path / "file") as mine:
        mine.between_steps()
        assert not mine._is_held
    assert mine.others() == []
