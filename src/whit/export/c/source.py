"""The C form: a folder with one header, one source and a page that says what they need.

C99 without a heap, and without a library but for the mathematics of some float activations. The
same weights give the same bytes.
"""

from __future__ import annotations

import re
import textwrap
from math import prod

import numpy as np

from whit.export.c.calls import NEEDS_MATH, calls, format_float, kernel_texts
from whit.export.c.kernel import OUTSIDE, Array, Step
from whit.export.c.memory_plan import BufferLifetime, MemoryPlan, plan_memory
from whit.export.ir.graph import INPUT
from whit.export.program import OUTPUT, Program
from whit.rounding import most_of

_WIDTH = 100
_TYPES = {
    "float32": "float",
    **{name: f"{name}_t" for name in ("int8", "uint8", "int16", "int32", "int64")},
}
_PADDING = 31  # zeros after unpacked weights, which are read in blocks


def c_files(program: Program, description: str) -> dict[str, bytes]:
    """Return the files of a C form by their names; `description` is a line about the run."""
    name = c_name(program.name)
    plan = memory_plan(program)
    texts = {
        f"{name}.h": _header(program, name, plan),
        f"{name}.c": _source(program, name, plan),
        "README.md": _readme(program, name, plan, description),
    }
    return {file: text.encode("ascii") for file, text in texts.items()}


def c_name(name: str) -> str:
    """Return a name as C takes it: letters, digits and underscores, a letter first."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    return plain if plain[:1].isalpha() else f"net_{plain}".rstrip("_")


def memory_plan(program: Program) -> MemoryPlan:
    """Return where each value lies, in numbers; the image and the logits are the caller's."""
    last_use: dict[str, int] = {}
    for i, step in enumerate(program.steps):
        last_use.update((name, i) for name in step.inputs)
    lifetimes = []
    for i, step in enumerate(program.steps):
        if step.name == OUTPUT:
            continue
        over = {
            name
            for name in step.inputs
            if last_use[name] == i and name != INPUT and _overwrites(program, step, name)
        }
        last, size = last_use[step.name], prod(step.shape)
        lifetimes.append(BufferLifetime(step.name, size, i, last, frozenset(over)))
    return plan_memory(lifetimes)


def memory_bytes(program: Program) -> int:
    """Return the bytes of static memory: activations, a shifted image, unpacked weights."""
    unit = 1 if program.int8 else 4
    return unit * memory_plan(program).size + _shifted_bytes(program) + _unpacked_bytes(program)


def _shifted_bytes(program: Program) -> int:
    return prod(program.image_shape) if len(program.shifts) > 1 else 0


def _overwrites(program: Program, step: Step, name: str) -> bool:
    # A vector that counts for every pixel is read to the end, and so are windows with padding.
    is_alike = len(step.inputs) == 1 or program.shape_of(name) == step.shape
    return step.kernel.in_place and is_alike and not any(step.settings.get("padding", ()))


def _unpacked_bytes(program: Program) -> int:
    sizes = [array.size for name, array in program.constants.items() if program.is_packed(name)]
    return max(sizes) + _PADDING if sizes else 0


def _header(program: Program, name: str, plan: MemoryPlan) -> str:
    channels, height, width = program.image_shape
    size, classes = channels * height * width, len(program.classes)
    guard, kind = f"{name.upper()}_H", "int8" if program.int8 else "float"
    layout = f"{height} lines of {width} places of {channels} byte{'s' * (channels > 1)}"
    output = (
        f"scores: {classes} whole numbers, logits times 65,536, before any softmax"
        if program.int8
        else f"scores: {classes} numbers, as the network gives them"
    )
    labels = "\n".join(f" *   {i}: {_in_comment(label)}" for i, label in enumerate(program.classes))
    return f"""/*
 * {_in_comment(program.name)}: {kind}, made by whit. Not to be edited.
 *
{_comment_lines(_needs(program, plan))}
 */
#ifndef {guard}
#define {guard}

#include <stdint.h>

/*
 * Returns the class of an image, 0 to {classes - 1}. Not to be called by two at once.
 *
 * pixels: {layout}, 0 to 255, as in the data set
 * {output}
 *
 * classes:
{labels}
 */
int {name}_classify(const uint8_t pixels[{size}], {_score_type(program)} scores[{classes}]);

#endif
"""


