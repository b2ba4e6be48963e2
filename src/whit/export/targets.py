"""What a trained network can be exported as: one class for each target, all in TARGETS.

The command line lists them before torch is needed, so the classes import it when they work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from whit.errors import ModelError
from whit.system.numbers import percent

if TYPE_CHECKING:
    from torch import Tensor

    from whit.export.ir.graph import Graph
    from whit.export.program import Program
    from whit.export.quantization.quantize import QuantizedProgram
    from whit.verification.restore import LoadedRun


@dataclass(frozen=True)
class ExportedModel:
    """What a target made of a graph: a file, or the files of a folder by their names."""

    graph: Graph
    files: bytes | Mapping[str, bytes]
    program: Program | None = None  # of a target that runs one
    sizes: Mapping[str, int] = field(default_factory=dict)  # bytes

    @property
    def num_bytes(self) -> int:
        """The size of all files."""
        files = self.files
        return len(files) if isinstance(files, bytes) else sum(map(len, files.values()))


class Target(ABC):
    """One form of an exported network.

    name: as the command line takes it; summary: what it is, in a few words.
    requires: the modules of the `export` extra that it needs.
    no_int8: why it has no int8 form; empty where it has one.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    no_int8: ClassVar[str] = ""

    @abstractmethod
    def build(self, graph: Graph, trained: LoadedRun, *, int8: bool) -> ExportedModel:
        """Return the files of a graph. Raises ModelError where it has no such form."""

    @abstractmethod
    def run(self, model: ExportedModel, images: Tensor) -> tuple[Tensor, str]:
        """Return the logits (N, K) of uint8 images (N, C, H, W), and what computed them."""


class OnnxTarget(Target):
    name = "onnx"
    summary = "one file"
    requires = ("onnx", "onnxruntime")

    def build(self, graph: Graph, trained: LoadedRun, *, int8: bool) -> ExportedModel:
        from whit.export.onnx import onnx_bytes

        _require_finite(graph)
        return ExportedModel(graph, onnx_bytes(graph, _quantize(graph, trained) if int8 else None))

    def run(self, model: ExportedModel, images: Tensor) -> tuple[Tensor, str]:
        from whit.export.onnx import onnx_logits

        assert isinstance(model.files, bytes)
        return onnx_logits(model.files, images), "onnxruntime"


class CTarget(Target):
    name = "c"
    summary = "a folder with C99"

    def build(self, graph: Graph, trained: LoadedRun, *, int8: bool) -> ExportedModel:
        from whit.export.c.float_lowering import float_program
        from whit.export.c.source import c_files, memory_bytes

        _require_finite(graph)
        program = _quantize(graph, trained).program if int8 else float_program(graph)
        sizes = {"constants": program.constant_bytes, "memory": memory_bytes(program)}
        return ExportedModel(graph, c_files(program, _describe(trained)), program, sizes)

    def run(self, model: ExportedModel, images: Tensor) -> tuple[Tensor, str]:
        import torch

        from whit.export.c.compile import c_logits, find_compiler
        from whit.export.ir.interpreter import run_logits
        from whit.export.program import LOGIT_SCALE
        from whit.export.quantization.reference import int8_logits

        program, last = model.program, model.graph.operations[-1]
        assert program
        assert not isinstance(model.files, bytes)
        if find_compiler():
            logits = c_logits(program, model.files, images)
            ran_by = "the C form, compiled here"
        elif program.int8:
            logits = torch.from_numpy(int8_logits(program, images)) / LOGIT_SCALE
            ran_by = "NumPy in whole numbers; there is no C compiler (cc) here"
        else:
            logits = run_logits(model.graph, images)
            ran_by = "PyTorch; there is no C compiler (cc) here"
        if program.int8 and last.operator.keeps_argmax:  # an int8 program ends before it
            logits = last.operator.run(last, [logits], {})
        return logits, ran_by


class HtmlTarget(Target):
    name = "html"
    summary = "a page to draw on"
    no_int8 = "the page computes in float32"

    def build(self, graph: Graph, trained: LoadedRun, *, int8: bool) -> ExportedModel:
        from whit.export.html.graph_json import graph_json
        from whit.export.html.page import drawing_page

        description = f"{_describe(trained)} Everything here is computed in this page."
        return ExportedModel(graph, drawing_page(graph_json(graph), description).encode())

    def run(self, model: ExportedModel, images: Tensor) -> tuple[Tensor, str]:
        from whit.export.ir.interpreter import run_logits

        return run_logits(model.graph, images), "PyTorch"


def _quantize(graph: Graph, trained: LoadedRun) -> QuantizedProgram:
    from whit.export.quantization.quantize import quantize

    return quantize(graph, trained.dataset.train.images)


def _require_finite(graph: Graph) -> None:
    """Raise ModelError naming constants that are no finite numbers."""
    if wrong := [name for name, tensor in graph.constants.items() if not tensor.isfinite().all()]:
        raise ModelError(
            f"{graph.name}: cannot be exported: {', '.join(wrong)}: not all are finite numbers."
        )


def _describe(trained: LoadedRun) -> str:
    result = trained.run.result or {}
    test, accuracy = result["test"], ""
    if test["correct"] is not None:
        accuracy = f", {percent(test['correct'], test['total'])} % of {test['total']:,} test images"
    return f"{result['params']:,} parameters{accuracy}."


_TARGETS: tuple[Target, ...] = (OnnxTarget(), CTarget(), HtmlTarget())
TARGETS = {target.name: target for target in _TARGETS}
