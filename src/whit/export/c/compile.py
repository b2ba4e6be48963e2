"""A C form at work: compiled for this machine and called from Python."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from whit.errors import RunFailed
from whit.export.c.source import c_name
from whit.export.program import LOGIT_SCALE, Program

STRICT_FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")


def find_compiler() -> str | None:
    """Return the C compiler of this machine, if there is one."""
    return shutil.which("cc")


def c_logits(
    program: Program,
    files: Mapping[str, bytes],
    images: Tensor,
    flags: Sequence[str] = ("-O2",),
    cc: str = "cc",
) -> Tensor:
    """Return the scores (N, K) of uint8 images (N, C, H, W), as logits, by the compiled form.

    Raises RunFailed when the compiler refuses it, or it cannot be written or run here.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="whit-") as folder:
            library = compile_library(files, Path(folder), [*STRICT_FLAGS, *flags], cc)
            scores = classify_each(library, program, images)
    except OSError as error:
        raise RunFailed(
            f"the C form cannot be tried in {tempfile.gettempdir()}: {error.strerror or error}. "
            "Set TMPDIR to a folder with free space whose programs may run, then export again."
        ) from None
    return torch.from_numpy(scores).double() / (LOGIT_SCALE if program.int8 else 1)


def compile_library(
    files: Mapping[str, bytes], folder: Path, flags: Sequence[str], cc: str = "cc"
) -> Path:
    """Write a C form into a folder and compile it there; return the shared library."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (source,) = (name for name in files if name.endswith(".c"))
    library = folder / "network.so"
    command = [cc, *flags, "-shared", "-fPIC", "-o", str(library), source, "-lm"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        errors = (line for line in result.stderr.splitlines() if "error" in line)
        raise RunFailed(f"{cc} refuses the C form: {next(errors, 'no reason given')}")
    return library


def classify_each(
    library: Path, program: Program, images: Tensor
) -> np.ndarray[tuple[int, int], np.dtype[np.generic]]:
    """Return the scores (N, K) of each image; the classes it answers must be their largest."""
    classify = ctypes.CDLL(str(library))[f"{c_name(program.graph.name)}_classify"]
    pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    dtype = np.int32 if program.int8 else np.float32
    scores = np.zeros((len(images), len(program.graph.classes)), dtype)
    for image, row in zip(pixels, scores, strict=True):
        answer = classify(ctypes.c_void_p(image.ctypes.data), ctypes.c_void_p(row.ctypes.data))
        assert answer == int(row.argmax()), "the answer is not the class of the largest score"
    return scores
