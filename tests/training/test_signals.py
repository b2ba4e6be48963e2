"""SIGINT, SIGTERM and SIGHUP: all is saved, the message says how to go on, a second one leaves."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from experiments.test_search import SPACE
from harness.processes import Command, evidence, whit
from training.test_kill_and_resume import epochs_of, length_of
from waiting import LIMIT, wait_until
from whit.system.signals import SignalHandler, StopRequested

TRAIN = ("train", "easy.toml", "--out", "a run", "--threads", "1", "--quiet")


class Moment(NamedTuple):
    """So long after a run has so many epochs: however slow the machine is, it comes in time."""

    signal: signal.Signals
    epochs: int
    seconds: float


def stop_once(workplace: Path, undisturbed: Path, moment: Moment) -> bool:
    """Stop a training at a moment, resume it by the command it names, and compare.

    Returns whether it was stopped before its end.
    """
    run = workplace / "a run"
    shutil.rmtree(run, ignore_errors=True)
    command = Command.start(workplace, *TRAIN, patience=LIMIT)  # a busy machine may need it
    wait_until(lambda: epochs_of(run) >= moment.epochs, command)
    time.sleep(moment.seconds)
    number = moment.signal
    command.signal(number)
    code = command.wait()
    if code == 0:
        return False
    assert code == 128 + number, command.said
    said = command.said.strip().splitlines()[-1]
    assert said.startswith(f"whit: stopped by {signal.Signals(number).name} ")
    assert said.endswith("Everything is saved. Resume with: whit train --resume 'a run'")
    code, said = whit(workplace, "train", "--resume", "a run", "--quiet")
    assert code == 0, said
    assert evidence(run) == evidence(undisturbed)
    return True


def moments(count: int, undisturbed: Path, seed: int) -> list[Moment]:
    rng = random.Random(seed)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    epoch = length_of(undisturbed) / 4
    return [Moment(numbers[i % 3], rng.randint(0, 3), rng.uniform(0, epoch)) for i in range(count)]


def test_stopped_by_each_signal(workplace: Path, undisturbed: Path) -> None:
    for number, epochs in ((signal.SIGINT, 0), (signal.SIGTERM, 1), (signal.SIGHUP, 2)):
        assert stop_once(workplace, undisturbed, Moment(number, epochs, 0.0))


@pytest.mark.slow
def test_stopped_at_twenty_random_moments_each(workplace: Path, undisturbed: Path) -> None:
    stopped = [stop_once(workplace, undisturbed, at) for at in moments(40, undisturbed, 2)]
    assert sum(stopped) >= 20, stopped


def test_stopped_in_an_evaluation(workplace: Path) -> None:
    """An evaluation of a minute is stopped immediately, and repeated when the run resumes."""
    (workplace / "slow.py").write_text(
        "import os, time, torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(1, 10, 5, 4)\n"
        "        self.norm = nn.BatchNorm2d(10)\n"
        "    def forward(self, x):\n"
        "        if not self.training and len(x) == 100:\n"
        "            open('evaluating', 'w').close()\n"
        "            try:\n"
        "                time.sleep(60 * os.path.exists('slow'))\n"
        "                open('evaluated', 'w').close()\n"
        "            except Exception:\n"
        "                pass\n"
        "        return self.norm(self.conv(x)).mean((2, 3))\n"
    )
    text = (workplace / "easy.toml").read_text()
    text = text.replace('"plain"\nwidths = [8, 16]\npool_after = [1, 2]', '"slow.py:Net"')
    (workplace / "slow.toml").write_text(text.replace("epochs = 4", "epochs = 2"))
    arguments = ("train", "slow.toml", "--threads", "1", "--quiet", "--set", "budget.accuracy=>= 0")
    code, said = whit(workplace, *arguments, "--out", "whole")
    assert code == 0, said
    for name in ("evaluating", "evaluated"):
        (workplace / name).unlink()
    (workplace / "slow").touch()
    command = Command.start(workplace, *arguments, "--out", "run")
    wait_until((workplace / "evaluating").exists, command)
    command.signal(signal.SIGINT)
    assert command.wait() == 130, command.said
    assert "in epoch 1 of 2, after 75 of 75 batches. Everything is saved." in command.said
    assert not (workplace / "evaluated").exists()
    (workplace / "slow").unlink()
    assert whit(workplace, "train", "--resume", "run", "--quiet")[0] == 0
    assert evidence(workplace / "run") == evidence(workplace / "whole")


def test_a_second_signal_leaves_whole_files(workplace: Path, undisturbed: Path) -> None:
    for pause in (0.0, 0.005):
        run = workplace / "a run"
        shutil.rmtree(run, ignore_errors=True)
        command = Command.start(workplace, *TRAIN)
        wait_until(lambda run=run: epochs_of(run) >= 1, command)
        command.signal(signal.SIGINT)
        time.sleep(pause)
        command.signal(signal.SIGINT)
        assert command.wait() == 130, command.said
        code, said = whit(workplace, "train", "--resume", "a run", "--quiet")
        assert code == 0, said
        assert evidence(run) == evidence(undisturbed)


def in_a_step_that_does_not_end(workplace: Path) -> Command:
    """Start a training, and wait until it is in a step that takes a minute."""
    (workplace / "stuck.py").write_text(
        "import time, torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(1, 10, 5, 4)\n"
        "        self.norm = nn.BatchNorm2d(10)\n"
        "        self.steps = 0\n"
        "    def forward(self, x):\n"
        "        self.steps += self.training\n"
        "        if self.steps == 20:\n"
        "            open('stuck', 'w').close()\n"
        # In one sleep a signal just before it would wait for its end.
        "            for _ in range(6000):\n"
        "                time.sleep(0.01)\n"
        "        return self.norm(self.conv(x)).mean((2, 3))\n"
    )
    text = (workplace / "easy.toml").read_text()
    text = text.replace('"plain"\nwidths = [8, 16]\npool_after = [1, 2]', '"stuck.py:Net"')
    (workplace / "stuck.toml").write_text(text)
    command = Command.start(workplace, "train", "stuck.toml", "--out", "run", "--threads", "1")
    wait_until((workplace / "stuck").exists, command)
    return command


def test_a_step_that_does_not_end_is_not_waited_for(workplace: Path) -> None:
    command = in_a_step_that_does_not_end(workplace)
    command.signal(signal.SIGTERM)
    assert command.wait() == 143, command.said
    assert "the latest checkpoint is kept. Resume with: whit train --resume run" in command.said


def test_a_second_signal_exits_immediately(workplace: Path) -> None:
    command = in_a_step_that_does_not_end(workplace)
    command.signal(signal.SIGINT)
    command.signal(signal.SIGTERM)
    assert command.wait() == 143, command.said
    assert "stopped immediately; the latest checkpoint is kept" in command.said


def test_hangup_is_never_a_second_signal() -> None:
    """A terminal that closes may send it twice; the second one must not end the saving."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with SignalHandler() as signals:
            for number in (signal.SIGHUP, signal.SIGHUP):
                os.kill(os.getpid(), number)
            assert signals.requested == signal.SIGHUP
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with SignalHandler() as signals:  # as under nohup
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.requested is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_says_how_to_resume_a_study(workplace: Path) -> None:
    command = Command.start(workplace, "study", "easy.toml", "--seeds", "2", "--jobs", "1")
    wait_until(lambda: list(workplace.glob("studies/easy-*/seed-0/log.jsonl")), command)
    command.signal(signal.SIGINT)
    command.signal(signal.SIGTERM)
    assert command.wait() == 143, command.said
    assert "the latest checkpoint is kept. Resume with the same command." in command.said


@pytest.mark.parametrize(
    "arguments",
    [
        ("study", "easy.toml", "--seeds", "1", "--cluster", "tcp://127.0.0.1:{port}"),
        ("search", "tiny.toml", "--storage", "postgresql://whit@127.0.0.1:{port}/x"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_stopped_while_nobody_answers(workplace: Path, arguments: tuple[str, ...]) -> None:
    (workplace / "tiny.toml").write_text(SPACE)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(LIMIT)
        port = silent.getsockname()[1]
        command = Command.start(workplace, *(part.format(port=port) for part in arguments))
        with silent.accept()[0] as connection:
            assert connection.recv(1)  # it has asked, and waits for an answer
            command.signal(signal.SIGINT)
            assert command.wait() == 130, command.said
    assert command.said == "whit: stopped by SIGINT. Run the same command to resume.\n"


def test_a_signal_while_the_result_is_written_is_not_waited_for() -> None:
    with SignalHandler() as signals:
        signals.final_check()
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.requested == signal.SIGINT
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with SignalHandler() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        with pytest.raises(StopRequested):
            signals.final_check()
