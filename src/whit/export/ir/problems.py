"""What cannot be exported, each with the user's line or the layer where it occurs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.fx import Node

from whit.export.ir.ops.registry import OP_CONVERTERS
from whit.export.ir.ops.values import UnsupportedOp

_FRAME = re.compile(r'^ *File "(.+)", line (\d+), in .*\n +(.*)$', re.MULTILINE)
_LIBRARIES = (Path(torch.__file__).parent, Path(__file__).parents[2])  # torch and whit


def call_site(node: Node) -> str:
    """Return where a node was computed: the layer, and the innermost line outside of torch."""
    parts = []
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    if modules and modules[-1][0]:
        path, kind = modules[-1]
        name = kind if isinstance(kind, str) else kind.__name__
        parts.append(f"layer {path} ({name.rpartition('.')[2]})")
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    for file, line, code in reversed(frames):
        if not any(Path(file).is_relative_to(library) for library in _LIBRARIES):
            parts.append(f"{Path(file).name}, line {line}: `{code.strip()}`")
            break
    return "; ".join(parts)


def add_sites(reason: str, sites: Sequence[str]) -> str:
    """Return a reason with the first place where it occurs, and the number of others."""
    named = [site for site in sites if site]
    more = f" and {len(named) - 1} more" if len(named) > 1 else ""
    return f"{reason} ({named[0]}{more})" if named else reason


class Problems:
    """Unsupported operations: each reason once, in order, with the places where it occurs."""

    def __init__(self) -> None:
        self._sites: dict[str, list[str]] = {}
        self._operators = False
        self.first: UnsupportedOp | None = None

    def __bool__(self) -> bool:
        return bool(self._sites)

    def add(self, error: UnsupportedOp, node: Node) -> None:
        sites = self._sites.setdefault(str(error), [])
        if (site := call_site(node)) and site not in sites:
            sites.append(site)
        self._operators |= error.is_operator
        self.first = self.first or error

    def messages(self) -> Iterator[str]:
        """Yield one clause per reason, with the first place and the number of others."""
        for reason, sites in self._sites.items():
            yield add_sites(reason, sites)

    def supported_operators(self) -> Iterator[str]:
        """Yield a sentence that lists them, if an operator is unsupported with any arguments."""
        if self._operators:
            names = sorted({name.partition(".")[0].strip("_") for name in OP_CONVERTERS})
            yield f"Operators that every format supports: {', '.join(names)}."