def _score_type(program: Program) -> str:
    return "int32_t" if program.int8 else "float"


def _needs(program: Program, plan: MemoryPlan) -> list[str]:
    unit = 1 if program.int8 else 4
    bound = (
        "no plan needs less"
        if plan.size == plan.lower_bound
        else f"no plan could need less than {unit * plan.lower_bound:,}"
    )
    extra = f", {_shifted_bytes(program)} for the image moved" if _shifted_bytes(program) else ""
    if _unpacked_bytes(program):
        extra += f", {_unpacked_bytes(program)} for a layer's weights unpacked"
    return [
        f"flash: {program.constant_bytes:,} bytes of constants, and the code",
        f"memory: {unit * plan.size:,} bytes for activations ({bound}){extra}, static; no heap; "
        "the stack beside",
        f"operations: {program.macs:,} multiply-adds an image",
    ]


def _source(program: Program, name: str, plan: MemoryPlan) -> str:
    kernels = kernel_texts(program)
    code = "\n".join(kernels)
    includes = [f'#include "{name}.h"', "", "#include <stddef.h>"]
    if any(f"{function}(" in code for function in NEEDS_MATH):
        includes.append("#include <math.h>")
    constants = "".join(_stored(program, each) for each in program.constants)
    unit = "uint8_t" if program.int8 else "float"
    static = f"static {unit} memory[{plan.size}];\n\n" if plan.size else ""
    if _unpacked_bytes(program):
        static += f"static int8_t weights[{_unpacked_bytes(program)}];\n\n"
    return (
        "/* Made by whit. Not to be edited; the header says what it needs. */\n"
        + "\n".join(includes)
        + "\n\n"
        + code
        + "\n"
        + constants
        + _outside(program)
        + static
        + _classify(program, name, plan)
    )


def _stored(program: Program, name: str) -> str:
    array, size = program.constants[name], _size(program, name)
    if program.is_packed(name):
        array = pack_weights(array, program.bits)
        size = str(array.size)
    kind = _TYPES[str(array.dtype)]
    return f"static const {kind} {_constant(name)}[{size}] = {{\n{_numbers(array)}\n}};\n\n"


def pack_weights(weights: Array, bits: int) -> Array:
    """Return weights side by side, from the lowest bits on; zero lies in the middle."""
    levels = weights.ravel().astype(np.int64) + most_of(bits)
    each = levels[:, None] >> np.arange(bits) & 1
    return np.packbits(each.astype(np.uint8).ravel(), bitorder="little")


def _size(program: Program, constant: str) -> str:
    """Numbers of a constant; weights that are read in blocks end with zeros that fill the last."""
    in_blocks = program.int8 and any(
        step.kind == "conv" and step.constants["weight"] == constant for step in program.steps
    )
    return f"{program.constants[constant].size}{' + BLOCK - 1' if in_blocks else ''}"


def _outside(program: Program) -> str:
    """Zeros that stand for the channels of a pixel outside a map, in float32."""
    if program.int8:
        return ""
    widest = max(
        (
            program.shape_of(step.inputs[0])[0]
            for step in program.steps
            if step.kind == "conv" and any(step.settings["padding"])
        ),
        default=0,
    )
    return f"static const float {OUTSIDE}[{widest}] = {{0}};\n\n" if widest else ""


