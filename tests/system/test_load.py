"""How many cores other programs use: real ones, of normal and of lower priority."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import psutil
import pytest

from waiting import wait_until
from whit.system.processor import load
from whit.system.processor.cores import count_cores
from whit.system.processor.load import LoadMeter, measure_lost_cores

_BUSY = [sys.executable, "-c", "while True: pass"]
_AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHIT_CORES")


def test_counts_another_program_and_not_exempt_ones() -> None:
    with subprocess.Popen(_BUSY) as busy:
        try:
            process = psutil.Process(busy.pid)
            meter, exempting = LoadMeter(), LoadMeter(lambda: [busy.pid])
            before = process.cpu_times().user
            wait_until(lambda: process.cpu_times().user > before + 0.5)
            # In cores: at least what the program used, at any load of the machine.
            with_it, seconds = meter.read(), meter.seconds
            without = exempting.read()
        finally:
            busy.kill()
    assert with_it > 0.1
    assert without < with_it + 0.2  # of other programs alone
    assert seconds < 0.1  # the next measurement has begun


def _then(before: Any, later: Any) -> Iterator[Any]:
    return chain([before], repeat(later))


def _set_times(
    monkeypatch: pytest.MonkeyPatch, core: tuple[float, float], own: float, nice: int = 0
) -> None:
    """Replace what psutil says of one core and of this process: before, and two seconds later.

    `core` has seconds of user and nice, `own` seconds of user, at this process's priority.
    """
    cores = _then((50.0, 10.0), (50.0 + core[0], 10.0 + core[1]))
    owns = _then(10.0, 10.0 + own)
    clock = iter([100.0, *[102.0] * 5])

    class Times:
        system = 0.0

        def __init__(self, user: float, nice: float = 0.0):
            self.user, self.nice = user, nice

    class Process:
        def __init__(self, number: int):
            assert number == os.getpid()

        def cpu_times(self) -> Times:
            return Times(next(owns))

        def nice(self) -> int:
            return nice

    monkeypatch.setattr(load.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(load.psutil, "Process", Process)
    monkeypatch.setattr(load.psutil, "cpu_times", lambda percpu: [Times(*next(cores))])
    monkeypatch.setattr(load, "allowed_cores", lambda: [0])
    monkeypatch.setattr(load, "measure_lost_cores", lambda: pytest.fail("nothing is niced"))


def test_does_not_count_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    _set_times(monkeypatch, core=(3.0, 0.0), own=2.0)
    # 3 seconds on the core in 2 seconds' time, 2 of them its own.
    assert LoadMeter().read() == 0.5


def test_does_not_count_its_own_process_of_lower_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    _set_times(monkeypatch, core=(1.0, 1.0), own=1.0, nice=5)
    assert LoadMeter().read() == 0.5  # the other program has the normal priority


@pytest.mark.parametrize(
    ("lost", "expected"),
    [(0.02, 0.02), (0.5, 0.5), (1.9, 0.75)],  # at most as much as the programs used
)
def test_programs_of_lower_priority_count_as_what_they_take(
    lost: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set_times(monkeypatch, core=(0.5, 1.5), own=0.5)
    monkeypatch.setattr(load, "measure_lost_cores", lambda: lost)
    assert LoadMeter().read() == expected


@pytest.mark.skipif(
    not _AUTOGROUP.is_file() or _AUTOGROUP.read_text().strip() != "1",
    reason="the system does not share the cores between sessions first",
)
def test_a_niced_program_of_another_session_counts() -> None:
    command = ["nice", "-n", "19", *_BUSY]
    programs = [subprocess.Popen(command, start_new_session=True) for _ in range(count_cores())]
    try:
        meter = LoadMeter()
        wait_until(lambda: meter.read() > 0.3)
    finally:
        for program in programs:
            program.kill()
            program.wait()


def test_lost_cores_are_those_of_busy_programs() -> None:
    assert 0.0 <= measure_lost_cores() <= count_cores()
    programs = [subprocess.Popen(_BUSY) for _ in range(2 * count_cores())]
    try:
        wait_until(lambda: measure_lost_cores() > 0.3)
    finally:
        for program in programs:
            program.kill()
            program.wait()


def test_setting_takes_the_place_of_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIT_CORES", "3")
    assert count_cores() == 3
    with subprocess.Popen(_BUSY) as busy:
        try:
            meter = LoadMeter()
            wait_until(lambda: psutil.Process(busy.pid).cpu_times().user > 0.3)
            assert meter.read() == 0.0
        finally:
            busy.kill()
