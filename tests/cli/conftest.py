"""The command line in this process, finished runs to look at or to spoil, and golden files.

Golden files hold what a person sees. `WHIT_OVERWRITE=1 pytest tests/cli` renews them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import Done
from workshop import fill

from whit.cli.app import main

GOLDEN = Path(__file__).parents[1] / "golden" / "cli"


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same width and no colours, whatever the tests are started from."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def whit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Call the command line: `whit("plan sprint", folder)`."""

    def call(line: str, folder: Path | None = None) -> Done:
        if folder is not None:
            monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["whit", *shlex.split(line)])
        capsys.readouterr()
        code = main()
        said = capsys.readouterr()
        assert isinstance(code, int)
        return Done(code, said.out, said.err)

    return call


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with the golden file of that name, or renew the file."""

    def compare(name: str, text: str) -> None:
        file = GOLDEN / f"{name}.txt"
        if os.environ.get("WHIT_OVERWRITE"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8")

    return compare


@pytest.fixture(scope="session")
def workshop(easy_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recipes, models, data and runs, most of them wrong. Nobody writes into it."""
    folder = tmp_path_factory.mktemp("workshop")
    fill(folder, easy_npz)
    return folder
