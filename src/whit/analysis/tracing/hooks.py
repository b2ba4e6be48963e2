"""Running a model under a recorder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from whit.analysis.tracing.dataflow import tensor_leaves
from whit.analysis.tracing.patterns import mark_attention, mark_batch_normalization
from whit.analysis.tracing.recorder import Recorder
from whit.analysis.tracing.trace import Trace


class FunctionTracer(TorchFunctionMode):
    """Reports to the recorder which torch functions the user's Python calls."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "size", "dim", "is_floating_point", ""):
            return func(*args, **kwargs)
        function = self._recorder.enter_function(name.strip("_"))
        result = None
        try:
            result = func(*args, **kwargs)
        finally:
            self._recorder.leave_function(function, args, result)
        return result


@contextmanager
def hook_modules(recorder: Recorder) -> Iterator[None]:
    """Report the calls of all modules to the recorder."""

    def before(module: nn.Module, arguments: Any) -> None:
        recorder.enter_module(module)

    def after(module: nn.Module, arguments: Any, result: Any) -> None:
        with torch._C.DisableTorchFunction():
            recorder.leave_module(arguments, result)

    entering = register_module_forward_pre_hook(before)
    leaving = register_module_forward_hook(after, always_call=True)
    try:
        yield
    finally:
        entering.remove()
        leaving.remove()


def record_forward(forward: Callable[[Tensor], Any], image: Tensor, recorder: Recorder) -> Trace:
    """Run `forward` on `image`, (N, C, H, W), and return what happened, also if it failed."""
    trace = recorder.trace
    try:
        with hook_modules(recorder), FunctionTracer(recorder), recorder:
            recorder.set_input(image)
            trace.output = forward(image)
        for output in tensor_leaves(trace.output):
            recorder.check_output(output)
        if isinstance(trace.output, Tensor):
            trace.output_field = recorder.find_field(trace.output)
    except (Exception, SystemExit) as error:
        trace.failure = error
    if trace.failure is None:
        try:
            trace.mark_live(tensor_leaves(trace.output))
        except NotImplementedError as error:
            trace.failure = error
    mark_attention(trace)
    mark_batch_normalization(trace)
    return trace
