"""The lock of a run folder: one process at a time; and many processes creating many runs."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from harness.processes import Command, evidence, whit
from training.test_kill_and_resume import RESUME, TRAIN, kill_after
from waiting import LIMIT, wait_until
from whit.errors import LockLost, RunFailed, RunLocked
from whit.runs.folder import RunFolder
from whit.runs.listing import run_rows
from whit.runs.lock import RunLock, read_lock_holder
from whit.runs.reader import read_run
from whit.system.atomic_files import atomic_write

LONG = (*TRAIN, "--set", "train.epochs=19")


def running(workplace: Path) -> Command:
    command = Command.start(workplace, *LONG)
    wait_until((workplace / "run" / "checkpoint" / "owner.json").exists, command)
    return command


def test_a_second_process_is_refused_by_name(workplace: Path) -> None:
    first = running(workplace)
    first.signal(signal.SIGSTOP)  # it does not end meanwhile
    code, said = whit(workplace, "train", "--resume", "run")
    assert code == 2
    owner = f"process {first.process.pid} on {socket.gethostname()}, since 20"
    assert said.startswith(f"whit: run: locked by {owner}")
    code, said = whit(workplace, "train", "--resume", "run", "--steal-lock")
    assert code == 2, "a live process on this machine keeps its lock"
    assert read_run(workplace / "run").state == "running"
    first.signal(signal.SIGKILL)
    first.wait()
    assert read_run(workplace / "run").state == "stopped"


def test_of_several_that_resume_at_once_one_gets_it(workplace: Path, undisturbed: Path) -> None:
    kill_after(workplace, 1)
    commands = [Command.start(workplace, *RESUME) for _ in range(4)]
    codes = sorted(command.wait() for command in commands)
    # One trains; the others find it owned, or, if they come late, finished.
    assert codes[0] == 0
    assert set(codes[1:]) <= {0, 2}
    assert evidence(workplace / "run") == evidence(undisturbed)


def test_of_several_that_begin_at_once_one_gets_the_name(workplace: Path) -> None:
    commands = [Command.start(workplace, *TRAIN) for _ in range(4)]
    codes = sorted(command.wait() for command in commands)
    assert codes == [0, 2, 2, 2], [command.said for command in commands]
    assert not list(workplace.glob(".whit-new*"))


def left_by(folder: Path, **changes: object) -> None:
    """Make the folder look as if another holder had not released it."""
    with_owner = RunLock(folder)
    value = json.loads((folder / "owner.json").read_text())
    with_owner.release()
    (folder / "owner.json").write_text(json.dumps({**value, **changes}))


def test_a_dead_owner_of_this_machine_is_followed(tmp_path: Path) -> None:
    left_by(tmp_path, pid=2**22 + 1)
    owner = read_lock_holder(tmp_path)
    assert owner is not None
    assert owner.is_alive() is False
    RunLock(tmp_path).release()


def test_a_number_used_again_is_not_the_owner(tmp_path: Path) -> None:
    left_by(tmp_path, start_time="1")
    owner = read_lock_holder(tmp_path)
    assert owner is not None
    assert owner.is_alive() is False


def test_an_owner_before_a_reboot_is_followed(tmp_path: Path) -> None:
    left_by(tmp_path, boot_id="another")
    owner = read_lock_holder(tmp_path)
    assert owner is not None
    assert owner.is_alive() is False
    RunLock(tmp_path).release()


def test_an_owner_on_another_machine_needs_a_flag(workplace: Path, undisturbed: Path) -> None:
    kill_after(workplace, 1)
    file = workplace / "run" / "checkpoint" / "owner.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "host": "elsewhere", "pid": 7}))
    assert read_run(workplace / "run").state == "running"
    code, said = whit(workplace, *RESUME)
    assert code == 2
    assert said.startswith("whit: run: locked by process 7 on elsewhere, since ")
    assert said.endswith("if you know that it does not, add --steal-lock.\n")
    code, said = whit(workplace, *RESUME, "--steal-lock")
    assert code == 0, said
    assert evidence(workplace / "run") == evidence(undisturbed)


def test_whoever_lost_the_folder_writes_no_more(workplace: Path) -> None:
    command = running(workplace)
    file = workplace / "run" / "checkpoint" / "owner.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "host": "other", "token": "x"}))
    assert command.wait() == 3
    assert "run: the lock was stolen by process" in command.said
    assert json.loads(file.read_text())["host"] == "other"


def test_a_folder_that_was_removed_is_missed(workplace: Path) -> None:
    command = running(workplace)
    command.signal(signal.SIGSTOP)  # it creates nothing while its folder is removed
    shutil.rmtree(workplace / "run")
    command.signal(signal.SIGCONT)
    assert command.wait() == 3
    assert "was removed during training" in command.said
    assert not (workplace / "run").exists()


def test_a_folder_removed_during_a_write_is_missed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()

    def write(*, removed: bool) -> None:
        with folder.writing("checkpoint"):
            if removed:
                shutil.rmtree(folder.path)
            atomic_write(folder.path / "missing" / "file", b"")

    with RunFolder(tmp_path / "run") as folder:
        with pytest.raises(RunFailed, match="checkpoint: cannot be written"):
            write(removed=False)
        with pytest.raises(LockLost, match="was removed during training"):
            write(removed=True)
    assert not (tmp_path / "run").exists()


def test_two_owners_in_one_process(tmp_path: Path) -> None:
    first = RunLock(tmp_path)
    with pytest.raises(RunLocked):
        RunLock(tmp_path)
    (tmp_path / "owner.json").unlink()
    with pytest.raises(LockLost):
        first.check()
    first.release()
    RunLock(tmp_path).release()


def _make_runs(folder: str, first: int, count: int) -> None:
    """One of several processes that train one run after another."""
    import torch

    from whit.recipes.recipe import load_recipe
    from whit.training.plan import make_plan
    from whit.training.run import train_run

    os.chdir(folder)
    torch.set_num_threads(1)
    planned = make_plan(
        load_recipe("easy.toml").with_overrides(["train.epochs=1", "train.batch_size=32"])
    )
    for seed in range(first, first + count):
        train_run(planned, seed=seed, threads=1)


def many_runs(workplace: Path, processes: int, count: int, killed: int) -> None:
    context = multiprocessing.get_context("forkserver")
    makers = [
        context.Process(target=_make_runs, args=(str(workplace), 1000 * i, count))
        for i in range(processes)
    ]
    for maker in makers:
        maker.start()
    rng = random.Random(5)
    runs = workplace / "runs"

    def made_by(number: int) -> list[Path]:
        return [p for p in runs.glob("easy-*") if int(p.name.split("-")[1]) // 1000 == number]

    for number in rng.sample(range(processes), killed):
        before = len(made_by(number))
        wait_until(lambda number=number, before=before: len(made_by(number)) > before)
        time.sleep(rng.uniform(0, 0.1))  # anywhere in a run
        makers[number].kill()
    for maker in makers:
        maker.join(LIMIT + 10 * count)
    assert sum(maker.exitcode == 0 for maker in makers) == processes - killed
    rows = run_rows([runs])
    states = [row["state"] for row in rows]
    assert states.count("finished") >= (processes - killed) * count
    assert set(states) <= {"finished", "stopped"}
    assert states.count("stopped") <= killed
    assert len({row["seed"] for row in rows}) == len(rows)
    names = {path.name for path in runs.iterdir() if not path.name.startswith(".whit-new")}
    assert {Path(row["run"]).name for row in rows} == names  # the list comes from the folders
    for row in rows:
        path = Path(row["run"])
        if row["state"] == "stopped":
            code, said = whit(workplace, "train", "--resume", str(path), "--quiet")
            assert code in (0, 1), said
        files = {inner.name for inner in path.iterdir()}
        assert len(files - {"checkpoint"}) == 6
        assert (read_run(path).result or {})["images_seen"] == 300


def test_processes_that_make_runs_at_once(workplace: Path) -> None:
    many_runs(workplace, processes=3, count=4, killed=1)


@pytest.mark.slow
def test_eight_processes_make_a_hundred_runs_each(workplace: Path) -> None:
    many_runs(workplace, processes=8, count=100, killed=3)
