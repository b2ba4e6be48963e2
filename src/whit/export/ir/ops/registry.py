"""The operator table and the converters of ATen operators.

To add an operator, add an entry to OPERATORS of a module below, and its kernels. An operator that
only ONNX has is an entry in a module of `tensors/`, and its converters are in CONVERTERS there.
"""

from __future__ import annotations

from whit.export.ir.ops import (
    activation,
    channels,
    constant,
    elementwise,
    layers,
    pooling,
    scale,
    spatial,
)
from whit.export.ir.ops.axes import CONVERTERS, IDENTITIES
from whit.export.ir.ops.operator import Converter, Operator
from whit.export.ir.ops.tensors.convert import TENSOR_OPERATORS

_MODULES = (activation, channels, constant, elementwise, layers, pooling, scale, spatial)
OPERATORS: dict[str, Operator] = {
    operator.kind: operator
    for operators in (*(module.OPERATORS for module in _MODULES), TENSOR_OPERATORS)
    for operator in operators
}
OP_CONVERTERS: dict[str, Converter] = dict(CONVERTERS)
ACCEPTS_EXPANDED = set(IDENTITIES)
for _operator in OPERATORS.values():
    OP_CONVERTERS.update(_operator.converters)
    ACCEPTS_EXPANDED.update(_operator.accepts_expanded)
