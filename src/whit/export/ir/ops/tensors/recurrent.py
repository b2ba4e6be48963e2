"""Recurrent layers: RNN, GRU and LSTM, of several layers and both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whit.export.ir.graph import Operation
from whit.export.ir.ops.operator import Constants, Converter
from whit.export.ir.ops.tensors.aten_call import Call
from whit.export.ir.ops.tensors.indexing import CONCAT, gather, reshape, slice_range, transpose
from whit.export.ir.ops.tensors.tensor_layout import as_tensor
from whit.export.ir.ops.tensors.tensor_operator import TensorOperator
from whit.export.ir.ops.values import TensorValue, UnsupportedOp
from whit.export.onnx import OnnxWriter


@dataclass(frozen=True)
class _Cell:
    """A kind of recurrent layer.

    run: torch's function of input, initial states, parameters and settings.
    gates: the position of each of ONNX's gates among torch's.
    """

    run: Callable[..., Any]
    onnx: str
    gates: tuple[int, ...]
    activation: str = ""
    settings: Mapping[str, int] = field(default_factory=dict)


_CELLS = {
    "rnn_tanh": _Cell(torch.rnn_tanh, "RNN", (0,), "Tanh"),
    "rnn_relu": _Cell(torch.rnn_relu, "RNN", (0,), "Relu"),
    "gru": _Cell(torch.gru, "GRU", (1, 0, 2), settings={"linear_before_reset": 1}),
    "lstm": _Cell(torch.lstm, "LSTM", (0, 3, 1, 2)),
}
_ROLES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _names(op: Operation) -> list[list[str]]:
    """The roles of the parameters of each direction."""
    return [
        [f"{role}{side}" for role in _ROLES if f"{role}{side}" in op.constants]
        for side in ("", "_reverse")[: op.attributes["directions"]]
    ]


def _run(op: Operation, inputs: list[Tensor], constants: Constants) -> Tensor:
    steps, *initial = inputs
    hidden, directions = op.attributes["hidden"], op.attributes["directions"]
    is_lstm = op.attributes["cell"] == "lstm"
    zeros = steps.new_zeros(directions, steps.shape[1], hidden)
    states = initial or [zeros] * (1 + is_lstm)
    roles = _names(op)
    output, *last = _CELLS[op.attributes["cell"]].run(
        *(steps, states if is_lstm else states[0]),
        [constants[role] for each in roles for role in each],
        *(len(roles[0]) == 4, 1, 0.0, False, directions == 2, False),
    )
    if op.attributes["returns"] == "cell":
        cells: Tensor = last[1]
        return cells
    by_direction: Tensor = output.unflatten(2, (directions, hidden)).transpose(1, 2)
    return by_direction


def _write(writer: OnnxWriter, op: Operation) -> None:
    cell, roles = _CELLS[op.attributes["cell"]], _names(op)

    def stack(kind: str) -> str:
        """Store the parameters of both directions, their gates in ONNX's order."""
        each, names = [], []
        for direction in roles:
            stored = [op.constants[role] for role in direction if role.startswith(kind)]
            parts = (writer.graph.constants[name].chunk(len(cell.gates)) for name in stored)
            each.append(torch.cat([part[gate] for part in parts for gate in cell.gates]))
            names += stored
        values = torch.stack(each).numpy()
        return writer.array(f"{cell.onnx}:{'+'.join(names)}", values, np.float32)

    steps, *initial = op.inputs
    bias = stack("bias") if len(roles[0]) == 4 else ""
    inputs = [steps, stack("weight_ih"), stack("weight_hh"), bias]
    inputs += ["", *initial] if initial else []
    while not inputs[-1]:
        inputs.pop()
    is_cell = op.attributes["returns"] == "cell"
    for node in writer.nodes if is_cell else ():
        if node.op_type == cell.onnx and list(node.input) == inputs:  # also returns the steps
            node.output[:] = [node.output[0], "", op.name]
            return
    settings: dict[str, Any] = {**cell.settings, "hidden_size": op.attributes["hidden"]}
    settings["direction"] = "bidirectional" if len(roles) == 2 else "forward"
    if cell.activation:
        settings["activations"] = [cell.activation] * len(roles)
    writer.node(cell.onnx, op.name, *inputs, **settings)
    if is_cell:
        writer.nodes[-1].output[:] = ["", "", op.name]


def _num_macs(op: Operation, constants: Constants) -> int:
    weights = (name for role, name in op.constants.items() if role.startswith("weight"))
    return int(op.attributes["positions"]) * sum(constants[name].numel() for name in weights)


# One layer. Input (T, N, I), and if given the initial states (D, N, H), two of an LSTM; output
# (T, D, N, H), or the last cell states (D, N, H). Attributes cell; hidden: H; directions: D;
# returns: "steps" or "cell"; positions: steps per image. Constants weight_ih and weight_hh, bias_ih
# and bias_hh if any; names end in _reverse for the second direction.
RECURRENT = TensorOperator(
    kind="recurrent", stem="recurrent", run=_run, onnx=_write, num_macs=_num_macs
)


