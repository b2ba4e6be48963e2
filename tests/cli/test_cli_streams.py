"""Standard output and error that are full, closed or left by their reader; a terminal that closes.

Real processes, started by a shell that redirects them. What a command does beside printing goes
on, and the loss is reported once on the other stream.
"""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from terminal import ENVIRONMENT

from waiting import LIMIT, wait_until

WHIT = f"{sys.executable} -m whit"
TRAIN = "train easy.toml --threads 1 --set train.epochs=2 --out {run}"
FULL = "standard output cannot be written (No space left on device)"
CLOSED = "standard output cannot be written (closed)"
LEFT = "standard output cannot be written (its reader has ended)"
CONTINUES = ": the work continues without it."


def shell(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in which `whit` is a command."""
    return subprocess.run(
        ["bash", "-c", f'whit() {{ {WHIT} "$@"; }}\n{script}'],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        ("> /dev/full", f"whit: {FULL}{CONTINUES}\n"),
        (">&-", f"whit: {CLOSED}{CONTINUES}\n"),
        ("--json > /dev/full", f"whit: {FULL}{CONTINUES}\n"),
        ("<&- >&- 2>&-", ""),
        ("> /dev/full 2> /dev/full", ""),
    ],
)
def test_training_without_standard_output(
    workshop: Path, tmp_path: Path, redirection: str, message: str
) -> None:
    done = shell(workshop, f"whit {TRAIN.format(run=tmp_path / 'r')} {redirection}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", message)
    assert (tmp_path / "r" / "result.json").is_file()


@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-"])
def test_training_without_standard_error(workshop: Path, tmp_path: Path, redirection: str) -> None:
    done = shell(workshop, f"whit {TRAIN.format(run=tmp_path / 'r')} {redirection}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"Run folder: {tmp_path}/r\n")
    report = shell(workshop, f"whit report {tmp_path}/r {redirection}")
    assert report.returncode == 0
    assert report.stdout.count("whit: standard error cannot be written") == 1
    assert report.stdout.endswith(f"Report: {tmp_path}/r/report.html\n")
    audit = shell(workshop, f"whit audit {tmp_path}/r --json {redirection}")
    assert audit.stdout.startswith("{\n")  # one JSON value and nothing else


def test_a_reader_who_leaves_a_training_is_reported(workshop: Path, tmp_path: Path) -> None:
    line = TRAIN.format(run=tmp_path / "r")
    done = shell(workshop, f"whit {line} | head -1; echo ${{PIPESTATUS[0]}}")
    assert done.stdout.splitlines()[0].startswith("easy: ")
    assert done.stdout.splitlines()[1:] == ["0"]
    # Its reader may end only after the last line.
    assert done.stderr in (f"whit: {LEFT}{CONTINUES}\n", "")


@pytest.mark.parametrize(
    ("line", "redirection"),
    [
        ("recipes", "> /dev/full"),
        ("recipes --json", ">&-"),
        ("runs runs --csv", "> /dev/full"),
        ("train --help", "> /dev/full"),
        ("--version", ">&-"),
        ("audit runs/easy-0", "> /dev/full"),
        ("plan easy.toml --set train.epochs=99", ">&-"),
    ],
)
def test_output_that_is_the_only_work(workshop: Path, line: str, redirection: str) -> None:
    done = shell(workshop, f"whit {line} {redirection}")
    assert done.returncode == 3
    reason = FULL if "full" in redirection else CLOSED
    # A command may also report its stages.
    assert done.stderr.splitlines()[-1] == f"whit: {reason}: the output is incomplete."
    assert done.stderr.count("cannot be written") == 1
    assert "Traceback" not in done.stderr


def test_a_reader_who_has_read_enough_is_no_error(workshop: Path) -> None:
    for line in ("recipes", "runs runs --json", "--help"):
        done = shell(workshop, f"whit {line} | head -1; echo ${{PIPESTATUS[0]}}")
        assert done.stdout.endswith("\n0\n"), line
        assert done.stderr == "", line


def test_a_study_and_a_search_without_standard_output(workshop: Path, tmp_path: Path) -> None:
    study = f"study easy.toml --seeds 2 --jobs 1 --set train.epochs=1 --out {tmp_path}/st"
    done = shell(workshop, f"whit {study} > /dev/full")
    assert (done.returncode, done.stderr) == (0, f"whit: {FULL}{CONTINUES}\n")
    assert len(list(tmp_path.glob("st/*/seed-*/result.json"))) == 2
    (tmp_path / "space.toml").write_text(
        f'name = "tiny"\nbase = "{workshop}/easy.toml"\nseeds = 1\n[space]\n'
        '"model.widths" = [[2, 4], [4, 8]]\n"train.epochs" = 1\n'
    )
    search = f"search {tmp_path}/space.toml --trials 1 --jobs 1 --out {tmp_path}/se"
    done = shell(workshop, f"whit {search} >&-")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"whit: {CLOSED}{CONTINUES}\n") == 1
    assert "Traceback" not in done.stderr


def test_a_closed_descriptor_is_not_given_to_a_file(workshop: Path, tmp_path: Path) -> None:
    """With descriptor 1 closed, the next file opened would be what a library prints into."""
    (tmp_path / "prints.py").write_text(
        "import os\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.f = nn.Linear(784, 10)\n"
        "    def forward(self, x):\n        os.write(1, b'printed by C')\n"
        "        print('printed')\n        return self.f(x.flatten(1))\n"
    )
    line = f"{TRAIN.format(run=tmp_path / 'r')} --set model.name={tmp_path}/prints.py:Net"
    done = shell(workshop, f"whit {line} --set budget.require=[] --quiet >&-")
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    audit = shell(workshop, f"whit audit {tmp_path}/r --json")
    assert '"record' not in audit.stdout
    assert audit.returncode == done.returncode, audit.stderr


def test_a_program_that_imports_whit_goes_on(workshop: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import whit\n"
        f"result = whit.train('easy.toml', threads=1, out='{tmp_path}/r')\n"
        "raise SystemExit(7)\n"
    )
    for number, redirection in enumerate(("> /dev/full", ">&-", "| true")):
        script = (tmp_path / "train.py").read_text().replace("/r'", f"/{number}'")
        (tmp_path / "now.py").write_text(script)
        shell(workshop, f"{sys.executable} {tmp_path}/now.py {redirection}")
        assert (tmp_path / str(number) / "result.json").is_file(), redirection


def close_the_terminal(workshop: Path, folder: Path, line: str, log: str) -> int:
    """Run whit on a terminal that is closed as soon as a file `log` exists; return its exit code.

    The shell that leads the session dies of it, and so the kernel hangs up all of its group; only
    the inner shell outlives that, to write down the exit code.
    """
    inner = f"trap '' HUP; env --default-signal=HUP {WHIT} {line}; echo $? > $0.new; mv $0.new $0"
    script = f"bash -c {shlex.quote(inner)} {folder}/code; true"
    child, terminal = pty.fork()
    if child == 0:  # the leader of a session, as the shell in a terminal window is
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup
        os.chdir(workshop)
        os.execve("/bin/bash", ["bash", "-c", script], ENVIRONMENT)
    os.set_blocking(terminal, False)
    printed = b""

    def has_log() -> bool:
        nonlocal printed
        with suppress(BlockingIOError):
            printed += os.read(terminal, 1 << 16)
        return bool(list(folder.glob(log)))

    wait_until(has_log)
    os.close(terminal)
    os.waitpid(child, 0)
    wait_until((folder / "code").exists)
    return int((folder / "code").read_text())


def test_a_terminal_that_closes_stops_a_run_which_is_saved(workshop: Path, tmp_path: Path) -> None:
    line = f"train easy.toml --threads 1 --set train.epochs=60 --over-budget --out {tmp_path}/r"
    assert close_the_terminal(workshop, tmp_path, line, "r/log.jsonl") == 129
    assert not (tmp_path / "r" / "checkpoint" / "owner.json").exists()
    assert list(tmp_path.glob("r/checkpoint/*.safetensors"))
    done = shell(workshop, f"whit train --resume {tmp_path}/r --json")
    assert done.returncode == 1, done.stderr  # its budget has fewer epochs
    assert (tmp_path / "r" / "result.json").is_file()


def test_a_terminal_that_closes_stops_a_study(workshop: Path, tmp_path: Path) -> None:
    line = f"study easy.toml --seeds 2 --jobs 1 --set train.epochs=19 --out {tmp_path}/st"
    assert close_the_terminal(workshop, tmp_path, line, "st/*/seed-0/log.jsonl") == 129
    (run,) = tmp_path.glob("st/*/seed-0")
    assert not (run / "checkpoint" / "owner.json").exists()
    done = shell(workshop, f"whit {line} --quiet --json")
    assert done.returncode == 0, done.stderr


def test_nohup_keeps_a_run_when_the_terminal_closes(workshop: Path, tmp_path: Path) -> None:
    line = f"train easy.toml --threads 1 --out {tmp_path}/r"
    script = f"{WHIT} {line}; echo $? > {tmp_path}/code"
    process = subprocess.Popen(
        ["bash", "-c", f"trap '' HUP; {script}"],
        cwd=workshop,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until((tmp_path / "r" / "log.jsonl").exists)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(LIMIT) == 0
    assert (tmp_path / "code").read_text() == "0\n"


@pytest.mark.parametrize("line", ["plan sleeps.toml", "train sleeps.toml --out {run}"])
def test_hangup_before_anything_is_made(workshop: Path, tmp_path: Path, line: str) -> None:
    process = subprocess.Popen(
        [*WHIT.split(), *line.format(run=tmp_path / "r").split()],
        cwd=workshop,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert process.stderr
    assert process.stderr.readline() == "asleep\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)  # the kernel and the shell may each send one
    _, said = process.communicate(timeout=LIMIT)
    assert (process.returncode, said) == (129, "whit: stopped by SIGHUP.\n")
    assert not (tmp_path / "r").exists()
