"""The C target: a folder with one header, one source and a page that says what they need.

C99 without a heap, and without a library but for the mathematics of some float activations. The
same weights give the same bytes.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from importlib import resources
from math import prod
from string import Template

import numpy as np

from whit.export.c.calls import NEEDS_MATH, calls, format_float, kernel_texts
from whit.export.c.memory_plan import BufferLifetime, MemoryPlan, plan_memory
from whit.export.ir.graph import INPUT
from whit.export.program import OUTPUT, OUTSIDE, Array, Program, Step
from whit.training.optimization.qat import qmax

_WIDTH = 100
_PADDING = 31  # zeros after unpacked weights, which are read in blocks


def c_files(program: Program, description: str) -> dict[str, bytes]:
    """Return the files of a program by their names; `description` is a line about the run."""
    name, plan = c_name(program.graph.name), memory_plan(program)
    code = "\n".join(kernel_texts(program))
    channels, height, width = program.graph.image_shape
    count, classes = len(program.graph.shifts), program.graph.classes
    needs = _needs(program, plan)
    wrapped = [part for line in needs for part in textwrap.wrap(line, _WIDTH - 3)]
    needs_math = any(f"{function}(" in code for function in NEEDS_MATH)
    words = {
        "title": _in_comment(program.graph.name),
        "guard": name.upper(),
        "name": name,
        "kind": "int8" if program.int8 else "float",
        "last": len(classes) - 1,
        "layout": f"{height} lines of {width} places of {channels} byte{'s' * (channels > 1)}",
        "output": f"scores: {len(classes)} whole numbers, logits times 65,536, before any softmax"
        if program.int8
        else f"scores: {len(classes)} numbers, as the network gives them",
        "labels": "\n".join(f" *   {i}: {_in_comment(label)}" for i, label in enumerate(classes)),
        "pixels": prod(program.graph.image_shape),
        "shape": f"{height}, {width}, {channels}",
        "classes": len(classes),
        "count": count,
        "shifts": ", ".join(f"{{{right}, {down}}}" for right, down in program.graph.shifts),
        "steps": "\n".join(_steps(program, plan)),
        "logit": "int32_t" if program.int8 else "float",
        "sum": "int64_t" if program.int8 else "float",
        "mean": f"(int32_t)(sums[k] / {count})" if program.int8 else f"sums[k] / {count}",
        "description": description,
        "link": "   # link with -lm" if needs_math else "",
    }
    source = [
        "/* Made by whit. Not to be edited; the header says what it needs. */\n",
        f'#include "{name}.h"\n\n#include <stddef.h>\n',
        "#include <math.h>\n" if needs_math else "",
        f"\n{code}\n",
        *_constants(program),
        *_static_arrays(program, plan),
        _template("classify.c" if count == 1 else "classify_shifts.c", words),
    ]
    comment, items = "\n".join(f" * {line}" for line in wrapped), "\n".join(f"- {n}" for n in needs)
    files = {
        f"{name}.h": _template("network.h", {**words, "needs": comment}),
        f"{name}.c": "".join(source),
        "README.md": _template("README.md", {**words, "needs": items}),
    }
    return {file: text.encode("ascii") for file, text in files.items()}


def _template(name: str, words: Mapping[str, object]) -> str:
    file = resources.files("whit").joinpath("export", "c", "templates", name)
    return Template(file.read_text(encoding="ascii")).substitute(words)


def c_name(name: str) -> str:
    """Return a name as C takes it: letters, digits and underscores, a letter first."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    return plain if plain[:1].isalpha() else f"net_{plain}".rstrip("_")


def memory_plan(program: Program) -> MemoryPlan:
    """Return where each value lies, in numbers; the image and the logits are the caller's."""
    last_use = {name: i for i, step in enumerate(program.steps) for name in step.inputs}
    buffers = []
    for i, step in enumerate(program.steps):
        if step.name == OUTPUT:
            continue
        over = {
            name
            for name in step.inputs
            if last_use[name] == i and name != INPUT and _overwrites(program, step, name)
        }
        last, size = last_use[step.name], prod(step.shape)
        buffers.append(BufferLifetime(step.name, size, i, last, frozenset(over)))
    return plan_memory(buffers)


def _overwrites(program: Program, step: Step, name: str) -> bool:
    # A vector that counts for every pixel is read to the end, and so are windows with padding.
    is_alike = len(step.inputs) == 1 or program.value_shape(name) == step.shape
    return step.kernel.in_place and is_alike and not any(step.settings.get("padding", ()))


def memory_bytes(program: Program) -> int:
    """Return the bytes of static memory: activations, a shifted image, unpacked weights."""
    unit = 1 if program.int8 else 4
    return unit * memory_plan(program).size + _shifted_bytes(program) + _unpacked_bytes(program)


