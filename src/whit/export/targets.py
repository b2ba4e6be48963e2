"""The export targets: one class each, all in TARGETS.

The command line lists them without torch, so they import it inside functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
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
    """The exported files of a graph: the content of one file, or contents by name for a folder."""

    graph: Graph
    files: bytes | Mapping[str, bytes]
    program: Program | None = None  # of targets that lower the graph

    @property
    def num_bytes(self) -> int:
        """The total size of all files."""
        files = self.files
        return len(files) if isinstance(files, bytes) else sum(map(len, files.values()))


class Target(ABC):
    """An export format.

    name: the value of --format; summary: for its help.
    requires: modules of the `export` extra that it imports.
    no_int8: why int8 is not supported; empty if it is.
    has_symbols: whether its files define symbols, whose prefix may be given.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    no_int8: ClassVar[str] = ""
    has_symbols: ClassVar[bool] = False

    @abstractmethod
    def build(
        self, graph: Graph, trained: LoadedRun, *, int8: bool, name: str | None = None
    ) -> ExportedModel:
        """Return the files of a graph; `name` is the prefix of their symbols.

        Raises ModelError if the target cannot represent it.
        """

    def sizes(self, model: ExportedModel) -> Mapping[str, int]:
        """Return the bytes that the exported network takes on its device, if they are known."""
        return {}

    @abstractmethod
    def run(self, model: ExportedModel, images: Tensor) -> tuple[Tensor, str]:
        """Return the logits (N, K) of uint8 images (N, C, H, W), and what computed them."""


class OnnxTarget(Target):
    name = "onnx"
    summary = "one ONNX file"
    requires = ("onnx", "onnxruntime")

    def build(
        self, graph: Graph, trained: LoadedRun, *, int8: bool, name: str | None = None
    ) -> ExportedModel:
        from whit.export.onnx import onnx_bytes

        _require_finite(graph)
        return ExportedModel(graph, onnx_bytes(graph, _quantize(graph, trained) if int8 else None))

    def run(self, model: ExportedModel, images: Tensor) -> tuple[Tensor, str]:
        from whit.export.onnx import onnx_logits

        assert isinstance(model.files, bytes)
        return onnx_logits(model.files, images), "onnxruntime"


class CTarget(Target):
    name = "c"
    summary = "a folder with C99 source"
    has_symbols = True

    def build(
        self, graph: Graph, trained: LoadedRun, *, int8: bool, name: str | None = None
    ) -> ExportedModel:
        from whit.export.c.float_lowering import float_program
        from whit.export.c.source import c_files

        _require_finite(graph)
        program = _quantize(graph, trained).program if int8 else float_program(graph)
        return ExportedModel(graph, c_files(program, _describe(trained), name), program)

    def sizes(self, model: ExportedModel) -> Mapping[str, int]:
        from whit.export.c.compile import estimate_code_bytes
        from whit.export.c.source import memory_bytes

        program, files = model.program, model.files
        assert program
        assert not isinstance(files, bytes)
        sizes = {"constants": program.constant_bytes, "ram": memory_bytes(program)}
        if code := estimate_code_bytes(files):
            sizes["code_estimate"] = code
        return sizes

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
            runtime = "compiled C code"
        elif program.int8:
            logits = torch.from_numpy(int8_logits(program, images)) / LOGIT_SCALE
            runtime = "the NumPy reference, since no C compiler (cc) is installed"
        else:
            logits = run_logits(model.graph, images)
            runtime = "PyTorch, since no C compiler (cc) is installed"
        if program.int8 and last.operator.keeps_argmax:  # int8 programs omit it
            logits = last.operator.run(last, [logits], {})
        return logits, runtime


class HtmlTarget(Target):
    name = "html"
    summary = "one HTML file to draw in"
    no_int8 = "the html format supports float32 only"

    def build(
        self, graph: Graph, trained: LoadedRun, *, int8: bool, name: str | None = None
    ) -> ExportedModel:
        from whit.export.html.graph_json import graph_json
        from whit.export.html.page import drawing_page

        description = f"{_describe(trained)} All computation runs in this page."
        network = graph_json(graph, trained.recipe.data.name)
        return ExportedModel(graph, drawing_page(network, description).encode())

    def run(self, model: ExportedModel, images: Tensor) -> tuple[Tensor, str]:
        from whit.export.ir.interpreter import run_logits

        return run_logits(model.graph, images), "PyTorch"


def _quantize(graph: Graph, trained: LoadedRun) -> QuantizedProgram:
    from whit.export.quantization.quantize import quantize

    return quantize(graph, trained.dataset.train.images)


def _require_finite(graph: Graph) -> None:
    """Raise ModelError naming constants with infinite or NaN values."""
    if wrong := [name for name, tensor in graph.constants.items() if not tensor.isfinite().all()]:
        raise ModelError(
            f"{graph.name}: cannot be exported: {', '.join(wrong)}: infinite or NaN values."
        )


def _describe(trained: LoadedRun) -> str:
    result = trained.run.result or {}
    test, accuracy = result["test"], ""
    if test["correct"] is not None:
        accuracy = f", {percent(test['correct'], test['total'])} % of {test['total']:,} test images"
    return f"{result['params']:,} parameters{accuracy}."


_TARGETS: tuple[Target, ...] = (OnnxTarget(), CTarget(), HtmlTarget())
TARGETS = {target.name: target for target in _TARGETS}
