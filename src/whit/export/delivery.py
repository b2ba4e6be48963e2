"""Shipping a run in a form that runs elsewhere, with the proof that it is what was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from whit.budget import percent
from whit.durable import what_to_free, write_whole
from whit.errors import InputError, RunFailed
from whit.export.browser import graph_json
from whit.export.graph import Graph
from whit.export.html import drawing_page
from whit.export.shipping import Proof, graph_of, prove
from whit.run_record import RunRecord, read_run, why_no_weights
from whit.text_table import wrapped
from whit.trained import Trained, load_trained
from whit.weights import sha256


@dataclass(frozen=True)
class Shipped:
    """What was written, and how its graph agrees with the network on a whole split."""

    form: str
    path: Path
    num_bytes: int
    constants: int  # numbers that the folded graph stores
    macs: int
    split: str
    proof: Proof

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        return {**value, "path": str(self.path), "bytes": value.pop("num_bytes")}

    def text(self, width: int = 100) -> str:
        proof = self.proof
        said = (
            f"{self.path}: {self.num_bytes:,} bytes with {self.constants:,} numbers, "
            f"{self.macs:,} multiply-adds an image."
        )
        equal = (
            f"The same class as the network on {proof.same_class:,} of {proof.num_images:,} "
            f"{self.split} images; logits differ by at most {proof.largest_difference:.1e}."
        )
        return f"{wrapped(said, width)}\n{wrapped(equal, width)}"


def ship(run: Path, form: str, target: Path, model: nn.Module | None = None) -> Shipped:
    """Write a finished run's network to `target` in a form of `FORMS`.

    `model` is the network of a run that was given one in Python. Raises InputError when the run
    has no weights, other weights than it was judged by, or a network that has no plain form, or
    when `target` is there already; RunFailed when it cannot be written.
    """
    record = read_run(run)
    _refuse(record, target)
    trained = load_trained(record, model)
    graph = graph_of(trained)
    content = FORMS[form](graph, trained)
    try:
        write_whole(target, content)
    except OSError as error:
        mend = what_to_free(target.parent, error, len(content))
        raise RunFailed(f"{target}: cannot be written: {mend}, then export again.") from None
    macs = sum(graph.macs_of(op) for op in graph.operations)
    proof = prove(graph, trained)
    return Shipped(form, target, len(content), graph.num_constants, macs, trained.split.name, proof)


def _refuse(run: RunRecord, target: Path) -> None:
    problems = []
    problem = why_no_weights(run)
    if problem:
        problems.append(f"{run.path}: {problem}, so there is nothing to export.")
    elif sha256((run.path / "weights.safetensors").read_bytes()) != _judged_by(run):
        problems.append(
            f"{run.path / 'weights.safetensors'}: not the weights that the run was judged by: "
            "`whit audit` says more. They are not exported."
        )
    if target.exists() or target.is_symlink():
        problems.append(f"{target}: is there already: remove it, or name another by --out.")
    elif not target.parent.is_dir():
        problems.append(f"{target}: the folder {target.parent} is not there.")
    if problems:
        raise InputError(problems)


def _judged_by(run: RunRecord) -> object:
    return (run.result or {}).get("weights_sha256")


def _html(graph: Graph, trained: Trained) -> bytes:
    result = trained.run.result or {}
    test = result["test"]
    reached = ""
    if test["correct"] is not None:
        reached = f", {percent(test['correct'], test['total'])} % of {test['total']:,} test images"
    said = f"{result['params']:,} parameters{reached}. Everything here is computed in this page."
    return drawing_page(graph_json(graph), said).encode()


FORMS: dict[str, Callable[[Graph, Trained], bytes]] = {"html": _html}
