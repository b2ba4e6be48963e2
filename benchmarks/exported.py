"""Microseconds per image: exported C code, onnxruntime and torch, one thread, batch size 1.

    python benchmarks/exported.py [--repeats 40] [--write]

All are timed alternately in one process, so that other load affects all of them; the results are
medians, to be compared as ratios. C is compiled with -O3 -march=native. With --write, the table is
written to benchmarks/EXPORT.md, with the load of the machine.
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

from whit.export.c.compile import STRICT_FLAGS, compile_library, source_name
from whit.export.c.float_lowering import float_program
from whit.export.c.source import c_files
from whit.export.ir.build import build_graph
from whit.export.onnx import onnx_bytes
from whit.export.program import Program
from whit.export.quantization.quantize import quantize
from whit.runs.reader import read_run
from whit.verification.restore import load_run_model

HERE = Path(__file__).parent
LOOP = """#include "{name}.h"
void classify_often(const uint8_t *pixels, void *logits, int times)
{{
    for (int i = 0; i < times; i++)
        {name}_classify(pixels, logits);
}}
"""
TIMES = 20  # calls per measurement


def compiled(program: Program, pixels: np.ndarray, folder: Path) -> Callable[[], None]:
    """Return a function that runs the compiled code TIMES times."""
    files = c_files(program, ".")
    name = source_name(files).removesuffix(".c")
    files[f"{name}.c"] += LOOP.format(name=name).encode()
    library = compile_library(files, folder, [*STRICT_FLAGS, "-O3", "-march=native"])
    logits = np.zeros(len(program.graph.classes), np.int32)
    often = ctypes.CDLL(str(library)).classify_often
    given = ctypes.c_void_p(pixels.ctypes.data), ctypes.c_void_p(logits.ctypes.data), TIMES
    return lambda: often(*given)


def measure(calls: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 3):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if repeat >= 3:  # warm-up
                found[name].append((time.perf_counter() - started) / TIMES * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--write", action="store_true", help="write the table to EXPORT.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    (run,) = (HERE.parent / "records" / "fewest-epochs").glob("*/seed-0")
    trained = load_run_model(read_run(run))
    graph = build_graph(trained)
    quantized = quantize(graph, trained.dataset.train.images)
    image, predictor = trained.split.images[:1], trained.predictor
    pixels = np.ascontiguousarray(image.permute(0, 2, 3, 1).numpy())

    def run_torch() -> None:
        with torch.inference_mode():
            for _ in range(TIMES):
                predictor(trained.normalize(image.float()))

    def onnxruntime_call(content: bytes) -> Callable[[], None]:
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
        calls: dict[str, Callable[[], None]] = {
            "torch, float32": run_torch,
            "onnxruntime, float32": onnxruntime_call(onnx_bytes(graph)),
            "onnxruntime, int8": onnxruntime_call(onnx_bytes(graph, quantized)),
            "C, float32": compiled(float_program(graph), pixels, Path(one)),
            "C, int8": compiled(quantized.program, pixels, Path(other)),
        }
        found = measure(calls, given.repeats)
    references = {name: median(found[f"{name}, float32"]) for name in ("torch", "onnxruntime")}
    load = os.getloadavg()[0]
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True)
    lines = [
        "# Speed of exported networks",
        "",
        f"Command: `python benchmarks/exported.py --repeats {given.repeats} --write`. "
        "fewest-epochs, seed 0; one image, one thread; medians of alternating "
        "measurements, the minimum in parentheses.",
        "",
        f"{torch.cpu.get_capabilities().get('cpu_name')}, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}; load {load:.1f} while it ran"
        f"{' (other processes were running)' if load > 1.5 else ''}. "
        f"{compiler.stdout.splitlines()[0]}; torch {torch.__version__}; "
        f"onnxruntime {onnxruntime.__version__}.",
        "",
        "| runtime | µs per image | speedup over torch | time / onnxruntime |",
        "|---|---|---|---|",
    ]
    for name, times in found.items():
        typical = median(times)
        lines.append(
            f"| {name} | {typical:.0f} ({min(times):.0f}) | {references['torch'] / typical:.2f} "
            f"| {typical / references['onnxruntime']:.2f} |"
        )
    lines += [
        "",
        "Goal: C at least 3 times as fast as torch, and at most twice the time of onnxruntime.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if given.write:
        (HERE / "EXPORT.md").write_text(text)


if __name__ == "__main__":
    main()
