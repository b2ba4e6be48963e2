"""Captures the forward pass of a module as primitive operations, with torch.export.

torch.export lists the ATen operators of one forward pass in evaluation mode, functionalized and
without dropout; `ops/` converts each of them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from whit.errors import ModelError
from whit.export.ir.conversion_check import check_conversion
from whit.export.ir.graph import INPUT, Graph, Operation, prepend
from whit.export.ir.ops.elementwise import ADD
from whit.export.ir.ops.registry import ACCEPTS_EXPANDED, OP_CONVERTERS
from whit.export.ir.ops.scale import SCALE
from whit.export.ir.ops.spatial import DESKEW
from whit.export.ir.ops.tensors.aten_call import complete_arguments
from whit.export.ir.ops.tensors.convert import TENSOR_CONVERTERS, convert_call
from whit.export.ir.ops.tensors.tensor_layout import as_logits
from whit.export.ir.ops.values import (
    BATCH,
    Expanded,
    GraphBuilder,
    Layout,
    TensorValue,
    UnsupportedOp,
    ValueView,
    operator_name,
    overload_name,
)
from whit.export.ir.problems import Problems, call_site
from whit.models.layers import Deskew, MultiColumn
from whit.models.tta import ShiftTTA

# Of their first argument, these read the shape only.
SHAPE_ONLY = frozenset(
    f"{kind}{what}"
    for kind, what in (
        *(("", f"{each}_like") for each in ("zeros", "ones", "full", "empty", "rand", "randn")),
        *(("new_", each) for each in ("zeros", "ones", "full", "empty")),
    )
)


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
        program = _trace(model, image_shape)
    except Exception as error:
        raise _refuse(name, _explain_failed_trace(error)) from None
    values, builder, problems = _convert_nodes(program, image_shape)
    if problems:
        refused = _refuse(name, *problems.messages())
        supported = problems.supported_operators()
        raise ModelError([*refused.problems, *supported]) from problems.first
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


def _trace(model: nn.Module, image_shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    images = torch.zeros(BATCH, *image_shape)
    with _without_messages(), _without_fast_path():
        try:
            exported = torch.export.export(model.eval(), (images,), strict=False)
        except Exception:
            # Its first forward pass may create what later ones read, such as a buffer.
            warm = deepcopy(model)
            before = {name for name, _ in warm.named_buffers()}
            with torch.no_grad():
                warm(images)
            if {name for name, _ in warm.named_buffers()} == before:
                raise
            exported = torch.export.export(warm, (images,), strict=False)
        program: torch.export.ExportedProgram = exported.run_decompositions({})
        return program


def _explain_failed_trace(error: Exception) -> str:
    """Return why torch.export fails, with the line of the forward pass if its error names it."""
    text = str(error).strip()
    if "data-dependent" not in text:
        first = text.splitlines() or [type(error).__name__]
        return f"torch.export cannot trace its forward pass ({first[0]})"
    lines = re.findall(r'File "([^"\n]+)", line (\d+)', text)
    where = f" ({Path(lines[-1][0]).name}, line {lines[-1][1]})" if lines else ""
    return (
        "its forward pass takes another path for other images, as an `if` or `.item()` of a "
        f"tensor does{where}; an export always computes the same operations"
    )


@contextmanager
def _without_messages() -> Iterator[None]:
    """Hide what torch.export prints about internals of torch; its errors are raised."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


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
) -> tuple[dict[Node, Any], GraphBuilder, Problems]:
    """Convert a program node by node; return values, graph, and unsupported operations.

    What does not depend on the image is computed here, by torch, whatever its operators.
    """
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    stored |= signature.inputs_to_lifted_tensor_constants
    tensors = {**program.state_dict, **program.constants}
    values: dict[Node, Any] = {}
    builder = GraphBuilder()
    problems = Problems()
    needed = _with_dependencies(_output_node(program))
    changing = set(signature.buffers_to_mutate.values())
    variable: set[Node] = set()  # nodes that depend on the image
    folded: dict[str, Any] = {}  # so that a constant computed twice is stored once
    for node in program.graph.nodes:
        if node not in needed:  # assertions and buffer updates
            continue
        builder.site = call_site(node)
        try:
            if stored.get(node.name) in changing:
                changed = f"the buffer {stored[node.name]}, which its forward pass modifies"
                raise UnsupportedOp(f"its output depends on {changed}")
            if node.op == "placeholder" and node.name in stored:
                values[node] = tensors[stored[node.name]].detach()
            elif node.op == "placeholder":
                values[node] = ValueView(INPUT, image_shape, Layout.MAP)
                variable.add(node)
            elif all(inside in values for inside in node.all_input_nodes):
                # Consumers of an unsupported value are not reported: they may be supported.
                if variable.isdisjoint(node.all_input_nodes):
                    values[node] = _fold(node, values, folded)
                elif operator_name(node) in SHAPE_ONLY:
                    values[node] = _fold_shape_only(node, values)
                else:
                    first = len(builder.operations)
                    values[node], is_onnx_only = _convert_for_any_target(node, values, builder)
                    variable.add(node)
                    if not is_onnx_only:
                        check_conversion(node, values, builder, first)
        except UnsupportedOp as error:
            problems.add(error, node)
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


