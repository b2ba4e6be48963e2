"""Each step as one call of its kernel, and the kernels' text."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from string import Template
from typing import Any

from whit.export.program import Program, Step, places_and_channels
from whit.rounding import most_of

# By PyTorch's definitions; the constant of gelu is the square root of one half.
_EXPRESSIONS = {
    "relu": "x > 0 ? x : 0",
    "relu6": "x > 6 ? 6 : x > 0 ? x : 0",
    "gelu": "0.5f * x * (1 + erff(0.707106781f * x))",
    "silu": "x / (1 + expf(-x))",
    "hardswish": "x <= -3 ? 0 : x >= 3 ? x : x * (x + 3) / 6",
    "hardsigmoid": "x <= -3 ? 0 : x >= 3 ? 1 : (x + 3) / 6",
    "sigmoid": "1 / (1 + expf(-x))",
    "tanh": "tanhf(x)",
}
_WITH_SLOPE = {
    "leaky_relu": "x > 0 ? x : x * slope",
    "elu": "x > 0 ? x : slope * expm1f(x)",
}
# These move numbers or compare them: one text for both types.
_OF_ANY_TYPE = ("maxpool", "slice", "flatten")
_SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}
_TYPES_OF = {
    ("int16", "int16"): "",
    ("int32", "int64"): "_wide",
    ("uint8", "int16"): "_short",
    ("uint8", "int8"): "_byte",
}
OUTSIDE = "outside"  # what a convolution reads there, in float32
NEEDS_MATH = ("expf", "expm1f", "erff", "tanhf", "logf")


def kernel_texts(program: Program) -> list[str]:
    """Return the text of every kernel that the program calls, each once, as it reads them."""
    folder = "int8" if program.int8 else "float"
    texts: dict[str, None] = {_file("move.c"): None} if len(program.shifts) > 1 else {}
    for step in program.steps:
        if program.int8:
            for needed in _needed_first(step):
                texts[_settling(step, f"int8/{needed}.c")] = None
        texts[_kernel_text(step, folder)] = None
    if any(map(program.is_packed, program.constants)):
        bits = program.bits
        unpack = _filled(
            "int8/unpack.c", bits=str(bits), mask=str(2**bits - 1), most=str(most_of(bits))
        )
        texts[unpack] = None
    shapes = [_file("shapes.c")] if any("struct map" in text for text in texts) else []
    return [*shapes, *texts]


def _needed_first(step: Step) -> tuple[str, ...]:
    if step.kind in ("linear_scores", "mean_scores", "scores"):
        return ("score_of",)
    if step.kind == "conv":
        return ("settle", "settle_each", "tile")
    if step.kind == "depthwise":
        return ("settle", "settle_each")
    if step.kind in ("linear", "scale", "mean", "add", "multiply", "concat", "hardswish"):
        return ("settle",)
    return ()


def _kernel_text(step: Step, folder: str) -> str:
    kind, function = step.kind, step.settings.get("function", "")
    if kind in _OF_ANY_TYPE:
        return _filled(f"{kind}.c", number="uint8_t" if folder == "int8" else "float")
    if kind == "activation" and function != "prelu":
        name = "activation_with_slope" if function in _WITH_SLOPE else "activation"
        expression = _WITH_SLOPE.get(function) or _EXPRESSIONS[function]
        return _filled(f"float/{name}.c", function=function, expression=expression)
    if folder == "float" and kind in _SIGNS:
        return _filled("float/two.c", kind=kind, sign=_SIGNS[kind])
    return _settling(step, f"{folder}/{'prelu' if kind == 'activation' else kind}.c")


def _settling(step: Step, name: str) -> str:
    """A kernel's text for the types of the factors and offsets that a step has."""
    if "types" not in step.settings:
        return _file(name)
    factor, offset = step.settings["types"]
    return _filled(name, of=_of(step), factor=f"{factor}_t", offset=f"{offset}_t")


def _of(step: Step) -> str:
    """What follows a kernel's name, by the types of its factors and offsets."""
    types = step.settings.get("types")
    return _TYPES_OF[types] if types else ""


def _filled(name: str, **words: str) -> str:
    return Template(_file(name)).substitute(words)


def _file(name: str) -> str:
    file = resources.files("whit") / "export" / "c" / "kernels" / name
    return file.read_text(encoding="utf-8")


