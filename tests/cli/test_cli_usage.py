"""Usage errors say what to type here; the shell completes commands, options and recipes.

pytest tests/cli/test_cli_usage.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import Done

from whit.cli.usage import suggest_option


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("train --epochs 5", "use --set train.epochs=5."),
        ("train sprint --batch-size=64", "use --set train.batch_size=64."),
        ("train --batch_size 64", "use --set train.batch_size=64."),
        ("plan sprint --lr 0.1", "use --set optim.lr=0.1."),
        ("train --learning-rate 0.1", "use --set optim.lr=0.1."),
        ("train --lr", "use --set optim.lr=VALUE."),
        ("train --lr --seed 3", "use --set optim.lr=VALUE."),
        ("study sprint --seeds 2 --weight-decay 1e-4", "use --set optim.weight_decay=1e-4."),
        ("train --optimizer adamw", "use --set optim.name=adamw."),
        ("train --model net.py:Net", "use --set model.name=net.py:Net."),
        ("train --dataset folder", "use --set data.name=folder."),
        ("train --gpu", "Use --device cuda."),
        ("train --no-cuda", "Use --device cpu."),
        ("train --output-dir here", "Use --out FOLDER."),
        ("train --num-workers 4", "Use --threads N."),
        ("train --checkpoint run", "Use --resume RUN."),
        ("train --config net.toml", "Use RECIPE, the path of a .toml file, without an option."),
        ("train --sed 3", "Did you mean '--seed'?"),
        ("audit sprint --recip sprint", "Did you mean '--recipe'?"),
    ],
)
def test_an_unknown_option_is_answered_with_what_to_type(
    line: str, advice: str, whit: Callable[..., Done]
) -> None:
    done = whit(line)
    assert (done.code, done.out) == (2, "")
    first, last = done.err.splitlines()
    command, option = f"whit {line.split()[0]}", next(w for w in line.split() if w[:2] == "--")
    if "--seeds" in line or "--lr --seed" in line:
        option = "--weight-decay" if "--weight-decay" in line else "--lr"
    assert first.startswith(f"whit: {command} has no option {option.partition('=')[0]}. ")
    assert first.endswith(advice)
    assert last == f"See `{command} --help`."


@pytest.mark.parametrize(
    "line", ["runs --epochs 5", "compare a b --lr 3", "export run --batch-size 2", "--epochs 5"]
)
def test_a_command_without_overrides_is_not_told_to_use_them(
    line: str, whit: Callable[..., Done]
) -> None:
    done = whit(line)
    assert (done.code, done.out) == (2, "")
    assert "has no option --" in done.err
    assert "--set" not in done.err


@pytest.mark.parametrize("line", ["runs --gpu", "recipes --output-dir x", "compare a --config x"])
def test_no_option_is_suggested_that_the_command_does_not_have(
    line: str, whit: Callable[..., Done]
) -> None:
    done = whit(line)
    assert done.code == 2
    assert not {"--device", "--out ", "cuda."} & set(done.err.split())


@pytest.mark.parametrize(
    ("option", "arguments", "options", "advice"),
    [
        ("--epochs", ["--epochs", "5"], ["--set"], "--set train.epochs=5."),
        ("--epochs", ["--epochs=5"], ["--set"], "--set train.epochs=5."),
        ("--epochs", ["--epochs", "5"], ["--seed"], ""),
        ("--lr", ["--lr"], ["--set"], "--set optim.lr=VALUE."),
        ("--nothing", ["--nothing"], ["--set"], ""),
        ("--params", ["--params", "9"], ["--set"], ""),  # of the budget, not of the training
        ("--gpu", ["--gpu"], ["--set", "--device"], "Use --device cuda."),
        ("--gpu", ["--gpu"], ["--set"], ""),
        ("--output-dir", ["--output-dir", "x"], ["--out"], "Use --out FOLDER."),
    ],
)
def test_suggest_option(option: str, arguments: list[str], options: list[str], advice: str) -> None:
    suggestion = suggest_option(option, arguments, options)
    assert suggestion.endswith(advice)
    assert bool(suggestion) == bool(advice)


def test_an_option_without_its_value_is_no_unknown_option(whit: Callable[..., Done]) -> None:
    done = whit("train --seed")
    assert done.code == 2
    assert "has no option" not in done.err
    assert "requires an argument" in done.err


def test_an_unknown_command_names_the_nearest(whit: Callable[..., Done]) -> None:
    done = whit("tarin sprint")
    assert (done.code, done.out) == (2, "")
    assert done.err == "whit: no such command 'tarin'. Did you mean 'train'?\nSee `whit --help`.\n"


@pytest.mark.parametrize("line", ["-h", "train -h", "recipes -h"])
def test_the_short_option_of_help(line: str, whit: Callable[..., Done]) -> None:
    assert whit(line).out == whit(line.replace("-h", "--help")).out


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program `whit`, as an installation has it."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "whit"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m whit "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (["train", "sp"], ["sprint"]),
        (["plan", "tin"], ["tiniest"]),
        (["recipes", "sharp"], ["sharpest", "sharpest-plain"]),
        (["audit", "x", "--recipe", "sp"], ["sprint"]),
        (["tr"], ["train"]),
        (["train", "--allow"], ["--allow-changes"]),
        (["train", "nothing-begins-like-this"], []),
    ],
    ids=" ".join,
)
def test_completion_in_bash(words: list[str], completions: list[str], installed: Path) -> None:
    line = " ".join(f"'{word}'" for word in ["whit", *words])
    script = f"""
        eval "$(_WHIT_COMPLETE=source_bash whit)"
        complete -p whit | grep -q _whit_completion || exit 9
        COMP_WORDS=({line}); COMP_CWORD={len(words)}
        _whit_completion whit
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", script],
        env={**os.environ, "PATH": f"{installed}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == completions


def test_a_shell_without_completion_is_bad_input() -> None:
    """Exit code 1 would say that a budget is missed."""
    script = f"{sys.executable} -m whit --show-completion; exit $?"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.returncode in (0, 2)  # on some systems `sh` is bash
    assert done.returncode == 0 or "not supported" in done.stderr
