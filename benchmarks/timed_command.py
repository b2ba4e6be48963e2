"""Run a command of whit and write the seconds of each of its stages, for where_time_goes.py.

    python benchmarks/timed_command.py FILE stages train sprint ...    seconds of each stage
    python benchmarks/timed_command.py FILE profile train sprint ...   of each operation in training

Only the standard library is imported before the first stage.
"""

from __future__ import annotations

import atexit
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

Clocks = tuple[float, float]  # of the wall, comparable between processes; of the processor


def read_clocks() -> Clocks:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)  # such as git
    return time.monotonic(), time.process_time() + children.ru_utime + children.ru_stime


STARTED = read_clocks()
REST = "command line, locks, printing"
# What is called by the command, and its row. Of calls inside each other the inner one counts.
CALLS = (
    ("whit.training.plan", "make_plan", "plan and audit of the network"),
    ("whit.data.datasets", "_load", "data: unpack and verify"),
    ("whit.training.setup", "build_normalize", "data: mean and deviation"),
    ("whit.training.run", "setup_run", "set-up of model and optimizer"),
    ("whit.training.setup:RunSetup", "environment", "environment: digests of data and code, git"),
    ("whit.runs.folder:RunFolder", "create", "run folder and first checkpoint"),
    ("whit.training.run", "evaluate", "evaluation"),
    ("whit.training.checkpointer:Checkpointer", "save", "checkpoints"),
    ("whit.training.run", "find_trained_dependence", "check that images are judged alone"),
    ("whit.training.run", "_finalize", "weights, result, manifest"),
)
TRAINING = "training"
PYTHON = "Python between operations"
_SPAN = "whit: "


