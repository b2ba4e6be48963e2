"""How many threads a run computes with, and how it shares the cores with other programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from whit.system.processor.cores import count_cores, count_free_cores, resolve_threads
from whit.system.processor.load import LoadMeter, recent_load
from whit.system.processor.turns import Turns, list_members, turns_folder

_TOLERANCE = 0.3  # cores in use beyond which programs get into each other's way
_READ_SECONDS = 1.0  # between two measurements of what else runs
_BUSY_SECONDS = 2.0  # for which other programs must be busy, before threads are released
_FREE_SECONDS = 30.0  # for which cores must be free, before they are used again


class ThreadChoice:
    """The threads of a run: those given, or one for each core that is free.

    It measures from when it is made until `choose` what else runs. Other runs of whit do not count:
    they take turns. `is_fixed` tells whether the user chose the number. Raises InputError for
    a number that is not allowed.
    """

    def __init__(self, threads: int | None):
        self._given = None if threads is None else resolve_threads(threads)
        self.is_fixed = threads is not None or bool(os.environ.get("OMP_NUM_THREADS"))
        folder = turns_folder()
        self._meter = LoadMeter(lambda: list_members(folder) if folder else [])

    def choose(self) -> tuple[int, str]:
        """Return the number of threads, and a sentence where other programs lowered it.

        Numbers set by OMP_NUM_THREADS or torch.set_num_threads are not exceeded, and the former is
        not lowered either.
        """
        default, cores = torch.get_num_threads(), count_cores()
        if self.is_fixed:
            return self._given or default, ""
        most = min(default, cores)
        if most == 1:
            return 1, ""
        used = self._meter.read()
        free = count_free_cores(used)
        if free >= most:
            return most, ""
        return free, (
            f"Other programs use {used:.1f} of {cores} cores: training on {_threads(free)}. "
            f"--threads {most} trains on {most}."
        )


class SharedCores:
    """The cores of a run while it trains, as a context: turns, and threads as other programs allow.

    `between_steps` is called between two steps and two batches of an evaluation, where the state
    may be saved; `check`, while the run waits for its turn. A run on another device than the
    processor has 0 threads, and takes no turns.

    Threads that the user did not choose are released while other programs need the cores:
    threads that share a core wait for each other at every barrier. That changes the rounding of
    sums, so `on_change` gets the number before and after, to be recorded. `notify` gets sentences
    about the machine.
    """

    def __init__(
        self,
        num_threads: int,
        is_fixed: bool,
        resume_command: str,
        *,
        check: Callable[[], None],
        notify: Callable[[str], None],
        on_change: Callable[[int, int], None],
    ):
        self.num_threads = num_threads
        self._is_fixed = is_fixed
        self._most = num_threads
        self._num_cores = count_cores()
        self._resume_command = resume_command
        self._notify, self._on_change = notify, on_change
        folder = turns_folder() if num_threads else None
        self._turns = Turns(num_threads, self._num_cores, folder, check)
        self._meter = LoadMeter(self._turns.others)
        self._busy_seconds = self._free_seconds = 0.0
        self._noticed: set[str] = set()

    def __enter__(self) -> SharedCores:
        self._turns.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._turns.__exit__(*error)

    def between_steps(self) -> None:
        """Pass on the turn if it is over; look at what else runs from time to time."""
        self._turns.between_steps()
        seconds = self._meter.seconds
        if seconds < _READ_SECONDS:
            return
        others = len(self._turns.others())
        if others:
            runs = "1 other whit run" if others == 1 else f"{others} other whit runs"
            self._notice("turns", f"Sharing the cores in turns with {runs}.")
        if self._most <= 1:  # nothing to decide
            self._meter.restart()
            return
        used = self._meter.read()
        is_crowded = self.num_threads > 1 and self.num_threads + used > self._num_cores + _TOLERANCE
        is_free = self._most + used < self._num_cores + _TOLERANCE
        self._busy_seconds = self._busy_seconds + seconds if is_crowded else 0.0
        self._free_seconds = self._free_seconds + seconds if is_free else 0.0
        if self._busy_seconds >= _BUSY_SECONDS:
            self._release_threads(used)
        elif self._free_seconds >= _FREE_SECONDS and self.num_threads < self._most:
            self._use(self._most, "Cores are free again")

    def _release_threads(self, used: float) -> None:
        load = f"Other programs use {used:.1f} of {self._num_cores} cores"
        if self._is_fixed:
            advice = f"stop with Ctrl-C, then: {self._resume_command} --threads 1 --allow-changes"
            self._notice(
                "busy",
                f"{load} and slow down training on {_threads(self.num_threads)}. A single "
                f"thread loses little: {advice}",
            )
        else:
            self._use(min(count_free_cores(used), self.num_threads - 1), load)

    def _use(self, num_threads: int, reason: str) -> None:
        before, self.num_threads = self.num_threads, num_threads
        torch.set_num_threads(num_threads)
        self._turns.needed = num_threads
        self._busy_seconds = self._free_seconds = 0.0
        self._on_change(before, num_threads)
        self._notify(
            f"{reason}: training continues on {_threads(num_threads)}. --threads {self._most} "
            f"keeps {self._most}."
        )

    def _notice(self, kind: str, text: str) -> None:
        if kind not in self._noticed:
            self._noticed.add(kind)
            self._notify(text)


@contextmanager
def use_threads(num_threads: int) -> Iterator[None]:
    """Set the number of torch's threads, and restore it afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def use_free_cores() -> Iterator[Callable[[], None]]:
    """Compute on the cores that are free: for all that is no training, such as an audit.

    Yields a function that measures again, to be called from time to time. A number set by
    OMP_NUM_THREADS is kept, and one set by torch.set_num_threads is not exceeded.
    """
    most = min(torch.get_num_threads(), count_cores())

    def update() -> None:
        if os.environ.get("OMP_NUM_THREADS"):
            return
        number = most if most == 1 else min(most, count_free_cores(recent_load().read()))
        if number != torch.get_num_threads():
            torch.set_num_threads(number)

    with use_threads(torch.get_num_threads()):
        update()
        yield update


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"
