"""Killed anywhere and resumed, a run is the same run, byte for byte.

Real processes, real SIGKILL. A few moments here; two hundred by `make slow`.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from harness.processes import ENVIRONMENT, WHIT, Command, evidence, fresh, whit
from waiting import wait_until

TRAIN = ("train", "easy.toml", "--out", "run", "--threads", "1", "--quiet")
RESUME = ("train", "--resume", "run", "--quiet")


def epochs_of(run: Path) -> int:
    """How many epochs a run's log has; -1 as long as there is no run."""
    log = run / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else run.exists() - 1


def kill_after(folder: Path, epochs: int) -> None:
    """Kill a training as soon as its log has so many epochs."""
    command = Command.start(folder, *TRAIN)
    wait_until(lambda: epochs_of(folder / "run") >= epochs, command)
    command.signal(signal.SIGKILL)
    command.wait()
    assert not (folder / "run" / "result.json").exists()


def length_of(undisturbed: Path) -> float:
    """Seconds of a whole training, the start of its process included.

    Only to spread moments over it: at another time the machine may be faster or slower.
    """
    return float((undisturbed.parent / "seconds").read_text())


def kill_once(workplace: Path, undisturbed: Path, epochs: int, seconds: float) -> str:
    """Kill a training so long after so many epochs (-1: after its start), resume it, compare.

    Returns what state the kill left.
    """
    run = workplace / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = Command.start(workplace, *TRAIN)
    wait_until(lambda: epochs_of(run) >= epochs, command)
    command.process.join(seconds)
    command.signal(signal.SIGKILL)
    command.wait()
    if (run / "result.json").exists():
        left = "finished"
    elif run.exists():
        left = "unfinished"
    else:
        left = "not begun"
    again = TRAIN if left == "not begun" else RESUME
    code, said = whit(workplace, *again)
    assert code == 0, said
    assert evidence(run) == evidence(undisturbed)
    return left


def test_killed_at_random_moments(workplace: Path, undisturbed: Path) -> None:
    rng, epoch = random.Random(1), length_of(undisturbed) / 4
    for epochs in (-1, 0, 3):
        kill_once(workplace, undisturbed, epochs, rng.uniform(0, epoch))
    assert kill_once(workplace, undisturbed, 1, 0.0) == "unfinished"


@pytest.mark.slow
def test_killed_at_two_hundred_random_moments(workplace: Path, undisturbed: Path) -> None:
    rng, epoch = random.Random(2), length_of(undisturbed) / 4
    moments = [(rng.randint(-1, 3), rng.uniform(0, epoch / 2)) for _ in range(200)]
    left = [kill_once(workplace, undisturbed, *moment) for moment in moments]
    assert left.count("unfinished") > 100, left


def kill_in_training(workplace: Path, arguments: tuple[str, ...], seconds: float) -> int:
    """Kill a training so many seconds after it has taken its folder; return its exit code."""
    command = Command.start(workplace, *arguments)
    owner = workplace / "run" / "checkpoint" / "owner.json"
    mine = f'"pid": {command.process.pid},'
    while command.is_alive():
        with suppress(FileNotFoundError):
            if mine in owner.read_text():
                break
        time.sleep(0.002)
    command.process.join(seconds)
    command.signal(signal.SIGKILL)
    return command.wait()


def sequence_of_kills(workplace: Path, undisturbed: Path, rng: random.Random) -> int:
    """Kill a run again and again until it ends; return how often."""
    run = workplace / "run"
    shutil.rmtree(run, ignore_errors=True)
    kills = 0
    while not (run / "result.json").exists():
        # The first two tries are killed at once, the others live longer and longer: it ends.
        seconds = rng.uniform(0, 0.1 * (kills - 1) * length_of(undisturbed)) if kills > 1 else 0.0
        code = kill_in_training(workplace, RESUME if run.exists() else TRAIN, seconds)
        kills += code == -signal.SIGKILL
        if (run / "log.jsonl").exists():
            whole = (run / "log.jsonl").read_text().rpartition("\n")[0].splitlines()
            assert [json.loads(line)["epoch"] for line in whole] == list(range(1, len(whole) + 1))
            assert len(whole) <= 4
    whit(workplace, *RESUME)  # removes what a kill at its very end left
    assert evidence(run) == evidence(undisturbed)
    return kills


def test_killed_several_times(workplace: Path, undisturbed: Path) -> None:
    assert sequence_of_kills(workplace, undisturbed, random.Random(3)) > 1


@pytest.mark.slow
def test_fifty_sequences_of_kills(workplace: Path, undisturbed: Path) -> None:
    rng = random.Random(4)
    kills = [sequence_of_kills(workplace, undisturbed, rng) for _ in range(50)]
    assert sum(kills) > 100, kills


def maps(process: subprocess.Popen[bytes], library: str) -> bool:
    """Whether a process has loaded a library, or has ended."""
    loaded = Path(f"/proc/{process.pid}/maps").read_text()
    return library in loaded or process.poll() is not None


def test_killed_while_the_interpreter_starts(workplace: Path, undisturbed: Path) -> None:
    """At start-up there is no folder yet, or a whole one that can be resumed; never half of one."""
    for library in ("", "libtorch_cpu"):  # at once, and while torch is imported
        run = workplace / "run"
        shutil.rmtree(run, ignore_errors=True)
        process = subprocess.Popen(
            [*WHIT, *TRAIN],
            cwd=workplace,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda process=process, library=library: maps(process, library))
        process.kill()
        process.wait()
        code, said = whit(workplace, *(RESUME if run.exists() else TRAIN))
        assert code == 0, said
        assert evidence(run) == evidence(undisturbed)


def test_a_new_interpreter_resumes_too(workplace: Path, undisturbed: Path) -> None:
    kill_after(workplace, 1)
    done = fresh(workplace, *RESUME)
    assert done.returncode == 0, done.stderr
    assert evidence(workplace / "run") == evidence(undisturbed)


def test_a_finished_run_is_left_as_it_is(workplace: Path, undisturbed: Path) -> None:
    shutil.copytree(undisturbed, workplace / "run")
    before = {path: path.stat().st_mtime_ns for path in (workplace / "run").iterdir()}
    code, said = whit(workplace, "train", "--resume", "run")
    assert (code, said) == (
        0,
        "run: already finished (verdict: met). Nothing to resume; nothing was changed.\n",
    )
    assert {path: path.stat().st_mtime_ns for path in (workplace / "run").iterdir()} == before
