"""The module and function calls open at a point of a forward pass."""

from __future__ import annotations

from collections import Counter

from torch import nn

from whit.analysis.tracing.trace import FunctionCall, ModuleCall, Trace


class CallStack:
    """The open calls, outermost first; every call is added to a trace."""

    def __init__(self, trace: Trace, paths: dict[int, str]):
        self.modules: list[ModuleCall] = []
        self.functions: list[FunctionCall] = []
        self._trace = trace
        self._paths = paths  # by id of module
        self._calls: Counter[tuple[int | str | None, ...]] = Counter()
        self._order = 0  # of calls and operations

    def next_order(self) -> int:
        self._order += 1
        return self._order

    def _count_call(self, *key: int | str | None) -> int:
        """Return how often `key` was called before."""
        self._calls[key] += 1
        return self._calls[key] - 1

    def enter_module(self, module: nn.Module) -> None:
        children = {name for name, _ in module.named_children()} - {"parametrizations"}
        path = self._paths.get(id(module))
        name = type(module).__name__ if path is None else path
        call = ModuleCall(
            index=len(self._trace.module_calls),
            path=name,
            site=(name, self._count_call(name), "", 0),
            leaf=not children and path != "",
            builtin=type(module).__module__.startswith("torch."),
            order=self.next_order(),
            open_functions=len(self.functions),
            parent=self.modules[-1].index if self.modules else None,
        )
        self._trace.module_calls.append(call)
        self.modules.append(call)

    def enter_function(self, name: str) -> FunctionCall:
        module = self.modules[-1] if self.modules else None
        path, calls = module.site[:2] if module else ("", 0)
        module_call = module.index if module else None
        call = FunctionCall(
            index=len(self._trace.function_calls),
            name=name,
            site=(path, calls, name, self._count_call(module_call, name)),
            module_call=module_call,
            order=self.next_order(),
            parent=self.functions[-1].index if self.functions else None,
        )
        self._trace.function_calls.append(call)
        self.functions.append(call)
        return call

    def is_inside(self, functions: frozenset[str]) -> bool:
        return any(call.name in functions for call in self.functions)

    def find_caller(self) -> tuple[int | None, int | None]:
        """Return the module call and the function call whose row an operation belongs to."""
        innermost = self.modules[-1] if self.modules else None
        module = next((call for call in self.modules if call.leaf), innermost)
        functions = self.functions[module.open_functions if module else 0 :]
        return (module.index if module else None), (functions[0].index if functions else None)

    def describe_caller(self) -> str:
        """Return the name of the row that an operation belongs to."""
        module, function = self.find_caller()
        path = "" if module is None else self._trace.module_calls[module].path
        if module is not None and self._trace.module_calls[module].leaf:
            return path
        name = "" if function is None else f".{self._trace.function_calls[function].name}"
        return (path or "forward") + name