def _shifted_bytes(program: Program) -> int:
    return prod(program.graph.image_shape) if len(program.graph.shifts) > 1 else 0


def _unpacked_bytes(program: Program) -> int:
    sizes = [array.size for name, array in program.constants.items() if program.is_packed(name)]
    return max(sizes) + _PADDING if sizes else 0


def _needs(program: Program, plan: MemoryPlan) -> list[str]:
    unit = 1 if program.int8 else 4
    bound = "no plan needs less"
    if plan.size != plan.lower_bound:
        bound = f"no plan could need less than {unit * plan.lower_bound:,}"
    shifted, unpacked = _shifted_bytes(program), _unpacked_bytes(program)
    extra = f", {shifted} for the image moved" if shifted else ""
    extra += f", {unpacked} for a layer's weights unpacked" if unpacked else ""
    return [
        f"flash: {program.constant_bytes:,} bytes of constants, and the code",
        f"memory: {unit * plan.size:,} bytes for activations ({bound}){extra}, static; no heap; "
        "the stack beside",
        f"operations: {program.graph.macs:,} multiply-adds an image",
    ]


def _constants(program: Program) -> list[str]:
    """Return each constant's definition; weights read in blocks end with zeros for the last."""
    blocks = {step.constants["weight"] for step in program.steps if step.kind == "conv"}
    definitions = []
    for name, array in program.constants.items():
        size = f"{array.size}{' + BLOCK - 1' if program.int8 and name in blocks else ''}"
        if program.is_packed(name):
            array = pack_weights(array, program.graph.bits)
            size = str(array.size)
        number = "float" if array.dtype == np.float32 else f"{array.dtype}_t"
        head = f"static const {number} {_c_constant(name)}[{size}]"
        definitions.append(f"{head} = {{\n{_numbers(array)}\n}};\n\n")
    return definitions


def pack_weights(weights: Array, bits: int) -> Array:
    """Return weights side by side, from the lowest bits on; zero lies in the middle."""
    levels = weights.ravel().astype(np.int64) + qmax(bits)
    each = levels[:, None] >> np.arange(bits) & 1
    return np.packbits(each.astype(np.uint8).ravel(), bitorder="little")


def _static_arrays(program: Program, plan: MemoryPlan) -> list[str]:
    """Return the definitions of what a convolution reads outside its map, and of the memory."""
    widths = [
        program.value_shape(step.inputs[0])[0]
        for step in program.steps
        if not program.int8 and step.settings.get("outside") == OUTSIDE
    ]
    unpacked, number = _unpacked_bytes(program), "uint8_t" if program.int8 else "float"
    return [
        f"static const float {OUTSIDE}[{max(widths)}] = {{0}};\n\n" if widths else "",
        f"static {number} memory[{plan.size}];\n\n" if plan.size else "",
        f"static int8_t weights[{unpacked}];\n\n" if unpacked else "",
    ]


def _steps(program: Program, plan: MemoryPlan) -> list[str]:
    number = "uint8_t" if program.int8 else "float"
    lines = [
        f"    {number} *const {step.name} = memory + {plan.starts[step.name]};"
        for step in program.steps
        if step.name != OUTPUT
    ]
    for step in program.steps:
        for name in filter(program.is_packed, step.constants.values()):
            size = program.constants[name].size
            lines.append(f"    unpack({_c_constant(name)}, {size}, weights);")
        for call in calls(
            program,
            step,
            lambda name: {INPUT: "pixels", OUTPUT: "scores"}.get(name, name),
            lambda name: "weights" if program.is_packed(name) else _c_constant(name),
        ):
            # A struct's two words stay in one line.
            text = f"{call};".replace("struct ", "struct~")
            lines += [line.replace("~", " ") for line in _wrap(text, "    ", "        ")]
    return lines


def _c_constant(name: str) -> str:
    return name.replace(".", "_")


def _numbers(array: Array) -> str:
    form = {"float32": format_float, "int64": "INT64_C({})".format}.get(str(array.dtype), str)
    return "\n".join(_wrap(", ".join(map(form, array.ravel().tolist())), "    ", "    "))


def _wrap(text: str, first: str, rest: str) -> list[str]:
    wrapper = textwrap.TextWrapper(_WIDTH, first, rest)
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return wrapper.wrap(text)


def _in_comment(text: str) -> str:
    """Return any text in ASCII, and such that no comment ends or begins in it."""
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = "".join(each if each.isprintable() else "?" for each in plain)
    plain = re.sub(r"\?(?=\?)", "? ", plain.replace("\\", "/"))  # C99's `??/` is a backslash
    return plain.replace("*/", "* /").replace("/*", "/ *")
