"""Captures the forward pass of a module as primitive operations, with torch.export.

torch.export lists the ATen operators of one forward pass in evaluation mode, functionalized and
without dropout; `ops/` converts each of them.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from whit.errors import ModelError
from whit.export.ir.graph import INPUT, Graph, Operation, prepend
from whit.export.ir.ops.elementwise import ADD
from whit.export.ir.ops.registry import ACCEPTS_EXPANDED, OP_CONVERTERS
from whit.export.ir.ops.scale import SCALE
from whit.export.ir.ops.spatial import DESKEW
from whit.export.ir.ops.tensors.convert import convert_call
from whit.export.ir.ops.tensors.tensor_layout import as_logits
from whit.export.ir.ops.values import (
    BATCH,
    Expanded,
    GraphBuilder,
    Layout,
    TensorValue,
    UnsupportedOp,
    ValueView,
)
from whit.models.layers import Deskew, MultiColumn
from whit.models.tta import ShiftTTA


def capture_graph(
    model: nn.Module, image_shape: tuple[int, int, int], classes: tuple[str, ...], name: str
) -> Graph:
    """Return the operations of `model`'s forward pass in evaluation mode, nothing fused yet.

    `ShiftTTA` becomes the shifts of the graph, `MultiColumn` its columns in sequence, and `Deskew`
    as the first layer one operation. Constants are float64, so that fusion is accurate. Raises
    ModelError naming every operation that is not supported.
    """
    if isinstance(model, ShiftTTA):
        graph = capture_graph(model.network, image_shape, classes, name)
        if len(graph.shifts) > 1:
            raise _refuse(
                name, "test-time augmentation within test-time augmentation is not supported"
            )
        return replace(graph, shifts=model.shifts)
    if isinstance(model, MultiColumn):
        graphs = [capture_graph(column, image_shape, classes, name) for column in model.children()]
        if any(len(graph.shifts) > 1 for graph in graphs):
            raise _refuse(name, "test-time augmentation of a single column is not supported")
        return _mean_of_columns(graphs)
    if isinstance(model, nn.Sequential) and len(model) > 1 and isinstance(model[0], Deskew):
        graph = capture_graph(model[1:], image_shape, classes, name)
        if any(op.operator is DESKEW for op in graph.operations):
            raise _refuse(name, "it deskews its input twice")
        return prepend(Operation("deskew1", DESKEW, (INPUT,), image_shape), graph)
    for kind, text in ((ShiftTTA, "test-time augmentation"), (MultiColumn, "multi-column network")):
        if any(isinstance(module, kind) for module in model.modules()):
            raise _refuse(name, f"its {text} is not the outermost module")
    try:
        with warnings.catch_warnings(), _without_fast_path():
            warnings.simplefilter("ignore")  # torch.export warns about internals of torch
            images = torch.empty(BATCH, *image_shape)  # never read
            exported = torch.export.export(model.eval(), (images,), strict=False)
            program = exported.run_decompositions({})
    except Exception as error:
        message = str(error).strip().splitlines() or [type(error).__name__]
        why = f"torch.export cannot trace its forward pass ({message[0]})"
        raise _refuse(name, why) from None
    values, builder, problems = _convert_nodes(program, image_shape)
    if problems:
        raise _refuse(name, *problems) from next(iter(problems.values()))
    last = values[_output_node(program)]
    if isinstance(last, TensorValue):
        last = as_logits(builder, last)
    if not isinstance(last, ValueView) or prod(last.shape) != len(classes):
        why = f"its output is not one vector of {len(classes)} logits per image"
        raise _refuse(name, why)
    order = [axis for group in last.axes for axis in group if last.sizes[axis] > 1]
    if order != sorted(order):
        why = "its logits are a flattened map whose dimensions were permuted"
        raise _refuse(name, why)
    operations = _prune(builder.as_vector(last).name, builder.operations)
    used = {constant for op in operations for constant in op.constants.values()}
    constants = {name: value for name, value in builder.constants.items() if name in used}
    return Graph(name, image_shape, classes, operations, constants)


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Let attention be captured as its primitive operators, also if no gradients are needed."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _refuse(name: str, *reasons: str) -> ModelError:
    return ModelError([f"{name}: cannot be exported: {reason}." for reason in reasons])


def _mean_of_columns(columns: list[Graph]) -> Graph:
    """Return one graph that averages the logits of graphs of the same image."""
    operations: list[Operation] = []
    constants: dict[str, Tensor] = {}
    total = ""
    for number, graph in enumerate(columns, start=1):

        def in_column(name: str, number: int = number) -> str:
            return name if name == INPUT else f"column{number}_{name}"

        for op in graph.operations:
            named = {role: in_column(name) for role, name in op.constants.items()}
            inputs = tuple(map(in_column, op.inputs))
            operations.append(replace(op, name=in_column(op.name), inputs=inputs, constants=named))
        constants |= {in_column(name): tensor for name, tensor in graph.constants.items()}
        part, shape = in_column("weighted"), operations[-1].shape
        weight = torch.full(shape, 1 / len(columns), dtype=torch.float64)
        constants |= {f"{part}.scale": weight, f"{part}.offset": torch.zeros_like(weight)}
        named = {role: f"{part}.{role}" for role in ("scale", "offset")}
        operations.append(Operation(part, SCALE, (operations[-1].name,), shape, {}, named))
        if total:
            operations.append(Operation(in_column("sum"), ADD, (total, part), shape))
        total = operations[-1].name
    return replace(columns[0], operations=tuple(operations), constants=constants)


def _convert_nodes(
    program: torch.export.ExportedProgram, image_shape: tuple[int, int, int]
) -> tuple[dict[Node, Any], GraphBuilder, dict[str, UnsupportedOp]]:
    """Convert a program node by node; return values, graph, and unsupported operations."""
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    stored |= signature.inputs_to_lifted_tensor_constants
    tensors = {**program.state_dict, **program.constants}
    values: dict[Node, Any] = {}
    builder = GraphBuilder()
    problems: dict[str, UnsupportedOp] = {}  # each message once, in order
    needed = _with_dependencies(_output_node(program))
    changing = set(signature.buffers_to_mutate.values())
    for node in program.graph.nodes:
        if node not in needed:  # assertions and buffer updates
            continue
        if stored.get(node.name) in changing:
            changed = f"the buffer {stored[node.name]}, which its forward pass modifies"
            message = f"its output depends on {changed}"
            problems[message] = UnsupportedOp(message)
        elif node.op == "placeholder" and node.name in stored:
            values[node] = tensors[stored[node.name]].detach()
        elif node.op == "placeholder":
            values[node] = ValueView(INPUT, image_shape, Layout.MAP)
        elif all(inside in values for inside in node.all_input_nodes):
            # Consumers of an unsupported value are not reported: they may be supported.
            try:
                values[node] = _convert_for_any_target(node, values, builder)
            except UnsupportedOp as error:
                problems.setdefault(str(error), error)
    return values, builder, problems


def _output_node(program: torch.export.ExportedProgram) -> Node:
    """The node of the model's output; modified buffers precede it in the list of outputs."""
    name = program.graph_signature.user_outputs[0]
    node: Node = next(node for node in program.graph.nodes if node.name == name)
    return node


