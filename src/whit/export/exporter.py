"""Exporting a finished run, with the proof that the export is what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from whit.errors import InputError, RunFailed
from whit.export.ir.build import build_graph
from whit.export.ir.interpreter import run_logits
from whit.export.targets import TARGETS, ExportedModel
from whit.models.weights import sha256
from whit.runs import layout
from whit.runs.compatibility import REPRODUCIBILITY_KEYS
from whit.runs.reader import RunRecord, read_run, weights_problem
from whit.system.atomic_files import atomic_write, atomic_write_directory, disk_error_advice
from whit.system.numbers import percent
from whit.system.optional_deps import require_extra
from whit.system.text_tables import wrap
from whit.training.evaluation import predict
from whit.verification.provenance import current_digests, diff_inputs
from whit.verification.restore import LoadedRun, load_run_model

_MAX_ERROR = 1e-3  # of the largest logit
_MAX_TIE = 1e-4  # of it: sums of float32 in another order decide between logits as near as this


@dataclass(frozen=True)
class ParityReport:
    """How two ways of running a network agree on the same images."""

    num_images: int
    same_class: int
    largest_difference: float  # of any logit

    @classmethod
    def between(cls, ours: Tensor, theirs: Tensor) -> ParityReport:
        """Compare logits (N, K) with logits (N, K)."""
        assert ours.shape == theirs.shape
        return cls(
            len(ours),
            int((ours.argmax(1) == theirs.argmax(1)).sum()),
            float((ours - theirs).abs().max()),
        )


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how it agrees with the network on a whole split."""

    target: str
    int8: bool
    path: Path
    num_bytes: int
    constants: int  # numbers that the fused graph stores
    macs: int
    split: str
    correct: int  # images of the split that the export classifies correctly
    ran_by: str  # what computed the export's logits
    proof: ParityReport
    sizes: Mapping[str, int]  # bytes of constants and memory, of targets that know them

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        target, num_bytes = value.pop("target"), value.pop("num_bytes")
        return {"form": target, **value, "path": str(self.path), "bytes": num_bytes}

    def text(self, width: int = 100) -> str:
        proof = self.proof
        lines = [
            f"{self.path}: {self.num_bytes:,} bytes with {self.constants:,} numbers, "
            f"{self.macs:,} multiply-adds an image.",
            f"The same class as the network on {proof.same_class:,} of {proof.num_images:,} "
            f"{self.split} images; logits differ by at most {proof.largest_difference:.1e}.",
            f"Right on {self.correct:,} of them ({percent(self.correct, proof.num_images)} %), "
            f"computed by {self.ran_by}.",
        ]
        if self.sizes:
            sizes = (f"{value:,} bytes of {name}" for name, value in self.sizes.items())
            lines.append(f"It needs {', '.join(sizes)}.")
        return "\n".join(wrap(line, width) for line in lines)


def export_run(
    run: Path, target: str, out: Path, model: nn.Module | None = None, *, int8: bool = False
) -> ExportResult:
    """Write a finished run's network to `out` for a target of TARGETS.

    `model` is the network of a run that was given one in Python; `int8` asks for integers.
    Raises InputError when the run has no weights, other weights than it was judged by, data or a
    model's source that changed since, or a network that the target cannot hold, or when `out`
    exists; RunFailed when the export turns out not to be the network, or cannot be written.
    Nothing is written then.
    """
    chosen = TARGETS[target]
    if chosen.requires:
        require_extra("export", *chosen.requires)
    if int8 and chosen.no_int8:
        raise InputError(f"--int8: {chosen.no_int8}: leave it out, or give --format c.")
    record = read_run(run)
    _require_exportable(record, out)
    trained = load_run_model(record, model)
    _require_unchanged(trained)
    graph, images = build_graph(trained), trained.split.images
    expected = predict(trained.predictor, trained.split, trained.normalize)
    if int8:
        # Integers are only near the network, so what they are made from must be the network.
        _require_parity(trained, "graph", run_logits(graph, images), expected)
    exported = chosen.build(graph, trained, int8=int8)
    logits, ran_by = chosen.run(exported, images)
    if not int8:
        _require_parity(trained, f"{target} form", logits, expected)
    _write(out, exported)
    return ExportResult(
        target,
        int8,
        out,
        exported.num_bytes,
        graph.num_constants,
        graph.macs,
        trained.split.name,
        int((logits.argmax(1) == trained.split.labels).sum()),
        ran_by,
        ParityReport.between(logits, expected),
        exported.sizes,
    )


def _write(out: Path, exported: ExportedModel) -> None:
    try:
        if isinstance(exported.files, bytes):
            atomic_write(out, exported.files)
        else:
            atomic_write_directory(out, exported.files)
    except OSError as error:
        advice = disk_error_advice(out.parent, error, exported.num_bytes)
        raise RunFailed(f"{out}: cannot be written: {advice}, then export again.") from None


def _require_exportable(run: RunRecord, out: Path) -> None:
    problems = []
    if problem := weights_problem(run):
        problems.append(f"{run.path}: {problem}, so there is nothing to export.")
    elif sha256((run.path / layout.WEIGHTS).read_bytes()) != (run.result or {}).get(
        "weights_sha256"
    ):
        problems.append(
            f"{run.path / layout.WEIGHTS}: not the weights that the run was judged by: "
            "`whit audit` says more. They are not exported."
        )
    try:
        if out.exists() or out.is_symlink():
            problems.append(f"{out}: is there already: remove it, or name another by --out.")
        elif not out.parent.is_dir():
            problems.append(f"{out}: the folder {out.parent} is not there.")
    except OSError as error:
        problems.append(f"{out}: {error.strerror}: name another by --out.")
    if problems:
        raise InputError(problems)


def _require_unchanged(trained: LoadedRun) -> None:
    """Raise InputError where the network, or what it would be proven on, is not the run's."""
    run = trained.run
    digests = current_digests(run.recipe, trained.dataset, with_teacher=False)
    problems = [
        f"{run.path}: {REPRODUCIBILITY_KEYS[change['what']]} changed since the run, so it is not "
        "exported: put it back as it was, or train again."
        for change in diff_inputs(run, digests)
        if change["before"] is not None
    ]
    if problems:
        raise InputError(problems)


def _require_parity(trained: LoadedRun, what: str, logits: Tensor, expected: Tensor) -> None:
    """Raise RunFailed where logits are not those of the network."""
    if _is_equal(logits, expected):
        return
    proof = ParityReport.between(logits, expected)
    raise RunFailed(
        f"{trained.run.path}: its {what} is not the network, which is a defect of whit: "
        f"{proof.same_class:,} of {proof.num_images:,} {trained.split.name} images fall into the "
        f"same class, and logits differ by up to {proof.largest_difference:.1e}. Nothing was "
        "written."
    )


def _is_equal(logits: Tensor, expected: Tensor) -> bool:
    """Whether logits (N, K) differ as sums in another order do, and only ties by their class."""
    size = 1 + float(expected.abs().max())
    error = float((logits - expected).abs().max())
    chosen = expected.gather(1, logits.argmax(1, keepdim=True))[:, 0]
    gap = float((expected.amax(1) - chosen).max())
    return error <= _MAX_ERROR * size and gap <= _MAX_TIE * size
