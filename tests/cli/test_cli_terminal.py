"""On a terminal, in a pipe, and when somebody stops it: the command line as a process.

On a terminal of 60 columns nothing wraps and the bar is gone after each epoch. A pipe gets plain
lines, and the work continues when its reader leaves. Ctrl-C and SIGTERM end with one message.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from calling import Done
from rich.console import Console
from screen import Screen
from terminal import ENVIRONMENT, WHIT, on_terminal, started

from waiting import LIMIT
from whit.recipes.recipe import load_recipe
from whit.training.callback import RunStatus
from whit.training.plan import make_plan
from whit.training.progress import BarReporter
from whit.training.state import EpochMetrics

SLOW = "--set train.batch_size=2 --threads 1"  # an epoch long enough for the bar to move


def test_a_terminal_of_60_columns_until_control_c(workshop: Path, tmp_path: Path) -> None:
    line = f"train easy.toml {SLOW} --set train.epochs=1000 --over-budget --out {tmp_path}/r"
    code, screen = on_terminal(line.split(), workshop, 60, stop_after=b"epoch 3/")
    assert code == 130, screen.text
    # Paths are never cut; nothing else is wider than the terminal.
    assert [text for text in screen.wrapped if str(tmp_path) not in text] == []
    assert len(screen.bars) > 3
    assert "━" not in screen.text
    assert screen.cursor_shown
    said = screen.text.partition("whit: ")[2]
    said = " ".join(said.split())  # wrapped
    stopped = re.match(r"stopped by SIGINT in epoch (\d+) of 1000, after ", said)
    assert stopped, said
    assert said.endswith(f"Resume with: whit train --resume {tmp_path}/r")
    ended = len((tmp_path / "r" / "log.jsonl").read_text().splitlines())
    assert ended == int(stopped[1]) - 1 >= 2  # the third, or on a busy machine a later one
    lines = [line for line in screen.text.splitlines() if line.startswith("Epoch ")]
    epochs = [line.partition(":")[0] for line in lines]
    assert epochs == [f"Epoch {epoch}/1000" for epoch in range(1, ended + 1)]


def test_a_study_and_a_search_on_a_terminal_of_60_columns(workshop: Path, tmp_path: Path) -> None:
    """One live table, gone at the end; lines of what ended stay above it."""
    line = f"study easy.toml wider.toml --seeds 1 --jobs 2 --out {tmp_path}/st"
    code, screen = on_terminal(line.split(), workshop, 60)
    assert code == 0, screen.text
    assert [text for text in screen.wrapped if str(tmp_path) not in text] == []
    assert screen.cursor_shown
    assert "under way" not in screen.text  # the live table
    assert "(2 of 2)" in screen.text
    assert "mean %" in screen.text
    space = tmp_path / "space.toml"
    space.write_text(
        f'name = "tiny"\nbase = "{workshop}/easy.toml"\nseeds = 1\n[space]\n'
        '"model.widths" = [[2, 4], [4, 8]]\n"train.epochs" = 2\n'
    )
    line = f"search {space} --trials 2 --jobs 2 --out {tmp_path}/se"
    code, screen = on_terminal(line.split(), workshop, 60)
    assert code == 0, screen.text
    assert [text for text in screen.wrapped if str(tmp_path) not in text] == []
    assert screen.cursor_shown
    assert "trials completed, 0 pruned" in screen.text
    assert "epoch 1" not in screen.text


@pytest.mark.parametrize("width", [30, 40, 50, 60, 79, 80, 100, 200])
def test_the_bar_never_exceeds_the_terminal(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whit.training.progress._BAR_REFRESH", 0.0)
    file = io.StringIO()
    bar = BarReporter(
        Console(width=width, force_terminal=True, file=file, _environ={"TERM": "xterm"})
    )
    planned = make_plan(load_recipe("sprint").with_overrides(["train.epochs=100_000"]))
    bar.subject = RunStatus(replace(planned, num_train=10_000_000), tmp_path, 1, "")
    metrics = EpochMetrics(last_loss=123.4567)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(4):
            metrics.total += 2_500_000
            yield torch.zeros(1), torch.zeros(1)

    assert len(list(bar.wrap_batches(99_999, batches(), metrics))) == 4
    screen = Screen(width)
    screen.write(file.getvalue())
    assert screen.wrapped == []
    assert screen.text == ""
    assert screen.cursor_shown


def test_a_pipe_gets_no_control_sequences(
    workshop: Path, tmp_path: Path, whit: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = whit(f"train easy.toml --threads 1 --out {tmp_path}/r", workshop)
    assert done.code == 0
    assert "\x1b" not in done.out + done.err
    assert "\r" not in done.out + done.err


def test_a_reader_who_leaves_changes_nothing(workshop: Path, tmp_path: Path) -> None:
    processes = [
        started("plan easy.toml", workshop),
        started(f"train easy.toml --threads 1 --out {tmp_path}/r", workshop),
    ]
    codes = []
    for process in processes:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
        process.stderr.close()
        codes.append(process.wait())
    assert codes == [0, 0]
    assert (tmp_path / "r" / "result.json").is_file()


def test_a_stopped_run_says_what_it_kept(workshop: Path, tmp_path: Path) -> None:
    process = started(
        f"train easy.toml --set train.epochs=1000 --over-budget --threads 1 --out {tmp_path}/r",
        workshop,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("Epoch 2/"):
            break
    process.terminate()
    _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 143
    assert said.count("\n") == 1
    assert said.startswith("whit: stopped by SIGTERM ")
    assert said.endswith(f"Resume with: whit train --resume {tmp_path}/r\n")
    assert len((tmp_path / "r" / "log.jsonl").read_text().splitlines()) >= 2
    assert not (tmp_path / "r" / "result.json").exists()


def test_stopped_before_anything_is_made(workshop: Path, tmp_path: Path) -> None:
    process = started(f"train sleeps.toml --out {tmp_path}/r", workshop)
    assert process.stderr
    assert process.stderr.readline() == "asleep\n"
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, said) == (130, "", "whit: stopped by SIGINT.\n")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_it_starts(tmp_path: Path, number: int) -> None:
    """The signal comes while a library is imported."""
    (tmp_path / "typer.py").write_text(f"import signal\nsignal.raise_signal({int(number)})\n")
    done = subprocess.run(
        [*WHIT, "recipes"],
        env={**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{os.environ['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    name = signal.Signals(number).name
    assert (done.returncode, done.stderr) == (128 + number, f"whit: stopped by {name}.\n")


def test_commands_without_numbers_start_without_torch(workshop: Path) -> None:
    lines = ["--help", "--version", "train --help", "recipes", "runs runs", "runs --json"]
    lines += ["compare runs/easy-0 runs/easy-1", "plan sprnt", "compare runs nowhere"]
    code = f"""
import sys
from whit.cli.app import main
for line in {lines!r}:
    sys.argv = ["whit", *line.split()]
    main()
    assert "torch" not in sys.modules, line
    assert "numpy" not in sys.modules, line
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=workshop, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_character_set_without_our_signs_is_no_fault(workshop: Path) -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [*WHIT, "runs", "runs"]
    done = subprocess.run(command, cwd=workshop, env=environment, capture_output=True, check=False)
    assert done.returncode == 0
