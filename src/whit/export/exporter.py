"""Shipping a run in a form that runs elsewhere, with the proof that it is what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from whit.budget import percent
from whit.durable import atomic_write_directory, what_to_free, write_whole
from whit.errors import InputError, RunFailed
from whit.evaluation import predict
from whit.export.ir.build import Proof, graph_of
from whit.export.ir.graph import Graph
from whit.export.ir.interpreter import logits_of
from whit.export.targets import FORMS, Form
from whit.needed import need
from whit.run_record import RunRecord, read_run, why_no_weights
from whit.sameness import DECIDING
from whit.text_table import wrapped
from whit.trained import Trained, inputs_now, load_trained
from whit.weights import sha256

_SAME = 1e-3  # of the largest logit
_TIED = 1e-4  # of it: sums of float32 in another order decide between logits as near as this


@dataclass(frozen=True)
class Shipped:
    """What was written, and how it agrees with the network on a whole split."""

    form: str
    int8: bool
    path: Path
    num_bytes: int
    constants: int  # numbers that the folded graph stores
    macs: int
    split: str
    correct: int  # images of the split that the form classifies right
    ran_by: str  # what computed the form's answers
    proof: Proof
    sizes: Mapping[str, int]  # bytes of flash and memory, of forms that say them

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        num_bytes = value.pop("num_bytes")
        return {**value, "path": str(self.path), "bytes": num_bytes}

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
        right = (
            f"Right on {self.correct:,} of them ({percent(self.correct, proof.num_images)} %), "
            f"computed by {self.ran_by}."
        )
        needs = ", ".join(f"{value:,} bytes of {name}" for name, value in self.sizes.items())
        lines = [said, equal, right, *([f"It needs {needs}."] if needs else [])]
        return "\n".join(wrapped(line, width) for line in lines)


def ship(
    run: Path, form: str, target: Path, model: nn.Module | None = None, *, int8: bool = False
) -> Shipped:
    """Write a finished run's network to `target` in a form of `FORMS`.

    `model` is the network of a run that was given one in Python; `int8` asks for whole numbers.
    Raises InputError when the run has no weights, other weights than it was judged by, data or a
    model's source that changed since, or a network that has no such form, or when `target` is
    there already; RunFailed when the form turns out not to be the network, or cannot be written.
    Nothing is written then.
    """
    if form == "onnx":
        need("export", "onnx", "onnxruntime")
    if form == "html" and int8:
        raise InputError("--int8: the page computes in float32: leave it out, or give --to c.")
    record = read_run(run)
    _refuse(record, target)
    trained = load_trained(record, model)
    _refuse_changed(trained)
    graph = graph_of(trained)
    wanted = predict(trained.model, trained.split, trained.normalise)
    if int8:
        # Whole numbers are only near the network, so what they are made from must be the network.
        _refuse_another(trained, "graph", logits_of(graph, trained.split.images), wanted)
    made = FORMS[form](graph, trained, int8)
    if not int8:
        _refuse_another(trained, f"{form} form", made.logits, wanted)
    _write(target, made.files)
    return _shipped(form, int8, target, graph, trained, made, wanted)


def _write(target: Path, files: bytes | Mapping[str, bytes]) -> None:
    try:
        if isinstance(files, bytes):
            write_whole(target, files)
        else:
            atomic_write_directory(target, files)
    except OSError as error:
        mend = what_to_free(target.parent, error, _size(files))
        raise RunFailed(f"{target}: cannot be written: {mend}, then export again.") from None


def _size(files: bytes | Mapping[str, bytes]) -> int:
    return len(files) if isinstance(files, bytes) else sum(map(len, files.values()))


def _shipped(
    form: str,
    int8: bool,
    target: Path,
    graph: Graph,
    trained: Trained,
    made: Form,
    wanted: Tensor,
) -> Shipped:
    split = trained.split
    return Shipped(
        form,
        int8,
        target,
        _size(made.files),
        graph.num_constants,
        graph.macs,
        split.name,
        int((made.logits.argmax(1) == split.labels).sum()),
        made.ran_by,
        Proof.between(made.logits, wanted),
        made.sizes,
    )


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
    try:
        if target.exists() or target.is_symlink():
            problems.append(f"{target}: is there already: remove it, or name another by --out.")
        elif not target.parent.is_dir():
            problems.append(f"{target}: the folder {target.parent} is not there.")
    except OSError as error:
        problems.append(f"{target}: {error.strerror}: name another by --out.")
    if problems:
        raise InputError(problems)


def _refuse_changed(trained: Trained) -> None:
    """Raise InputError where the network, or what it would be proven on, is not the run's."""
    run = trained.run
    problems = [
        f"{run.path}: {DECIDING[key]} changed since the run, so it is not exported: put it back "
        "as it was, or train again."
        for key, digest in inputs_now(run.recipe, trained.dataset).items()
        if run.environment.get(key) not in (None, digest)
    ]
    if problems:
        raise InputError(problems)


def _refuse_another(trained: Trained, what: str, logits: Tensor, wanted: Tensor) -> None:
    """Raise RunFailed where logits are not those of the network."""
    if _is_equal(logits, wanted):
        return
    proof = Proof.between(logits, wanted)
    raise RunFailed(
        f"{trained.run.path}: its {what} is not the network, which is a defect of whit: "
        f"{proof.same_class:,} of {proof.num_images:,} {trained.split.name} images fall into the "
        f"same class, and logits differ by up to {proof.largest_difference:.1e}. Nothing was "
        "written."
    )


def _is_equal(logits: Tensor, wanted: Tensor) -> bool:
    """Whether logits (N, K) differ as sums in another order do, and only ties by their class."""
    size = 1 + float(wanted.abs().max())
    chosen = wanted.gather(1, logits.argmax(1, keepdim=True))[:, 0]
    behind = float((wanted.amax(1) - chosen).max())
    return bool(float((logits - wanted).abs().max()) <= _SAME * size and behind <= _TIED * size)


def _judged_by(run: RunRecord) -> object:
    return (run.result or {}).get("weights_sha256")
