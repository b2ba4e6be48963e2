"""Exports a finished run and verifies that the export computes what the trained model computes."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from whit.errors import InputError, RunFailed
from whit.export.c.names import ALLOWED, name_problem
from whit.export.ir.build import build_graph
from whit.export.ir.graph import Graph
from whit.export.ir.interpreter import run_logits
from whit.export.ir.random_weights import random_images, with_random_weights
from whit.export.ir.support import require_supported
from whit.export.targets import TARGETS, ExportedModel, Target
from whit.models.weights import sha256
from whit.runs import layout
from whit.runs.compatibility import REPRODUCIBILITY_KEYS
from whit.runs.reader import RunRecord, read_run, weights_problem
from whit.system.atomic_files import atomic_write, atomic_write_directory, disk_error_advice
from whit.system.console import OnStage, ignore_stage
from whit.system.numbers import percent
from whit.system.optional_deps import require_extra
from whit.system.text_tables import wrap
from whit.training.evaluation import predict
from whit.training.hardware.threads import use_free_cores
from whit.verification.provenance import current_digests, diff_inputs
from whit.verification.restore import LoadedRun, load_run_model

_SIZE_TEXTS = {
    "constants": "{:,} bytes of constants",
    "ram": "{:,} bytes of static RAM",
    "code_estimate": "about {:,} bytes of code (estimate from compiling with -Os for "
    f"{platform.machine()})",
}
_MAX_ERROR = 1e-3  # relative to the largest logit
_MAX_TIE = 1e-4  # likewise: logits this close may change order by float32 summation order


@dataclass(frozen=True)
class ParityReport:
    """How closely an export and the model agree on the same images."""

    num_images: int
    same_class: int
    max_abs_difference: float  # of logits

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
    """What was written, and how it agrees with the model on a complete split."""

    target: str
    int8: bool
    path: Path
    num_bytes: int
    constants: int  # values that the fused graph stores
    macs: int
    split: str
    correct: int  # images of the split that the export classifies correctly
    runtime: str  # what computed the logits of the export
    parity: ParityReport
    sizes: Mapping[str, int]  # bytes: constants, ram, code_estimate; of targets that know them

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        target, num_bytes = value.pop("target"), value.pop("num_bytes")
        return {"format": target, **value, "path": str(self.path), "bytes": num_bytes}

    def text(self, width: int = 100) -> str:
        parity = self.parity
        accuracy = percent(self.correct, parity.num_images)
        lines = [
            f"{self.path}: {self.num_bytes:,} bytes; {self.constants:,} constants, "
            f"{self.macs:,} multiply-adds per image.",
            f"{parity.same_class:,} of {parity.num_images:,} {self.split} images: same class "
            f"as the model; logits differ by at most {parity.max_abs_difference:.1e}.",
            f"Accuracy of the export: {self.correct:,}/{parity.num_images:,} ({accuracy} %), "
            f"computed by {self.runtime}.",
        ]
        if self.sizes:
            sizes = (_SIZE_TEXTS[name].format(value) for name, value in self.sizes.items())
            lines.append(f"Size: {'; '.join(sizes)}.")
        return "\n".join(wrap(line, width) for line in lines)


@use_free_cores()
def export_run(
    run: Path,
    target: str,
    out: Path | None = None,
    model: nn.Module | None = None,
    *,
    int8: bool = False,
    name: str | None = None,
    trust_model_files: bool = False,
    on_stage: OnStage = ignore_stage,
) -> ExportResult:
    """Export a finished run to `out` for a target of TARGETS, and verify it.

    By default `out` is `name`, or else the run's name, with the target as its suffix, in the
    current folder. `name` is the prefix of the symbols, macros and files of C; by default the
    recipe's name, with `_int8` if quantized. `model` is required for runs whose model was given in
    Python; `int8` quantizes. `trust_model_files` executes the copy of a user's own model in the
    folder, if its file is missing or has changed. `on_stage` is called with the name of each slow
    stage.
    Raises InputError if the run has no weights or if they were modified, if data or model source
    changed since the run, if the target does not support the model, or if `out` exists; RunFailed
    if the export does not match the model or cannot be written. Nothing is written in these cases.
    """
    chosen = TARGETS[target]
    if chosen.requires:
        require_extra("export", *chosen.requires)
    if int8 and chosen.no_int8:
        raise InputError(f"--int8: {chosen.no_int8}. Omit --int8 or use --format c or onnx.")
    if name is not None:
        _require_name(name, target)
    out = out or Path(f"{name or run.resolve().name + '-int8' * int8}.{target}")
    record = read_run(run, trust_model_files=trust_model_files)
    _require_exportable(record, out)
    trained = load_run_model(record, model)
    _require_unchanged(trained)
    graph, images = build_graph(trained), trained.split.images
    for needed in (target, *(["int8"] if int8 else [])):
        require_supported(graph, needed)
    count = f"{len(images):,} {trained.split.name} images"
    on_stage(f"evaluating the network on {count}")
    expected = predict(trained.predictor, trained.split, trained.normalize)
    if int8:
        # int8 only approximates the model, so the graph that is quantized is verified.
        _require_parity(trained, "graph", run_logits(graph, images), expected)
    else:
        _require_operators(trained, chosen, graph)
    exported = chosen.build(graph, trained, int8=int8, name=name)
    on_stage(f"verifying the {target} export on {count}")
    logits, runtime = chosen.run(exported, images)
    if not int8:
        _require_parity(trained, f"{target} export", logits, expected)
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
        runtime,
        ParityReport.between(logits, expected),
        chosen.sizes(exported),
    )


def _require_name(name: str, target: str) -> None:
    """Raise InputError if a target has no symbols, or a name cannot be their prefix."""
    if not TARGETS[target].has_symbols:
        having = " or ".join(each.name for each in TARGETS.values() if each.has_symbols)
        raise InputError(
            f"--name {name}: the {target} format has no symbol names. Omit --name, or use "
            f"--format {having}."
        )
    if problem := name_problem(name):
        raise InputError(f"--name {name!r}: {problem}; allowed: {ALLOWED}.")


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
            f"{run.path / layout.WEIGHTS}: modified since the run was evaluated, so they are not "
            "exported. `whit audit` shows details."
        )
    try:
        if out.exists() or out.is_symlink():
            problems.append(f"{out}: already exists: remove it, or choose another path with --out.")
        elif not out.parent.is_dir():
            problems.append(
                f"{out}: the folder {out.parent} does not exist: create it, or choose another path "
                "with --out."
            )
    except OSError as error:
        problems.append(f"{out}: {error.strerror}: choose another path with --out.")
    if problems:
        raise InputError(problems)


def _require_unchanged(trained: LoadedRun) -> None:
    """Raise InputError if data or model source changed since the run."""
    run = trained.run
    digests = current_digests(
        run.local_recipe, trained.dataset, with_teacher=False, source=trained.source
    )
    problems = [
        f"{run.path}: {REPRODUCIBILITY_KEYS[change['what']]} changed since the run, so it is not "
        "exported: restore it, or train again."
        for change in diff_inputs(run, digests)
        if change["before"] is not None
    ]
    if problems:
        raise InputError(problems)


def _require_parity(trained: LoadedRun, what: str, logits: Tensor, expected: Tensor) -> None:
    """Raise RunFailed if logits do not match those of the model."""
    if _is_equal(logits, expected):
        return
    parity = ParityReport.between(logits, expected)
    raise RunFailed(
        f"{trained.run.path}: the {what} does not match the model, which is a bug in whit: "
        f"{parity.same_class:,} of {parity.num_images:,} {trained.split.name} images have the same "
        f"class, and logits differ by up to {parity.max_abs_difference:.1e}. Nothing was written."
    )


def _require_operators(trained: LoadedRun, target: Target, graph: Graph) -> None:
    """Raise RunFailed if the target computes the graph otherwise when its weights are random."""
    images = random_images(graph)
    other = with_random_weights(graph, images)
    expected = run_logits(other, images)
    doubles = {name: tensor.double() for name, tensor in other.constants.items()}
    rounding = (run_logits(replace(other, constants=doubles), images) - expected).abs().max()
    logits, _ = target.run(target.build(other, trained, int8=False), images)
    error = float((logits - expected).abs().max())
    if not error <= _MAX_ERROR * (1 + float(expected.abs().max())) + 100 * float(rounding):
        raise RunFailed(
            f"{trained.run.path}: the {target.name} export does not match the model, which is a "
            f"bug in whit: with random weights, logits differ by up to {error:.1e}. Nothing was "
            "written."
        )


def _is_equal(logits: Tensor, expected: Tensor) -> bool:
    """Whether logits (N, K) agree up to float32 summation order, and classes except for ties."""
    size = 1 + float(expected.abs().max())
    error = float((logits - expected).abs().max())
    chosen = expected.gather(1, logits.argmax(1, keepdim=True))[:, 0]
    gap = float((expected.amax(1) - chosen).max())
    return error <= _MAX_ERROR * size and gap <= _MAX_TIE * size
