"""From a module to plain operations: what torch.export writes down of its forward pass, named.

torch.export lists the ATen operations of one pass in evaluation mode, without views in place and
without Dropout; `aten/` says what each of them is in a graph.
"""

from __future__ import annotations

import operator
import warnings
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from whit.errors import ModelError
from whit.export.ir.graph import INPUT, Graph, Operation, behind
from whit.export.ir.ops.registry import HANDLERS, TAKE_SPREAD
from whit.export.ir.ops.values import BATCH, MAP, Growing, Seen, Spread, Unreadable
from whit.models.layers import Columns, Deskew, Views


def read_graph(
    model: nn.Module, image_shape: tuple[int, int, int], classes: tuple[str, ...], name: str
) -> Graph:
    """Return the operations of `model`'s forward pass in evaluation mode, nothing folded yet.

    Of `Views`, those of one look and the shifts; of `Columns`, those of one after the other;
    `Deskew` in front of all others is one.
    Constants are float64, so that folding loses nothing. Raises ModelError that names every
    operation which has no plain form.
    """
    if isinstance(model, Views):
        graph = read_graph(model.network, image_shape, classes, name)
        if len(graph.shifts) > 1:
            raise ModelError(
                f"{name}: cannot be exported: views of a network with views of its own."
            )
        return replace(graph, shifts=model.shifts)
    if isinstance(model, Columns):
        graphs = [read_graph(column, image_shape, classes, name) for column in model.children()]
        if any(len(graph.shifts) > 1 for graph in graphs):
            raise ModelError(f"{name}: cannot be exported: views of a column alone.")
        return _mean(graphs)
    if isinstance(model, nn.Sequential) and len(model) > 1 and isinstance(model[0], Deskew):
        graph = read_graph(model[1:], image_shape, classes, name)
        if any(op.kind == "deskew" for op in graph.operations):
            raise ModelError(f"{name}: cannot be exported: it deskews what is deskewed.")
        return behind(Operation("upright", "deskew", (INPUT,), image_shape), graph)
    for kind in (Views, Columns):
        if any(isinstance(module, kind) for module in model.modules()):
            raise ModelError(
                f"{name}: cannot be exported: its {kind.__name__} are not around all of it."
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export warns of torch's own parts
            program = torch.export.export(
                model.eval(), (torch.zeros(BATCH, *image_shape),), strict=False
            ).run_decompositions({})
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"{name}: cannot be exported: torch.export finds no fixed list of operations in its "
            f"forward pass ({said[0]})."
        ) from None
    values, growing, problems = _walked(program, image_shape)
    if problems:
        said = [f"{name}: cannot be exported: {problem}." for problem in problems]
        raise ModelError(said) from next(iter(problems.values()))
    last = values[_output(program)]
    if not isinstance(last, Seen) or prod(last.shape) != len(classes):
        raise ModelError(f"{name}: cannot be exported: it does not end in one vector.")
    order = [axis for group in last.axes for axis in group if last.sizes[axis] > 1]
    if order != sorted(order):
        raise ModelError(
            f"{name}: cannot be exported: its logits are the numbers of a map whose dimensions "
            "were exchanged."
        )
    operations = _leading_to(growing.as_vector(last).name, growing.operations)
    used = {constant for op in operations for constant in op.constants.values()}
    constants = {name: value for name, value in growing.constants.items() if name in used}
    return Graph(name, image_shape, classes, operations, constants)


