"""The operator table and the converters of ATen operators.

To add an operator, add an entry to OPERATORS of a module below, and its kernels.
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

_MODULES = (activation, channels, constant, elementwise, layers, pooling, scale, spatial)
OPERATORS: dict[str, Operator] = {
    operator.kind: operator for module in _MODULES for operator in module.OPERATORS
}
OP_CONVERTERS: dict[str, Converter] = dict(CONVERTERS)
ACCEPTS_EXPANDED = set(IDENTITIES)
for _operator in OPERATORS.values():
    OP_CONVERTERS.update(_operator.converters)
    ACCEPTS_EXPANDED.update(_operator.accepts_expanded)
