"""The C source of a program's kernels, and the calls of its steps."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from string import Template
from typing import Any

from whit.export.ir.graph import Shape
from whit.export.program import Program, Step, pixels_and_channels
from whit.training.optimization.qat import qmax

NEEDS_MATH = ("expf", "expm1f", "erff", "tanhf", "logf")
# Suffixes of kernel names, by the types of factors and offsets.
_SUFFIXES = {
    ("int16", "int16"): "",
    ("int32", "int64"): "_wide",
    ("uint8", "int16"): "_short",
    ("uint8", "int8"): "_byte",
}


def kernel_texts(program: Program) -> list[str]:
    """Return the source of each kernel of a program once, after the functions that it calls."""
    folder, number = ("int8", "uint8_t") if program.int8 else ("float", "float")
    texts: dict[str, None] = {_text("shift_image.c"): None} if len(program.graph.shifts) > 1 else {}
    for step in program.steps:
        kernel, words = step.kernel, {"number": number, **step.kernel.words}
        if types := step.settings.get("types"):
            factor, offset = (f"{each}_t" for each in types)
            words |= {"suffix": _SUFFIXES[types], "factor": factor, "offset": offset}
        helpers = [f"int8/{helper}.c" for helper in kernel.helpers]
        for file in (*helpers, kernel.file or f"{folder}/{kernel.name}.c"):
            texts[_text(file, **words)] = None
    if any(map(program.is_packed, program.constants)):
        bits = program.graph.bits
        words = {"bits": str(bits), "mask": str(2**bits - 1), "qmax": str(qmax(bits))}
        texts[_text("int8/unpack_weights.c", **words)] = None
    structs = [_text("structs.c")] if any("struct shape" in text for text in texts) else []
    return [*structs, *texts]


def _text(name: str, **words: str) -> str:
    file = resources.files("whit").joinpath("export", "c", "kernels", *name.split("/"))
    return Template(file.read_text(encoding="utf-8")).substitute(words)


def calls(
    program: Program, step: Step, value: Callable[[str], str], constant: Callable[[str], str]
) -> list[str]:
    """Return the calls of a step; `value` and `constant` map names to C expressions.

    Placeholders of a call: constants by role; settings; of the first input `input`, `pixels`,
    `channels`, `count`, `values` (input and size) and `input_map` (input and shape); `other`, the
    last input; of the output `output`, `outputs` (channels) and `output_map`; `window`; `suffix`;
    `scalars` and `vectors`: factor, offset and shift, per tensor or per channel; `first`: the first
    output channel of an input that is concatenated.
    """
    words: dict[str, Any] = {name: _argument(each) for name, each in step.settings.items()}
    words |= {role: constant(name) for role, name in step.constants.items()}
    if "kernel" in step.settings:
        words["window"] = _window(words)
    if "types" in step.settings:
        words["suffix"] = _SUFFIXES[step.settings["types"]]
        words["vectors"] = "{factor}, {offset}, {offset_scale}, {shift}".format(**words)
    output = value(step.name)
    words |= {"output": output, "outputs": step.shape[0], "first": 0}
    words["output_map"] = f"{output}, {_map(step.shape)}"
    if not step.inputs:
        return [step.kernel.call.format(**words)]
    words["other"] = value(step.inputs[-1])
    texts = []
    for i, name in enumerate(step.inputs if step.kernel.per_input else step.inputs[:1]):
        pixels, channels = pixels_and_channels(program.value_shape(name))
        if (
            step.kernel.per_input and len(step.shape) == 1
        ):  # a map with the memory layout of a vector
            pixels, channels = 1, pixels * channels
        words |= {"pixels": pixels, "channels": channels, "count": pixels * channels}
        words["input"] = value(name)
        words["values"] = f"{value(name)}, {pixels}, {channels}"
        words["input_map"] = f"{value(name)}, {_map(program.value_shape(name))}"
        words["scalars"] = _scalars(step, i) if "shift" in step.settings else ""
        texts.append(step.kernel.call.format(**words))
        words["first"] += channels
    return texts


def _argument(setting: Any) -> Any:
    if isinstance(setting, float):
        return format_float(setting)
    return int(setting) if isinstance(setting, bool) else setting


def _scalars(step: Step, i: int) -> str:
    settings = step.settings
    if "factors" in settings:  # one per input
        row, offset = [settings["factors"][i]], settings["offsets"][i]
    else:
        names = ("zero_point_a", "zero_point_b", "factor", "factor_a", "factor_b")
        row, offset = [settings[name] for name in names if name in settings], settings.get("offset")
    return ", ".join(map(str, [*row, f"INT64_C({offset})", settings["shift"]]))


def _map(shape: Shape) -> str:
    channels, height, width = (*shape, 1, 1)[:3]
    return f"(struct shape){{{height}, {width}, {channels}}}"


def _window(settings: dict[str, Any]) -> str:
    sizes = (settings[name] for name in ("kernel", "stride", "padding"))
    numbers = [*(each for pair in sizes for each in pair), *settings.get("dilation", (1, 1))]
    return f"(struct window){{{', '.join(map(str, numbers))}}}"


def format_float(value: float) -> str:
    """Return a C literal that gives the same float32 back: nine significant digits suffice."""
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