def calls(
    program: Program, step: Step, where: Callable[[str], str], constant: Callable[[str], str]
) -> list[str]:
    """Return the calls of a step; `where` and `constant` name values and constants in C."""
    given = [where(name) for name in step.inputs]
    shapes = [program.shape_of(name) for name in step.inputs]
    held = {role: constant(name) for role, name in step.constants.items()}
    made, settings = where(step.name), step.settings
    rows, channels = places_and_channels(shapes[0])
    lying = f"{given[0]}, {rows}, {channels}"
    count = rows * channels
    fixed = _fixed(settings)
    kind = step.kind
    if kind == "numbers":
        return [f"numbers({given[0]}, {count}, {made})"]
    if kind == "conv":
        outside = OUTSIDE if any(settings["padding"]) else "NULL"
        outside = str(settings["zero"]) if program.int8 else outside
        return [
            f"conv{_of(step)}({given[0]}, {_map(shapes[0])}, {_window(settings)}, "
            f"{settings['groups']}, {outside}, {held['weight']}, {_made_by(held, settings)}, "
            f"{made}, {_map(step.shape)})"
        ]
    if kind == "depthwise":
        zero = f"{settings['zero']}, " if program.int8 else ""
        return [
            f"depthwise{_of(step)}({given[0]}, {_map(shapes[0])}, {_window(settings)}, {zero}"
            f"{held['weight']}, {_made_by(held, settings)}, {made}, {_map(step.shape)})"
        ]
    if kind in ("linear", "linear_scores"):
        return [
            f"{kind}{_of(step)}({given[0]}, {count}, {held['weight']}, "
            f"{_made_by(held, settings)}, {made}, {step.shape[0]})"
        ]
    if kind == "scale":
        by = _made_by(held, settings) if program.int8 else f"{held['scale']}, {held['offset']}"
        return [f"scale{_of(step)}({lying}, {by}, {made})"]
    if kind == "table":
        by_channel = int(settings["by_channel"])
        return [f"look_up({lying}, {by_channel}, {held['table']}, {made})"]
    if kind == "hardswish":
        bounds = f"{settings['zero']}, {settings['three']}"
        return [f"hardswish({given[0]}, {count}, {bounds}, {fixed}{made})"]
    if kind == "activation":
        if settings["function"] == "prelu":
            return [f"prelu({lying}, {held['slope']}, {made})"]
        slope = f", {number(settings['slope'])}" if "slope" in settings else ""
        return [f"{settings['function']}_each({given[0]}, {count}{slope}, {made})"]
    if kind == "maxpool":
        return [
            f"maxpool({given[0]}, {_map(shapes[0])}, {_window(settings)}, {made}, "
            f"{_map(step.shape)})"
        ]
    if kind == "avgpool":
        zero = f"{settings['zero']}, " if program.int8 else ""
        return [
            f"avgpool({given[0]}, {_map(shapes[0])}, {_window(settings)}, "
            f"{int(settings['counts_padding'])}, {zero}{made}, {_map(step.shape)})"
        ]
    if kind in ("mean", "mean_scores"):
        return [f"{kind}({lying}, {fixed}{made})"]
    if kind == "scores":
        return [f"give_scores({given[0]}, {count}, {fixed}{made})"]
    if kind in ("add", "subtract", "multiply"):
        by_channel = int(settings["by_channel"])
        return [f"{kind}({given[0]}, {given[1]}, {by_channel}, {rows}, {channels}, {fixed}{made})"]
    if kind == "concat":
        return _puts(program, step, given, made)
    if kind == "slice":
        start, pitch = settings["start"], settings["pitch"]
        return [f"take({given[0]}, {rows}, {start}, {pitch}, {made}, {step.shape[0]})"]
    if kind == "deskew":
        return [f"deskew({given[0]}, {_map(shapes[0])}, {made})"]
    if kind == "pad":
        left, _, top, _ = settings["around"]
        zero = f", {settings['zero']}" if program.int8 else ""
        return [
            f"pad({given[0]}, {_map(shapes[0])}, {left}, {top}{zero}, {made}, {_map(step.shape)})"
        ]
    if kind == "flatten":
        return [f"flatten({lying}, {made})"]
    assert kind in ("softmax", "log_softmax"), kind
    return [f"{kind}({given[0]}, {count}, {made})"]


def _puts(program: Program, step: Step, given: list[str], made: str) -> list[str]:
    first, found = 0, []
    for i, (name, inside) in enumerate(zip(step.inputs, given, strict=True)):
        rows, channels = places_and_channels(program.shape_of(name))
        if len(step.shape) == 1:  # what lies as a vector may be a map's value
            rows, channels = 1, rows * channels
        fixed = ""
        if program.int8:
            factor, offset = step.settings["factors"][i], step.settings["offsets"][i]
            fixed = f"{factor}, INT64_C({offset}), {step.settings['shift']}, "
        found.append(f"put({inside}, {rows}, {channels}, {fixed}{made}, {first}, {step.shape[0]})")
        first += channels
    return found


def _fixed(settings: Any) -> str:
    """The whole numbers of a step that has one factor for all channels."""
    if "shift" not in settings or not ("factor" in settings or "factor_a" in settings):
        return ""
    names = ("zero_a", "zero_b", "factor", "factor_a", "factor_b")
    row = [str(settings[name]) for name in names if name in settings]
    return ", ".join([*row, f"INT64_C({settings['offset']})", str(settings["shift"])]) + ", "


def _made_by(held: dict[str, str], settings: Any) -> str:
    """What turns the sums of a layer into its outputs."""
    if "shift" in settings:
        return f"{held['factor']}, {held['offset']}, {settings['step']}, {settings['shift']}"
    return held["bias"]


def _map(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"(struct map){{{height}, {width}, {channels}}}"


def _window(settings: Any) -> str:
    around = settings.get("dilation", (1, 1))
    numbers = (*settings["kernel"], *settings["stride"], *settings["padding"], *around)
    return f"(struct window){{{', '.join(map(str, numbers))}}}"


def number(value: float) -> str:
    """A float32 as C reads it back: nine digits tell all of them apart."""
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
