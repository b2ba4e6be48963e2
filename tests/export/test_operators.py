"""Every operator with every kind of argument: interpreter, C, int8 and ONNX equal torch."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.operator_cases import CASES, REFUSED, SHAPE, Function
from whit.errors import ModelError
from whit.export.c.compile import STRICT_FLAGS, classify_each
from whit.export.c.float_lowering import float_program
from whit.export.c.names import c_name
from whit.export.c.source import c_files
from whit.export.ir import capture
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.ir.graph import Graph
from whit.export.ir.interpreter import run_logits
from whit.export.ir.ops import registry
from whit.export.ir.support import require_supported
from whit.export.onnx import onnx_bytes, onnx_logits
from whit.export.program import LOGIT_SCALE, Program
from whit.export.quantization.quantize import quantize
from whit.export.quantization.reference import int8_logits

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
IMAGES = torch.randint(
    0, 256, (6, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
# Where a result lies in memory is no part of a graph.
PLACEMENT = {"memory_format", "layout", "device", "pin_memory", "non_blocking"}
NEVER_DIFFERENT = {("aten.expand.default", "implicit")}  # set by torch.jit only
# torch.export may replace these by others, depending on its version.
REPLACED = {"alpha_dropout", "contiguous", "dropout", "feature_dropout", "reshape", "t"}


class Layer(nn.Module):
    """One function."""

    def __init__(self, function: Function):
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


class Together(nn.Module):
    """Several functions of values from -32 to 32, so that torch.export runs once for all."""

    def __init__(self, functions: Sequence[Function]):
        super().__init__()
        self.case = nn.ModuleList(map(Layer, functions))

    def forward(self, images: Tensor) -> list[Tensor]:
        values = (images - 128) / 4
        return [case(values).flatten(1) for case in self.case]


class Capture:
    """Captures the functions of one program, each as a graph of its own."""

    def __init__(self, functions: Mapping[str, Function]):
        self.names = list(functions)
        self.model = Together(list(functions.values())).eval()
        self.program = capture._trace(self.model, SHAPE)
        with torch.inference_mode():
            self.expected = dict(zip(functions, self.model(IMAGES.float()), strict=True))

    def graph(self, name: str) -> Graph:
        """Raises ModelError."""
        output = self.program.graph_signature.user_outputs[self.names.index(name)]
        (node,) = (each for each in self.program.graph.nodes if each.name == output)
        classes = tuple(map(str, range(self.expected[name].shape[1])))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(capture, "_trace", lambda *given: self.program)
            patch.setattr(capture, "_output_node", lambda program: node)
            return fuse(capture_graph(self.model, SHAPE, classes, name))


@dataclass(frozen=True)
class Call:
    """A call of an ATen operator, with all its arguments by name."""

    converter: str
    operator: Any
    arguments: Mapping[str, Any]


class Captured:
    """The graphs of all cases, their expected logits, and every call in them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.messages: dict[str, str] = {}
        self.onnx_alone: dict[str, tuple[Graph, Tensor]] = {}
        complete = capture.complete_arguments

        def record(target: Any, args: Any, kwargs: Any) -> Any:
            positional, named = complete(target, args, kwargs)
            names = [each.name for each in target._schema.arguments if not each.kwarg_only]
            arguments = {**dict(zip(names, positional, strict=True)), **named}
            full = str(target).removeprefix("aten.").removesuffix(".default")
            found = full if full in registry.OP_CONVERTERS else full.partition(".")[0]
            if found in registry.OP_CONVERTERS:  # others are asked whether they draw numbers
                self.calls.append(Call(found, target, arguments))
            return positional, named

        accepted = Capture(CASES)
        refused = Capture({name: function for name, (function, _) in REFUSED.items()})
        self.expected = {name: each.float() for name, each in accepted.expected.items()}
        self.accepted = accepted
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(capture, "complete_arguments", record)
            self.graphs = {name: accepted.graph(name) for name in CASES}
            for name in REFUSED:
                self.messages[name] = self._refuse(refused, name)

    def _refuse(self, refused: Capture, name: str) -> str:
        """Return why C does not support a function; keep its graph where ONNX does."""
        try:
            graph = refused.graph(name)
            self.onnx_alone[name] = graph, refused.expected[name].float()
            require_supported(graph, "c")
        except ModelError as error:
            return str(error)
        pytest.fail(f"{name} is exported to C")


@pytest.fixture(scope="module")
def captured() -> Captured:
    return Captured()


@pytest.fixture(scope="module")
def int8(captured: Captured) -> dict[str, Program]:
    return {name: quantize(graph, IMAGES).program for name, graph in captured.graphs.items()}


@pytest.fixture(scope="module")
def compiled(
    captured: Captured, int8: dict[str, Program], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, bool], Tensor]:
    """The logits of every case by compiled C code, in float32 and int8, from one library."""
    folder = tmp_path_factory.mktemp("operators")
    programs = {(name, False): float_program(graph) for name, graph in captured.graphs.items()}
    programs |= {(name, True): program for name, program in int8.items()}
    prefixes = {key: f"n{i}_{c_name(key[0])}"[:60].rstrip("_") for i, key in enumerate(programs)}
    for key, program in programs.items():
        for file, content in c_files(program, "One operator.", prefixes[key]).items():
            (folder / file).write_bytes(content)
    sources = [f"{prefix}.c" for prefix in prefixes.values()]
    command = ["cc", *STRICT_FLAGS, "-O0", "-shared", "-fPIC", "-o", "all.so", *sources, "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return {
        key: torch.from_numpy(classify_each(folder / "all.so", prefixes[key], program, IMAGES))
        for key, program in programs.items()
    }