def _with_dependencies(output: Node) -> set[Node]:
    """Return a node and all nodes that it depends on."""
    needed, waiting = {output}, [output]
    while waiting:
        new = set(waiting.pop().all_input_nodes) - needed
        needed |= new
        waiting += new
    return needed


def _convert_for_any_target(node: Node, values: dict[Node, Any], builder: GraphBuilder) -> Any:
    """Convert a call for all targets or, where that is impossible, for ONNX alone."""
    problem = None
    tensors = [each for each in node.all_input_nodes if isinstance(values[each], TensorValue)]
    # Of such a tensor, an operator that all targets have is no reason to refuse: its input is.
    if not tensors or (node.target is not operator.getitem and _name(node) not in OP_CONVERTERS):
        try:
            return _convert(node, values, builder)
        except UnsupportedOp as error:
            problem = error
    try:
        return convert_call(builder, node, values, str(problem or ""))
    except UnsupportedOp as error:
        if problem is None or str(error) != str(problem):
            raise
    raise problem


def _name(node: Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _convert(node: Node, values: dict[Node, Any], builder: GraphBuilder) -> Any:
    if node.target is operator.getitem:
        return values[node.args[0]][node.args[1]]  # type: ignore[index]
    target = str(node.target).removeprefix("aten.")
    name = _name(node)
    converter = OP_CONVERTERS.get(name)
    text = target.removesuffix(".default")
    if converter is None:
        raise UnsupportedOp(f"the operator {text} is not supported")
    if name not in ACCEPTS_EXPANDED and any(
        isinstance(values[inside], Expanded) for inside in node.all_input_nodes
    ):
        raise UnsupportedOp(f"the operator {text} is not supported on an expanded tensor")
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    try:
        return converter(builder, *args, **kwargs)
    except UnsupportedOp:
        raise
    except Exception as error:  # what the converter does not handle
        raise UnsupportedOp(f"the operator {text} is not supported with these arguments") from error


def _prune(output: str, operations: list[Operation]) -> tuple[Operation, ...]:
    """Keep the operations that an output depends on; it must be the last one."""
    needed, kept = {output}, []
    for op in reversed(operations):
        if op.name in needed:
            needed.update(op.inputs)
            kept.append(op)
    assert kept[0].name == output, "the last operation must compute the logits"
    return tuple(reversed(kept))