def _classify(program: Program, name: str, plan: MemoryPlan) -> str:
    pixels, classes = prod(program.image_shape), len(program.classes)
    arguments = f"const uint8_t pixels[{pixels}], {_score_type(program)} scores[{classes}]"
    lines = [f"int {name}_classify({arguments})", "{"]
    if len(program.shifts) == 1:
        lines += _one_pass(program, plan)
    else:
        lines = [
            f"static uint8_t moved[{pixels}];",
            "",
            "/* The scores of the image as it lies in `pixels`. */",
            f"static void look({arguments})",
            "{",
            *_one_pass(program, plan),
            "}",
            "",
            *lines,
            *_all_passes(program),
        ]
    lines += [
        "    int best = 0;",
        f"    for (int k = 1; k < {classes}; k++)",
        "        if (scores[k] > scores[best])",
        "            best = k;",
        "    return best;",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _one_pass(program: Program, plan: MemoryPlan) -> list[str]:
    unit = "uint8_t" if program.int8 else "float"

    def value_name(value: str) -> str:
        return {INPUT: "pixels", OUTPUT: "scores"}.get(value, value)

    lines = []
    for step in program.steps:
        if step.name != OUTPUT:
            lines.append(f"    {unit} *const {step.name} = memory + {plan.starts[step.name]};")

    def constant_name(name: str) -> str:
        return "weights" if program.is_packed(name) else _constant(name)

    for step in program.steps:
        for name in step.constants.values():
            if program.is_packed(name):
                size = program.constants[name].size
                lines.append(f"    unpack({_constant(name)}, {size}, weights);")
        for call in calls(program, step, value_name, constant_name):
            # A struct's two words stay in one line.
            text = f"{call};".replace("struct ", "struct~")
            lines += [line.replace("~", " ") for line in _wrap(text, "    ", "        ")]
    return lines


def _all_passes(program: Program) -> list[str]:
    """The mean of the logits over all shifts; integers are divided toward zero."""
    channels, height, width = program.image_shape
    count, classes = len(program.shifts), len(program.classes)
    shifts = ", ".join(f"{{{right}, {down}}}" for right, down in program.shifts)
    wide, mean = (
        ("int64_t", "(int32_t)(sums[k] / {})") if program.int8 else ("float", "sums[k] / {}")
    )
    return [
        f"    static const int8_t shifts[{count}][2] = {{{shifts}}};",
        f"    {wide} sums[{classes}] = {{0}};",
        f"    for (int i = 0; i < {count}; i++) {{",
        f"        move(pixels, {height}, {width}, {channels}, shifts[i][0], shifts[i][1], moved);",
        "        look(moved, scores);",
        f"        for (int k = 0; k < {classes}; k++)",
        "            sums[k] += scores[k];",
        "    }",
        f"    for (int k = 0; k < {classes}; k++)",
        f"        scores[k] = {mean.format(count)};",
    ]


def _constant(name: str) -> str:
    return name.replace(".", "_")


def _numbers(array: Array) -> str:
    flat = array.ravel()
    if flat.dtype == np.float32:
        texts = [format_float(float(each)) for each in flat]
    elif flat.dtype == np.int64:
        texts = [f"INT64_C({each})" for each in flat]
    else:
        texts = [str(each) for each in flat]
    return "\n".join(_wrap(", ".join(texts), "    ", "    "))


def _wrap(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _comment_lines(lines: list[str]) -> str:
    wrapped = [part for line in lines for part in textwrap.wrap(line, _WIDTH - 3)]
    return "\n".join(f" * {line}" for line in wrapped)


def _in_comment(text: str) -> str:
    """Any text in ASCII, and such that no comment ends or begins in it."""
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = "".join(each if each.isprintable() else "?" for each in plain)
    plain = re.sub(r"\?(?=\?)", "? ", plain.replace("\\", "/"))  # C99's `??/` is a backslash
    return plain.replace("*/", "* /").replace("/*", "/ *")


def _readme(program: Program, name: str, plan: MemoryPlan, description: str) -> str:
    needs = "\n".join(f"- {line}" for line in _needs(program, plan))
    needs_math = any(
        f"{function}(" in text for text in kernel_texts(program) for function in NEEDS_MATH
    )
    return f"""# {name}

{description}

    cc -std=c99 -O2 -c {name}.c{"   # link with -lm" if needs_math else ""}

`{name}.h` has the one function, {name}_classify, and says what it reads and gives.
For the machine at hand, `-O3 -march=native` lets the compiler use its widest registers.

{needs}
"""