def near(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    largest = theirs.abs().nan_to_num(nan=0, posinf=0).amax(1, keepdim=True)
    close = (ours - theirs).abs() <= 1e-5 * (1 + largest)
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())  # infinite, or no number
    return bool((close | same).all())


@pytest.mark.parametrize("name", CASES)
def test_the_interpreter_computes_what_torch_does(name: str, captured: Captured) -> None:
    assert near(run_logits(captured.graphs[name], IMAGES), captured.expected[name])


@needs_cc
@pytest.mark.parametrize("name", CASES)
def test_c_computes_what_torch_does(
    name: str, captured: Captured, compiled: dict[tuple[str, bool], Tensor]
) -> None:
    assert near(compiled[name, False], captured.expected[name])


@pytest.mark.parametrize("name", CASES)
def test_onnx_computes_what_torch_does(name: str, captured: Captured) -> None:
    found = onnx_logits(onnx_bytes(captured.graphs[name]), IMAGES)
    assert near(found, captured.expected[name])


@needs_cc
@pytest.mark.parametrize("name", CASES)
def test_int8_approximates_torch_and_c_equals_numpy(
    name: str,
    captured: Captured,
    int8: dict[str, Program],
    compiled: dict[tuple[str, bool], Tensor],
) -> None:
    logits = torch.from_numpy(int8_logits(int8[name], IMAGES))
    assert torch.equal(compiled[name, True].long(), logits)
    last, found = captured.graphs[name].operations[-1], (logits / LOGIT_SCALE).float()
    if last.operator.keeps_argmax:  # omitted in int8
        found = last.operator.run(last, [found], {})
    expected = captured.expected[name]
    spread = (expected - expected.mean()).abs().max()
    assert (found - expected).square().mean().sqrt() <= 0.03 * spread


def test_every_operator_of_the_registry_is_exercised(captured: Captured) -> None:
    """A new converter needs a case."""
    assert {call.converter for call in captured.calls} | REPLACED == set(registry.OP_CONVERTERS)


def test_every_default_is_exercised_with_its_value_and_another(captured: Captured) -> None:
    values: dict[tuple[str, str], set[bool]] = defaultdict(set)
    for call in captured.calls:
        for argument in call.operator._schema.arguments:
            if argument.has_default_value() and argument.name not in PLACEMENT:
                given = call.arguments[argument.name]
                is_default = normal(given) == normal(argument.default_value)
                values[str(call.operator), argument.name].add(is_default)
    missing = {key for key, found in values.items() if len(found) < 2}
    assert missing == NEVER_DIFFERENT


def normal(value: Any) -> Any:
    """A value to be compared: torch accepts one number for a pair."""
    if isinstance(value, Tensor):
        return "a tensor"
    return (set(value) or "empty") if isinstance(value, list | tuple) else {value}


@pytest.mark.parametrize("name", REFUSED)
def test_other_arguments_are_refused_by_name(name: str, captured: Captured) -> None:
    message = captured.messages[name]
    assert re.search(REFUSED[name][1], message), message
    assert f"(layer case.{list(REFUSED).index(name)} (Layer)" in message


def test_onnx_computes_what_others_refuse(captured: Captured) -> None:
    assert captured.onnx_alone
    for name, (graph, expected) in captured.onnx_alone.items():
        assert near(onnx_logits(onnx_bytes(graph), IMAGES), expected), name
        assert near(run_logits(graph, IMAGES), expected), name


def test_omitted_arguments_are_completed_from_the_schema() -> None:
    aten = torch.ops.aten
    complete = capture.complete_arguments
    assert complete(aten.hardtanh.default, ["x", 0], {}) == (["x", 0, 1], {})
    assert complete(aten.add.Tensor, ["x", "y"], {}) == (["x", "y"], {"alpha": 1})
    assert complete(aten.sum.dim_IntList, ["x", [2]], {"keepdim": True}) == (
        ["x", [2], True],
        {"dtype": None},
    )


# By case: the converter that is made wrong, and the arguments that it then ignores, by position.
WRONG: dict[str, tuple[str, dict[int, Any]]] = {
    "hardtanh 0 1": ("hardtanh", {2: None}),
    "hardtanh after sigmoid": ("hardtanh", {2: None}),
    "hardtanh 0 300": ("hardtanh", {2: None}),
    "leaky_relu 0.2": ("leaky_relu", {1: 0.01}),
    "elu 0.3": ("elu", {1: 1.0}),
    "add.Scalar, alpha": ("add.Scalar", {2: 1}),
    "max_pool2d, dilation": ("max_pool2d", {4: 1}),
    "max_pool2d, padding": ("max_pool2d", {3: 0}),
    "avg_pool2d, padding apart": ("avg_pool2d", {5: True}),
    "conv2d, bias": ("conv2d", {2: None}),
    "conv2d, dilation": ("conv2d", {5: [1, 1]}),
    "batch_norm, eps": ("_native_batch_norm_legit_no_training", {6: 1e-5}),
    "batch_norm": ("_native_batch_norm_legit_no_training", {6: 1e-3}),
    "permute": ("permute", {1: [0, 1, 2, 3]}),
    "cat, negative": ("cat", {0: None}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_conversion_is_refused(
    name: str, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the images of a data set, perhaps none reaches the bound that is wrong."""
    converter, changed = WRONG[name]
    right = registry.OP_CONVERTERS[converter]

    def wrong(builder: Any, *args: Any, **kwargs: Any) -> Any:
        if converter == "cat":
            return right(builder, args[0][::-1], *args[1:], **kwargs)
        given = [changed.get(index, each) for index, each in enumerate(args)]
        return right(builder, *given, **kwargs)

    monkeypatch.setitem(registry.OP_CONVERTERS, converter, wrong)
    with pytest.raises(ModelError, match=r"is converted incorrectly, which is a bug in whit"):
        captured.accepted.graph(name)
