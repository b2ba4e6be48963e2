"""Microseconds for one image: the C forms beside onnxruntime and torch, one thread, batch 1.

    python benchmarks/exported.py [--repeats 40] [--write]

All are timed in turn in one process, so that a busy machine slows all of them; the figures are
medians, and what counts are the ratios. C is built with -O3 -march=native. With --write, the table
goes into benchmarks/EXPORT.md, with the machine's load beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch

from whit.export.c.compile import STRICT_FLAGS, compile_library
from whit.export.c.float_lowering import float_program
from whit.export.c.source import c_files, c_name
from whit.export.ir.build import build_graph
from whit.export.onnx import onnx_bytes
from whit.export.program import Program
from whit.export.quantization.quantize import quantize
from whit.runs.reader import read_run
from whit.verification.restore import load_run_model

HERE = Path(__file__).parent
LOOP = """#include "{name}.h"
void classify_often(const uint8_t *pixels, void *scores, int times)
{{
    for (int i = 0; i < times; i++)
        {name}_classify(pixels, scores);
}}
"""
TIMES = 20  # calls of one measurement


def c_form(program: Program, pixels: np.ndarray, folder: Path) -> Callable[[], None]:
    """Return a call of the compiled form, which runs it TIMES times."""
    name, files = c_name(program.graph.name), c_files(program, ".")
    files[f"{name}.c"] += LOOP.format(name=name).encode()
    library = compile_library(files, folder, [*STRICT_FLAGS, "-O3", "-march=native"])
    scores = np.zeros(len(program.graph.classes), np.int32)
    often = ctypes.CDLL(str(library)).classify_often
    given = ctypes.c_void_p(pixels.ctypes.data), ctypes.c_void_p(scores.ctypes.data), TIMES
    return lambda: often(*given)


def microseconds(ways: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 3):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if repeat >= 3:  # the first ones warm up
                found[name].append((time.perf_counter() - started) / TIMES * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--write", action="store_true", help="put the table into EXPORT.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    (run,) = (HERE.parent / "records" / "fewest-epochs").glob("*/seed-0")
    trained = load_run_model(read_run(run))
    graph = build_graph(trained)
    whole = quantize(graph, trained.dataset.train.images)
    image, predictor = trained.split.images[:1], trained.predictor
    pixels = np.ascontiguousarray(image.permute(0, 2, 3, 1).numpy())

    def by_torch() -> None:
        with torch.inference_mode():
            for _ in range(TIMES):
                predictor(trained.normalize(image.float()))

    def by_onnxruntime(content: bytes) -> Callable[[], None]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options)
        read = {"image": image.numpy().astype(np.float32)}

        def run() -> None:
            for _ in range(TIMES):
                session.run(None, read)

        return run

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        ways: dict[str, Callable[[], None]] = {
            "torch, float32": by_torch,
            "onnxruntime, float32": by_onnxruntime(onnx_bytes(graph)),
            "onnxruntime, int8": by_onnxruntime(onnx_bytes(graph, whole)),
            "C, float32": c_form(float_program(graph), pixels, Path(one)),
            "C, int8": c_form(whole.program, pixels, Path(other)),
        }
        found = microseconds(ways, given.repeats)
    rivals = {name: median(found[f"{name}, float32"]) for name in ("torch", "onnxruntime")}
    load = os.getloadavg()[0]
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True)
    lines = [
        "# Speed of the exported forms",
        "",
        f"Command: `python benchmarks/exported.py --repeats {given.repeats} --write`. "
        "fewest-epochs, seed 0; one image, one thread; medians of measurements in turn, "
        "the quickest behind.",
        "",
        f"{torch.cpu.get_capabilities().get('cpu_name')}, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}; load {load:.1f} while it ran"
        f"{', so on a machine that was busy with other work' if load > 1.5 else ''}. "
        f"{compiler.stdout.splitlines()[0]}; torch {torch.__version__}; "
        f"onnxruntime {onnxruntime.__version__}.",
        "",
        "| form | µs an image | torch / it | it / onnxruntime |",
        "|---|---|---|---|",
    ]
    for name, times in found.items():
        middle = median(times)
        lines.append(
            f"| {name} | {middle:.0f} ({min(times):.0f}) | {rivals['torch'] / middle:.2f} "
            f"| {middle / rivals['onnxruntime']:.2f} |"
        )
    lines += ["", "Goal: C at least 3 times as fast as torch, and within 2 of onnxruntime."]
    text = "\n".join(lines) + "\n"
    print(text)
    if given.write:
        (HERE / "EXPORT.md").write_text(text)


if __name__ == "__main__":
    main()
