"""How many of the processor's cores other programs use."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import psutil

from whit.system.processor.cores import CORES_SETTING, allowed_cores, count_cores

_MIN_SECONDS = 0.1  # of a measurement; the system counts in hundredths of a second
_MIN_NICED = 0.3  # cores used by programs of lower priority, below which they are ignored
_PROBE_SECONDS = 0.06  # many time slices of the scheduler, which are about 3 ms
_VALID_SECONDS = 1.0  # of a measurement of RecentLoad


@dataclass(frozen=True)
class _Times:
    """Seconds of processor time, of programs of normal and of lower priority."""

    normal: float
    niced: float


@dataclass(frozen=True)
class _Reading:
    time: float  # seconds
    all: _Times  # of all programs on the allowed cores
    own: dict[int, _Times]  # of each process that is not to be counted, by its number


class LoadMeter:
    """Measures how many cores other programs use, from one `read` to the next.

    Neither this process counts, nor those whose numbers `exempt` returns. Programs of lower
    priority count as much as they take from this process, which depends on more than their
    priority: Linux shares the cores evenly between terminals and between services first, and
    `nice` acts among the programs of one of them (`man 7 sched`, autogroups). Nothing counts where
    WHIT_CORES says how many cores to use.
    """

    def __init__(self, exempt: Callable[[], Iterable[int]] = lambda: ()):
        self._exempt = exempt
        self._before = self._take()

    @property
    def seconds(self) -> float:
        """The time since the last `read`."""
        return time.monotonic() - self._before.time

    def restart(self) -> None:
        """Begin a new measurement without the result of this one."""
        self._before = self._take()

    def read(self) -> float:
        """Return the cores used by other programs since the last call, 0 to all; fractions count.

        Waits until at least a tenth of a second has passed since then. Where programs of lower
        priority run, computes for another 0.06 seconds to see what they take.
        """
        if os.environ.get(CORES_SETTING):
            return 0.0
        time.sleep(max(0.0, _MIN_SECONDS - self.seconds))
        before, now = self._before, self._take()
        used, niced = _cores_of_others(before, now)
        if niced > _MIN_NICED:
            used = min(max(used, measure_lost_cores()), used + niced)
            now = self._take()
        self._before = now
        return min(used, float(len(allowed_cores())))

    def _take(self) -> _Reading:
        times = psutil.cpu_times(percpu=True)
        cores = [times[core] for core in allowed_cores() if core < len(times)]
        normal = sum(
            core.user + core.system + getattr(core, "irq", 0.0) + getattr(core, "softirq", 0.0)
            for core in cores
        )
        niced = sum(getattr(core, "nice", 0.0) for core in cores)
        own = {}
        for number in {os.getpid(), *self._exempt()}:
            with suppress(psutil.Error):
                process = psutil.Process(number)
                used = process.cpu_times()
                # Time in the system counts as normal at every priority.
                is_niced = os.name == "posix" and process.nice() > 0
                niced_user = used.user if is_niced else 0.0
                own[number] = _Times(used.system + used.user - niced_user, niced_user)
        return _Reading(time.monotonic(), _Times(normal, niced), own)


class RecentLoad:
    """The cores that other programs use, measured at most once a second, from when it is made."""

    def __init__(self) -> None:
        self._meter = LoadMeter()
        self._used: float | None = None

    def read(self) -> float:
        if self._used is None or self._meter.seconds >= _VALID_SECONDS:
            self._used = self._meter.read()
        return self._used


@cache
def recent_load() -> RecentLoad:
    """Return that of this process. A first call, well before it is read, saves waiting."""
    return RecentLoad()


def _cores_of_others(before: _Reading, now: _Reading) -> tuple[float, float]:
    """Return the cores that other programs of normal and of lower priority used, at least 0."""
    seconds = now.time - before.time
    common = now.own.keys() & before.own.keys()
    both = [(now.own[number], before.own[number]) for number in common]
    normal = now.all.normal - before.all.normal - sum(a.normal - b.normal for a, b in both)
    niced = now.all.niced - before.all.niced - sum(a.niced - b.niced for a, b in both)
    return max(normal / seconds, 0.0), max(niced / seconds, 0.0)


def measure_lost_cores() -> float:
    """Return how many cores other programs take from threads that compute on all cores."""
    data = bytes(1 << 20)  # hashing it takes a millisecond, without Python's lock
    lost: list[float] = []

    def compute() -> None:
        started, used = time.perf_counter(), time.thread_time()
        while (elapsed := time.perf_counter() - started) < _PROBE_SECONDS:
            hashlib.sha256(data)
        lost.append(max(0.0, 1 - (time.thread_time() - used) / elapsed))

    threads = [threading.Thread(target=compute) for _ in range(count_cores())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(lost)
