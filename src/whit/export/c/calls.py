"""The C source of a program's kernels, and its steps as calls of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from string import Template

from whit.export.c.kernel import KernelCall, Step
from whit.export.program import Program
from whit.rounding import most_of

NEEDS_MATH = ("expf", "expm1f", "erff", "tanhf", "logf")


def kernel_texts(program: Program) -> list[str]:
    """Return the text of every kernel that the program calls, each once, after what it calls."""
    folder, number = ("int8", "uint8_t") if program.int8 else ("float", "float")
    texts: dict[str, None] = {_text("move.c"): None} if len(program.shifts) > 1 else {}
    for step in program.steps:
        kernel = step.kernel
        files = [f"int8/{helper}.c" for helper in kernel.int8_helpers if program.int8]
        for file in (*files, kernel.file or f"{folder}/{kernel.name}.c"):
            texts[_text(file, number=number, **kernel.words, **step.type_words())] = None
    if any(map(program.is_packed, program.constants)):
        bits = program.bits
        words = {"bits": str(bits), "mask": str(2**bits - 1), "qmax": str(most_of(bits))}
        texts[_text("int8/unpack.c", **words)] = None
    shapes = [_text("shapes.c")] if any("struct map" in text for text in texts) else []
    return [*shapes, *texts]


def _text(name: str, **words: str) -> str:
    file = resources.files("whit").joinpath("export", "c", "kernels", *name.split("/"))
    return Template(file.read_text(encoding="utf-8")).substitute(words)


def calls(
    program: Program, step: Step, value: Callable[[str], str], constant: Callable[[str], str]
) -> list[str]:
    """Return the calls of a step; `value` and `constant` name values and constants in C."""
    call = KernelCall(
        step,
        program.int8,
        [value(name) for name in step.inputs],
        [program.shape_of(name) for name in step.inputs],
        value(step.name),
        {role: constant(name) for role, name in step.constants.items()},
    )
    return step.kernel.call(call)
