"""GNU's OpenMP itself says how long its threads spin."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def _spin_count(code: str, **settings: str) -> str | None:
    """Return what the OpenMP that torch loads reports in a new process."""
    env = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    env |= {"OMP_DISPLAY_ENV": "verbose", **settings}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not lines:
        pytest.skip("torch uses another OpenMP than GNU's")
    return lines[0].split("'")[1]


def test_whit_shortens_the_spinning() -> None:
    assert _spin_count("import whit, torch") == "10000"


def test_command_line_shortens_it_too() -> None:
    code = "import sys; sys.argv = ['whit', '--version']; import whit.__main__; import torch"
    assert _spin_count(code) == "10000"


def test_settings_of_the_user_are_kept() -> None:
    assert _spin_count("import whit, torch", GOMP_SPINCOUNT="77") == "77"
    assert _spin_count("import whit, torch", OMP_WAIT_POLICY="passive") == "0"


def test_too_late_after_torch() -> None:
    code = "import os, torch, whit; assert 'GOMP_SPINCOUNT' not in os.environ"
    assert _spin_count(code) != "10000"