def _fold(node: Node, values: dict[Node, Any], folded: dict[str, Any]) -> Any:
    """Compute a node that depends on constants only; equal computations share their result."""
    _require_deterministic(node)
    given = torch.fx.node.map_arg((node.args, node.kwargs), lambda each: f"#{id(values[each])}")
    key = f"{node.target} {given}"
    if key not in folded:
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        with torch.no_grad():
            folded[key] = node.target(*args, **kwargs)  # type: ignore[operator]
    return folded[key]


def _draws_random_numbers(node: Node) -> bool:
    """Whether an operator draws random numbers with these arguments: dropout in training does."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    positional, named = complete_arguments(node.target, node.args, node.kwargs)  # type: ignore[arg-type]
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    names = [each.name for each in schema if not each.kwarg_only]
    given = {**dict(zip(names, positional, strict=False)), **named}
    is_training = given.get("training", given.get("train"))
    return is_training is not False and given.get("dropout_p", given.get("p")) != 0


def _require_deterministic(node: Node) -> None:
    if _draws_random_numbers(node):
        raise UnsupportedOp(
            f"the operator {operator_name(node)} draws random numbers in evaluation mode, so no "
            "export can equal the model"
        )


def _fold_shape_only(node: Node, values: dict[Node, Any]) -> Any:
    """Compute a node that reads only the shape of values that depend on the image."""
    constants = {
        inside: value
        if isinstance(value := values[inside], Tensor)
        else torch.zeros(inside.meta["val"].shape, dtype=inside.meta["val"].dtype)
        for inside in node.all_input_nodes
    }
    return _fold(node, constants, {})


def _convert_for_any_target(
    node: Node, values: dict[Node, Any], builder: GraphBuilder
) -> tuple[Any, bool]:
    """Convert a call for all targets or, where that is impossible, for ONNX alone.

    Return also whether it is for ONNX alone.
    """
    problem, name = None, operator_name(node)
    tensors = [each for each in node.all_input_nodes if isinstance(values[each], TensorValue)]
    # Of such a tensor, an operator that all targets have is no reason to refuse: its input is.
    if not tensors or (node.target is not operator.getitem and name not in OP_CONVERTERS):
        try:
            return _convert(node, values, builder), False
        except UnsupportedOp as error:
            problem = error
    if problem is not None and name not in TENSOR_CONVERTERS:
        raise problem
    return convert_call(builder, node, values, str(problem or "")), True


def _convert(node: Node, values: dict[Node, Any], builder: GraphBuilder) -> Any:
    if node.target is operator.getitem:
        source, index = node.args
        value = values[source][index]  # type: ignore[index]
        if value is None:
            text = overload_name(source)  # type: ignore[arg-type]
            raise UnsupportedOp(f"output {index} of the operator {text} is not supported")
        return value
    text, name = overload_name(node), operator_name(node)
    converter = OP_CONVERTERS.get(text) or OP_CONVERTERS.get(name)
    if converter is None:
        if name not in TENSOR_CONVERTERS:  # of which some draw numbers in training only
            _require_deterministic(node)
        raise UnsupportedOp(f"the operator {text} is not supported", is_operator=True)
    if name not in ACCEPTS_EXPANDED and any(
        isinstance(values[inside], Expanded) for inside in node.all_input_nodes
    ):
        raise UnsupportedOp(f"the operator {text} is not supported on an expanded tensor")
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    positional, named = complete_arguments(node.target, args, kwargs)  # type: ignore[arg-type]
    try:
        return converter(builder, *positional, **named)
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
