"""The quick end of a process: nothing is lost that the usual end keeps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """\
import atexit, sys, threading, time
from whit.system.processor.process_exit import exit_quickly

class Node:
    def __del__(self):
        print("destroyed")

def make_cycle():
    node = Node()
    node.itself = node

def work():
    time.sleep(0.2)
    print("thread")

{before}
make_cycle()
kept = Node()
atexit.register(print, "handler")
print("output")
print("error", file=sys.stderr, end="")
exit_quickly({code})
"""


def run(code: int = 0, before: str = "") -> tuple[int, list[str], str]:
    program = _PROGRAM.format(code=code, before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.returncode, done.stdout.split(), done.stderr


@pytest.mark.parametrize("code", [0, 1, 143])
def test_handlers_run_and_output_is_flushed(code: int) -> None:
    assert run(code) == (code, ["output", "handler"], "error")


def test_a_thread_finishes_first() -> None:
    code, said, _ = run(3, "threading.Thread(target=work).start()")
    assert code == 3
    assert {"output", "thread", "handler"} <= set(said)
    assert run(3, "threading.Thread(target=work, daemon=True).start()") == (
        *(3, ["output", "handler"], "error"),
    )


def test_a_profiler_reports() -> None:
    program = _PROGRAM.format(code=0, before="")
    command = [sys.executable, "-m", "cProfile", "/dev/stdin"]
    done = subprocess.run(command, input=program, capture_output=True, text=True, check=True)
    assert "function calls" in done.stdout


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_is_gone_changes_nothing(name: str) -> None:
    code, _, _ = run(2, f"sys.{name} = None")
    assert code == 2


def test_what_a_users_model_writes_is_kept(tmp_path: Path) -> None:
    """A file that is still open when the command ends."""
    (tmp_path / "net.py").write_text(
        """\
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(784, 10)

    def forward(self, images):
        return self.line(images.flatten(1))

log = open("log.txt", "w")
log.write("built")
"""
    )
    command = [sys.executable, "-m", "whit", "plan", "net.py:Net", "--run-whole-file"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (tmp_path / "log.txt").read_text() == "built"