def _mean(columns: list[Graph]) -> Graph:
    """Return the mean of the logits of graphs that read the same image, as one graph."""
    operations: list[Operation] = []
    constants: dict[str, Tensor] = {}
    total = ""
    for number, graph in enumerate(columns, start=1):

        def own(name: str, number: int = number) -> str:
            return name if name == INPUT else f"column{number}_{name}"

        for op in graph.operations:
            held = {role: own(name) for role, name in op.constants.items()}
            inputs = tuple(map(own, op.inputs))
            operations.append(replace(op, name=own(op.name), inputs=inputs, constants=held))
        constants |= {own(name): tensor for name, tensor in graph.constants.items()}
        part, shape = own("part"), operations[-1].shape
        share = torch.full(shape, 1 / len(columns), dtype=torch.float64)
        constants |= {f"{part}.scale": share, f"{part}.offset": torch.zeros_like(share)}
        held = {role: f"{part}.{role}" for role in ("scale", "offset")}
        operations.append(Operation(part, "scale", (operations[-1].name,), shape, {}, held))
        if total:
            operations.append(Operation(own("sum"), "add", (total, part), shape))
        total = operations[-1].name
    return replace(columns[0], operations=tuple(operations), constants=constants)


def _walked(
    program: torch.export.ExportedProgram, image_shape: tuple[int, int, int]
) -> tuple[dict[Node, Any], Growing, dict[str, Unreadable]]:
    """Read a program node by node: what each is, the graph so far, and what cannot be read."""
    signature = program.graph_signature
    stored = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    held = {**program.state_dict, **program.constants}
    values: dict[Node, Any] = {}
    growing = Growing()
    problems: dict[str, Unreadable] = {}  # each once, in their order
    wanted = _behind_it(_output(program))
    changing = set(signature.buffers_to_mutate.values())
    for node in program.graph.nodes:
        if node not in wanted:  # checks, and what a buffer becomes
            continue
        if stored.get(node.name) in changing:
            said = f"its answers depend on {stored[node.name]}, which its forward pass changes"
            problems[said] = Unreadable(said)
        elif node.op == "placeholder" and node.name in stored:
            values[node] = held[stored[node.name]].detach()
        elif node.op == "placeholder":
            values[node] = Seen(INPUT, image_shape, MAP)
        elif all(inside in values for inside in node.all_input_nodes):
            # What reads an unreadable value is not named: it may well be readable itself.
            try:
                values[node] = _value_of(node, values, growing)
            except Unreadable as error:
                problems.setdefault(str(error), error)
    return values, growing, problems


def _output(program: torch.export.ExportedProgram) -> Node:
    """The node of the answer; in the list of outputs, buffers that change stand before it."""
    name = program.graph_signature.user_outputs[0]
    found: Node = next(node for node in program.graph.nodes if node.name == name)
    return found


def _behind_it(output: Node) -> set[Node]:
    """Return a node and all that it depends on."""
    found = {output}
    waiting = [output]
    while waiting:
        new = set(waiting.pop().all_input_nodes) - found
        found |= new
        waiting += new
    return found


def _value_of(node: Node, values: dict[Node, Any], growing: Growing) -> Any:
    if node.target is operator.getitem:
        return values[node.args[0]][node.args[1]]  # type: ignore[index]
    target = str(node.target).removeprefix("aten.")
    name = target.partition(".")[0]
    handler = HANDLERS.get(name)
    said = target.removesuffix(".default")
    if handler is None:
        raise Unreadable(f"it uses {said}, which has no plain form here")
    if name not in TAKE_SPREAD and any(
        isinstance(values[inside], Spread) for inside in node.all_input_nodes
    ):
        raise Unreadable(f"it uses {said} of a value that was expanded")
    given, named = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    try:
        return handler(growing, *given, **named)
    except Unreadable:
        raise
    except Exception as error:  # what a handler did not think of
        raise Unreadable(f"it uses {said} in a way that has no plain form here") from error


def _leading_to(output: str, operations: list[Operation]) -> tuple[Operation, ...]:
    """Keep the operations that an output depends on; it comes last."""
    wanted = {output}
    kept = []
    for op in reversed(operations):
        if op.name in wanted:
            wanted.update(op.inputs)
            kept.append(op)
    assert kept[0].name == output, "the logits must come last"
    return tuple(reversed(kept))
