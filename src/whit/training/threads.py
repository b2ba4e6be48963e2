"""How many threads a run computes with, and how it shares the cores with other programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from whit.errors import InputError
from whit.system.cores import LoadMeter, count_cores, count_free_cores
from whit.system.turns import Turns, list_members, turns_folder

_READ_SECONDS = 5.0  # between two looks at what else runs


def resolve_threads(threads: int) -> int:
    """Return `threads` if it is allowed. Raises InputError outside 1 to 4 x cores."""
    maximum = 4 * (os.cpu_count() or 1)
    if not 1 <= threads <= maximum:
        raise InputError(f"--threads {threads}: allowed on this machine: 1 to {maximum}.")
    return threads


class ThreadChoice:
    """The threads of a run: those given, or one for each core that is free.

    It measures from when it is made until `choose` what else runs. Other runs of whit do not count:
    they take turns. Raises InputError for a number that is not allowed.
    """

    def __init__(self, threads: int | None):
        self._given = None if threads is None else resolve_threads(threads)
        folder = turns_folder()
        self._meter = LoadMeter(lambda: list_members(folder) if folder else [])

    def choose(self) -> tuple[int, str]:
        """Return the number of threads, and a sentence where other programs lowered it.

        Numbers set by OMP_NUM_THREADS or torch.set_num_threads are not exceeded, and the former is
        not lowered either.
        """
        if self._given is not None:
            return self._given, ""
        default, cores = torch.get_num_threads(), count_cores()
        if os.environ.get("OMP_NUM_THREADS"):
            return default, ""
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
    """The cores of a run while it trains, as a context: turns, and notices about other programs.

    `between_steps` is called between two steps and two batches of an evaluation, where the state
    may be saved; `check`, while the run waits for its turn. `notify` gets a sentence the first
    time that other programs slow the run down, and the first time that it takes turns. A run on
    another device than the processor has 0 threads, and takes no turns.
    """

    def __init__(
        self,
        num_threads: int,
        resume_command: str,
        check: Callable[[], None],
        notify: Callable[[str], None],
    ):
        self._num_threads = num_threads
        self._num_cores = count_cores()
        self._resume_command = resume_command
        self._notify = notify
        folder = turns_folder() if num_threads else None
        self._turns = Turns(num_threads, self._num_cores, folder, check)
        self._meter = LoadMeter(self._turns.others)
        self._noticed: set[str] = set()

    def __enter__(self) -> SharedCores:
        self._turns.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._turns.__exit__(*error)

    def between_steps(self) -> None:
        """Pass on the turn if it is over; look at what else runs from time to time."""
        self._turns.between_steps()
        if self._meter.seconds < _READ_SECONDS:
            return
        used, others = self._meter.read(), len(self._turns.others())
        crowd = self._num_threads > 1 and self._num_threads + used > self._num_cores + 0.5
        if crowd:
            self._notice(
                "busy",
                f"Other programs use {used:.1f} of {self._num_cores} cores and slow down training "
                f"on {_threads(self._num_threads)}. One thread is hardly slowed down: stop with "
                f"Ctrl-C, then: {self._resume_command} --threads 1 --allow-changes",
            )
        if others:
            runs = "1 other run" if others == 1 else f"{others} other runs"
            self._notice("turns", f"Takes turns on the cores with {runs} of whit.")

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


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"
