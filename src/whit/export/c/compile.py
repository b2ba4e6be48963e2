"""Compiles exported C code for the host machine and calls it from Python."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from whit.errors import RunFailed
from whit.export.program import LOGIT_SCALE, Program

_TEXT_SECTION = re.compile(r"^\.text\S*\s+(\d+)", re.MULTILINE)
STRICT_FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")


def find_compiler() -> str | None:
    """Return the path of the C compiler `cc`, if installed."""
    return shutil.which("cc")


def c_logits(
    program: Program,
    files: Mapping[str, bytes],
    images: Tensor,
    flags: Sequence[str] = ("-O2",),
    cc: str = "cc",
) -> Tensor:
    """Return the logits (N, K) of uint8 images (N, C, H, W), computed by the compiled code.

    Raises RunFailed when it does not compile, or when it cannot be written or loaded.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="whit-") as folder:
            library = compile_library(files, Path(folder), [*STRICT_FLAGS, *flags], cc)
            name = source_name(files).removesuffix(".c")
            logits = classify_each(library, name, program, images)
    except OSError as error:
        raise RunFailed(
            f"the exported C code cannot be tested in {tempfile.gettempdir()}: "
            f"{error.strerror or error}. Set TMPDIR to a folder with free space not mounted "
            "noexec, then export again."
        ) from None
    return torch.from_numpy(logits).double() / (LOGIT_SCALE if program.int8 else 1)


def compile_library(
    files: Mapping[str, bytes], folder: Path, flags: Sequence[str], cc: str = "cc"
) -> Path:
    """Write exported C files into a folder and compile them there; return the shared library."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    library = folder / "network.so"
    command = [cc, *flags, "-shared", "-fPIC", "-o", str(library), source_name(files), "-lm"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        errors = (line for line in result.stderr.splitlines() if "error" in line)
        raise RunFailed(f"{cc} does not compile the C code: {next(errors, 'no error message')}")
    return library


def source_name(files: Mapping[str, bytes]) -> str:
    """Return the name of the network's source file; the example is another one."""
    (header,) = (name for name in files if name.endswith(".h"))
    return header.removesuffix(".h") + ".c"


def estimate_code_bytes(files: Mapping[str, bytes]) -> int | None:
    """Return the bytes of machine code for the host processor at -Os, constants excluded.

    An estimate for other processors. None without `cc` and `size` of binutils, or if they fail.
    """
    source = source_name(files)
    try:
        with tempfile.TemporaryDirectory(prefix="whit-") as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            for command in (
                ["cc", "-std=c99", "-Os", "-c", "-o", "network.o", source],
                ["size", "-A", "network.o"],
            ):
                result = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True, check=True
                )
    except (OSError, subprocess.CalledProcessError):
        return None
    return sum(map(int, _TEXT_SECTION.findall(result.stdout))) or None


def classify_each(
    library: Path, name: str, program: Program, images: Tensor
) -> np.ndarray[tuple[int, int], np.dtype[np.generic]]:
    """Return the logits (N, K) as the C code writes them; its class must be their argmax."""
    classify = ctypes.CDLL(str(library))[f"{name}_classify"]
    pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    dtype = np.int32 if program.int8 else np.float32
    logits = np.zeros((len(images), len(program.graph.classes)), dtype)
    for image, row in zip(pixels, logits, strict=True):
        label = classify(ctypes.c_void_p(image.ctypes.data), ctypes.c_void_p(row.ctypes.data))
        assert label == int(row.argmax()), "the class is not the argmax of the logits"
    return logits
