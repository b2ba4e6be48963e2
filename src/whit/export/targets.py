"""The forms that a network is shipped in: what is written, and the logits of what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from whit.budget import percent
from whit.errors import ModelError
from whit.export.c.compile import c_logits, compiler
from whit.export.c.float_lowering import float_program
from whit.export.c.source import c_files, memory_bytes
from whit.export.html.graph_json import graph_json
from whit.export.html.page import drawing_page
from whit.export.ir.graph import Graph
from whit.export.ir.interpreter import logits_of
from whit.export.program import SCORE_UNITS
from whit.export.quantization.quantize import Quantised, quantised
from whit.export.quantization.reference import whole_scores
from whit.trained import Trained


@dataclass(frozen=True)
class Form:
    """One form of a network: a file, or the files of a folder by their names."""

    files: bytes | Mapping[str, bytes]
    logits: Tensor  # (N, K) of every image of the split that the run was judged on
    ran_by: str
    sizes: Mapping[str, int] = field(default_factory=dict)  # bytes


def _html(graph: Graph, trained: Trained, int8: bool) -> Form:
    assert not int8, "the page computes in float32"
    said = f"{_said(trained)} Everything here is computed in this page."
    page = drawing_page(graph_json(graph), said)
    return Form(page.encode(), logits_of(graph, trained.split.images), "PyTorch")


def _onnx(graph: Graph, trained: Trained, int8: bool) -> Form:
    from whit.export.onnx import onnx_bytes, onnx_logits

    content = onnx_bytes(_finite(graph), _quantised(graph, trained) if int8 else None)
    return Form(content, onnx_logits(content, trained.split.images), "onnxruntime")


def _c(graph: Graph, trained: Trained, int8: bool) -> Form:
    program = _quantised(graph, trained).program if int8 else float_program(_finite(graph))
    files = c_files(program, _said(trained))
    images = trained.split.images
    if compiler():
        logits, ran_by = c_logits(program, files, images), "the C form, compiled here"
    elif int8:
        logits = torch.from_numpy(whole_scores(program, images)) / SCORE_UNITS
        ran_by = "NumPy in whole numbers; there is no C compiler (cc) here"
    else:
        logits, ran_by = logits_of(graph, images), "PyTorch; there is no C compiler (cc) here"
    if int8:
        logits = _softened(graph, logits)
    sizes = {"constants": program.constant_bytes, "memory": memory_bytes(program)}
    return Form(files, logits, ran_by, sizes)


def _softened(graph: Graph, scores: Tensor) -> Tensor:
    """Return what the network gives for scores: whole numbers end before its softmax."""
    last = graph.operations[-1].kind
    if last == "softmax":
        return scores.softmax(1)
    return scores.log_softmax(1) if last == "log_softmax" else scores


def _quantised(graph: Graph, trained: Trained) -> Quantised:
    return quantised(_finite(graph), trained.dataset.train.images)


def _finite(graph: Graph) -> Graph:
    """Return the graph. Raises ModelError naming constants that are no finite numbers."""
    wrong = [name for name, tensor in graph.constants.items() if not tensor.isfinite().all()]
    if wrong:
        raise ModelError(
            f"{graph.name}: cannot be exported: {', '.join(wrong)}: not all are finite numbers."
        )
    return graph


def _said(trained: Trained) -> str:
    result = trained.run.result or {}
    test = result["test"]
    reached = ""
    if test["correct"] is not None:
        reached = f", {percent(test['correct'], test['total'])} % of {test['total']:,} test images"
    return f"{result['params']:,} parameters{reached}."


FORMS: dict[str, Callable[[Graph, Trained, bool], Form]] = {"onnx": _onnx, "c": _c, "html": _html}
