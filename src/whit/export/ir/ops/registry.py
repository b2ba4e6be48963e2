"""Which ATen operation is read by what: arguments as torch.export writes them, values as `Seen`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from whit.export.ir.ops import axes, elementwise, layers
from whit.export.ir.ops.values import Unreadable

_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": elementwise.activation("relu"),
    "relu6": elementwise.activation("relu6"),
    "hardtanh": elementwise.activation("clamp"),
    "clamp": elementwise.activation("clamp"),
    "clamp_min": elementwise.activation("clamp"),
    "leaky_relu": elementwise.activation("leaky_relu", slope=0.01),
    "prelu": elementwise.activation("prelu"),
    "_prelu_kernel": elementwise.activation("prelu"),
    "elu": elementwise.activation("elu", slope=1.0),
    "gelu": elementwise.activation("gelu"),
    "silu": elementwise.activation("silu"),
    "hardswish": elementwise.activation("hardswish"),
    "hardsigmoid": elementwise.activation("hardsigmoid"),
    "sigmoid": elementwise.activation("sigmoid"),
    "tanh": elementwise.activation("tanh"),
}
HANDLERS: dict[str, Callable[..., Any]] = {
    "conv2d": layers.conv,
    "linear": layers.linear,
    "addmm": layers.addmm,
    "mm": layers.matmul,
    "matmul": layers.matmul,
    "_native_batch_norm_legit_no_training": layers.batch_norm,
    "max_pool2d": layers.max_pool,
    "avg_pool2d": layers.avg_pool,
    "adaptive_avg_pool2d": layers.adaptive("avgpool"),
    "adaptive_max_pool2d": layers.adaptive("maxpool"),
    "mean": layers.mean,
    "sum": layers.total,
    "amax": layers.amax,
    "view": axes.view,
    "_unsafe_view": axes.view,
    "reshape": axes.view,
    "permute": axes.permute,
    "transpose": axes.transpose,
    "t": lambda graph, value: axes.transpose(graph, value, 0, 1),
    "expand": axes.expand,
    "select": axes.select,
    "squeeze": axes.squeeze,
    "unsqueeze": axes.unsqueeze,
    "clone": axes.same,
    "contiguous": axes.same,
    "alias": axes.same,
    "detach": axes.same,
    "_to_copy": axes.cast,
    "dropout": axes.same,
    "feature_dropout": axes.same,
    "constant_pad_nd": axes.pad,
    "pad": lambda graph, value, around, mode="constant", fill=None: (
        axes.pad(graph, value, around, fill or 0.0)
        if mode == "constant"
        else _refuse(f"it uses padding by {mode}")
    ),
    "add": elementwise.binary("add"),
    "sub": elementwise.binary("subtract"),
    "rsub": lambda graph, a, b, alpha=1: elementwise.binary("subtract")(graph, b, a, alpha),
    "mul": elementwise.binary("multiply"),
    "neg": lambda graph, value: elementwise.binary("multiply")(graph, value, -1.0),
    "square": lambda graph, value: elementwise.binary("multiply")(graph, value, value),
    "pow": lambda graph, value, exponent: (
        elementwise.binary("multiply")(graph, value, value)
        if exponent == 2
        else _refuse(f"it uses a power of {exponent}")
    ),
    "div": elementwise.div,
    "cat": axes.concat,
    "split": axes.split,
    "split_with_sizes": axes.split,
    "slice": axes.slice,
    "softmax": elementwise.softmax("softmax"),
    "_softmax": elementwise.softmax("softmax"),
    "log_softmax": elementwise.softmax("log_softmax"),
    "_log_softmax": elementwise.softmax("log_softmax"),
    **_ACTIVATIONS,
}

# What may read a value that was expanded: what repeats it by itself, or leaves it as it is.
TAKE_SPREAD = {
    *("add", "sub", "rsub", "mul", "neg", "clone", "contiguous", "alias", "detach", "_to_copy"),
    *_ACTIVATIONS,
}


def _refuse(why: str) -> Any:
    raise Unreadable(why)