class Stages:
    """Seconds of each stage, without those of the stages inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._stack = [REST]
        self._last = STARTED

    def charge(self, row: str) -> None:
        """Charge the time since the last call to `row`."""
        now = read_clocks()
        sums = self.seconds.setdefault(row, [0.0, 0.0])
        for index in (0, 1):
            sums[index] += now[index] - self._last[index]
        self._last = now

    @contextmanager
    def stage(self, row: str) -> Iterator[None]:
        self.charge(self._stack[-1])
        self._stack.append(row)
        try:
            yield
        finally:
            self.charge(self._stack.pop())

    def wrap(self, function: Callable[..., Any], row: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(row):
                return function(*args, **kwargs)

        return timed


def import_all(stages: Stages) -> None:
    """Import what the command imports, in its order, while the data are unpacked."""
    pause_gc = importlib.import_module("whit.system.processor.collector").pause_gc
    with pause_gc():
        importlib.import_module("whit.cli.app")
    stages.charge("import of the command line")
    importlib.import_module("whit.system.processor.load").recent_load()
    importlib.import_module("whit.data.prefetch").prefetch("mnist")
    with pause_gc():
        importlib.import_module("torch")
        stages.charge("import of torch")
        for name in ("plan", "progress", "run"):
            importlib.import_module(f"whit.training.{name}")
        stages.charge("import of whit's training")


def measure_calls(stages: Stages) -> None:
    for path, name, row in CALLS:
        module, _, owner = path.partition(":")
        place: Any = importlib.import_module(module)
        place = getattr(place, owner) if owner else place
        timed = stages.wrap(getattr(place, name), row)
        is_bound = hasattr(getattr(place, name), "__self__")  # a class method
        setattr(place, name, staticmethod(timed) if is_bound else timed)
    run: Any = importlib.import_module("whit.training.run")
    train = run.train

    def timed_train(*args: Any) -> Iterator[Any]:
        yield from each(train(*args), lambda: stages.stage(TRAINING))

    run.train = timed_train


def each(items: Iterator[Any], context: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """Yield `items`, each made inside its own context."""
    while True:
        with context():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def profile_training(rows: dict[str, list[float]]) -> None:
    """Have `rows` filled with seconds and events of each kind of operation in training."""
    import torch

    from whit.training.state import EpochMetrics

    run: Any = importlib.import_module("whit.training.run")
    span = torch.profiler.record_function
    real_train = run.train

    def spanned(function: Callable[..., Any], row: str) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            with span(_SPAN + row):
                return function(*args, **kwargs)

        return called

    def profiled_train(
        state: Any, loader: Any, recipe: Any, objective: Any, callback: Any
    ) -> Iterator[Any]:
        modules = [each for each in state.model.modules() if not list(each.children())]
        convs = [module for module in modules if isinstance(module, torch.nn.Conv2d)]
        for module in modules:
            module.forward = spanned(module.forward, _row_of(module, module is convs[0]))
        batches = loader.epoch
        loader.epoch = lambda *at: each(
            batches(*at), lambda: span(_SPAN + "batches and augmentation")
        )
        state.optimizer.step = spanned(state.optimizer.step, "optimizer")
        state.optimizer.zero_grad = spanned(state.optimizer.zero_grad, "gradients set to zero")
        for owner, name in ((state, "gradients_are_finite"), (state, "begin_step"),
                            (state.ema, "update"), (EpochMetrics, "update")):  # fmt: skip
            setattr(owner, name, spanned(getattr(owner, name), "checks and metrics"))
        objective = spanned(objective, "loss")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            made = real_train(state, loader, recipe, objective, callback)
            yield from each(made, lambda: span(_SPAN + TRAINING))
        for module in modules:
            del module.forward
        rows.update(_sum_rows(profiler.events()))

    run.train = profiled_train


def _row_of(module: Any, is_first_conv: bool) -> str:
    """Return the row of a module without submodules."""
    package = type(module).__module__.rpartition(".")[2]
    conv = "convolution, first" if is_first_conv else "convolutions, others"
    known = {"conv": conv, "batchnorm": "BatchNorm", "pooling": "pooling"}
    return known.get(package, type(module).__name__)


def _sum_rows(events: Any) -> dict[str, list[float]]:
    """Return the own seconds of all events in training, and their number, by row.

    An operation belongs to the innermost span around it. One of the backward pass belongs to the
    operation of the forward pass that has its number.
    """
    rows: dict[str, list[float]] = {}
    made_by: dict[int, str] = {}  # by the number of an operation of the forward pass
    for event in sorted(events, key=lambda event: event.time_range.start):
        chain, row, backward = event, "", None
        is_cast = False
        while chain is not None:
            if chain.name.startswith(_SPAN):
                row = row or chain.name.removeprefix(_SPAN)
            if chain.name.startswith("autograd::engine::evaluate_function"):
                backward = chain
            is_cast = is_cast or chain.name == "aten::_to_copy" or "ToCopyBackward" in chain.name
            chain, outer = chain.cpu_parent, chain
        if outer.name != _SPAN + TRAINING:
            continue
        if backward is None and event.sequence_nr >= 0:
            made_by[event.sequence_nr] = row
        direction = ""
        if backward is not None:
            row, direction = made_by.get(backward.sequence_nr, "gradients added"), ", backward"
        elif row not in ("batches and augmentation", "optimizer", "checks and metrics"):
            direction = ", forward"
        if is_cast and direction:
            row = "casts between precisions"
        if event.name.startswith(_SPAN):
            row, direction = PYTHON, ""
        elif row in (TRAINING, "gradients set to zero"):
            row, direction = "checks and metrics" if row == TRAINING else row, ""
        sums = rows.setdefault(row + direction, [0.0, 0])
        sums[0] += event.self_cpu_time_total / 1e6
        sums[1] += 1
    return rows


def main() -> None:
    file, mode, *arguments = sys.argv[1:]
    stages, rows = Stages(), dict[str, list[float]]()
    import_all(stages)
    measure_calls(stages)
    if mode == "profile":
        profile_training(rows)
    sys.argv = ["whit", *arguments]

    def write() -> None:
        stages.charge(REST)
        with open(file, "w") as stream:
            written = {"started": STARTED, "stages": stages.seconds, "rows": rows}
            json.dump({**written, "ended": read_clocks()}, stream)

    atexit.register(write)  # runs last of those that the command runs when it ends
    importlib.import_module("whit.__main__").main()


if __name__ == "__main__":
    main()