def _recurrent(call: Call) -> list[TensorValue]:
    cell = call.name.partition(".")[0]
    if "data" in call.arguments:
        raise UnsupportedOp(f"{cell} of a packed sequence is not supported")
    layers, directions = call["num_layers"], 1 + call["bidirectional"]
    if call["dropout"] and call["train"]:
        raise UnsupportedOp(f"{cell} with dropout in evaluation mode is not supported")
    per_direction = 4 if call["has_biases"] else 2
    parameters = call["params"]
    if not all(isinstance(each, Tensor) for each in parameters):
        raise UnsupportedOp(f"{cell} is supported with constant parameters only")
    if len(parameters) != layers * directions * per_direction:
        raise UnsupportedOp(f"{cell} with proj_size is not supported")
    value = call.tensor("input")
    if len(value.sizes) != 3:
        raise UnsupportedOp(f"{cell} of a sequence without a batch dimension is not supported")
    if call["batch_first"]:
        value = transpose(call, value, (1, 0, 2))
    if value.sizes[1] > 0:
        raise UnsupportedOp(
            f"{cell} over the images of a batch is not supported: is batch_first right?"
        )
    states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    hidden = parameters[1].shape[1]
    lasts: list[list[TensorValue]] = [[] for _ in states]
    for layer in range(layers):
        first = layer * directions
        taken = parameters[first * per_direction : (first + directions) * per_direction]
        constants = {
            f"{_ROLES[i % per_direction]}{'_reverse' * (i >= per_direction)}": each
            for i, each in enumerate(taken)
        }
        steps, batch = value.sizes[0], value.sizes[1]
        settings = {
            "cell": cell,
            "hidden": hidden,
            "directions": directions,
            "returns": "steps",
            "positions": -steps * batch,
        }
        operands = [value, *_initial(call, states, first, directions)]
        output = call.add(
            RECURRENT, operands, (steps, directions, batch, hidden), settings, constants
        )
        for direction in range(directions):  # the last step: of the second direction, the first
            step = gather(call, output, 0, 0 if direction else steps - 1)
            last = gather(call, step, 0, direction)
            lasts[0].append(reshape(call, last, (1, batch, hidden)))
        if len(states) == 2:
            settings = {**settings, "returns": "cell"}
            sizes = (directions, batch, hidden)
            lasts[1].append(call.add(RECURRENT, operands, sizes, settings, constants))
        if directions == 2:
            output = transpose(call, output, (0, 2, 1, 3))
        value = reshape(call, output, (steps, batch, directions * hidden))
    ends = [
        call.add(CONCAT, each, (layers * directions, *each[0].sizes[1:]), {"dim": 0})
        for each in lasts
    ]
    return [transpose(call, value, (1, 0, 2)) if call["batch_first"] else value, *ends]


def _initial(call: Call, states: Sequence[Any], first: int, count: int) -> list[TensorValue]:
    """Return the initial states of a layer; none if all are zero."""
    if all(isinstance(each, Tensor) and not each.any() for each in states):
        return []
    found = []
    for each in states:
        if isinstance(each, Tensor):
            found.append(as_tensor(call.builder, each[first : first + count]))
        else:
            value = as_tensor(call.builder, each)
            found.append(slice_range(call, value, 0, first, first + count))
    return found


def _cell(call: Call) -> Any:
    """One step: a layer over a sequence of length 1."""
    kind = call.name.removesuffix("_cell")
    value = call.tensor("input")
    if len(value.sizes) != 2 or value.sizes[0] > 0:
        raise UnsupportedOp(f"{call.name} without a batch dimension is not supported")
    constants = {
        role: call.constant(name)
        for role, name in zip(_ROLES, ("w_ih", "w_hh", "b_ih", "b_hh"), strict=True)
    }
    assert constants["weight_hh"] is not None
    hidden, batch = constants["weight_hh"].shape[1], value.sizes[0]
    states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    operands = [reshape(call, value, (1, *value.sizes))]
    if not all(isinstance(each, Tensor) and not each.any() for each in states):
        for each in states:
            state = as_tensor(call.builder, each)
            operands.append(reshape(call, state, (1, *state.sizes)))
    settings = {
        "cell": kind,
        "hidden": hidden,
        "directions": 1,
        "returns": "steps",
        "positions": -batch,
    }
    steps = call.add(RECURRENT, operands, (1, 1, batch, hidden), settings, constants)
    output = reshape(call, steps, (batch, hidden))
    if kind != "lstm":
        return output
    settings = {**settings, "returns": "cell"}
    cells = call.add(RECURRENT, operands, (1, batch, hidden), settings, constants)
    return [output, reshape(call, cells, (batch, hidden))]


CONVERTERS: dict[str, Converter] = {
    **dict.fromkeys(_CELLS, _recurrent),
    **dict.fromkeys((f"{cell}_cell" for cell in _CELLS), _cell),
}
OPERATORS = (RECURRENT,)
