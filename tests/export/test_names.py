"""Several exported networks in one program: valid names, and symbols that do not collide."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from export import read
from export.device.board import HAS_TOOLS, measure
from export.zoo import some_images
from whit import export
from whit.errors import InputError
from whit.export.c.compile import source_name
from whit.export.c.float_lowering import float_program
from whit.export.c.names import name_problem
from whit.export.c.source import c_files
from whit.export.ir.interpreter import run_logits
from whit.export.program import Program
from whit.export.quantization.quantize import quantize
from whit.export.quantization.reference import int8_logits

needs_cc = pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "g++", "nm"))), reason="there is no gcc"
)
C_FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
CPP_FLAGS = ("-Wall", "-Wextra", "-Werror", "-std=c++17")
NETWORKS = {  # by prefix; None: the default
    None: ("Branches", 8, False),
    "branches_int8": ("Branches", 8, True),
    "five_bits": ("Branches", 5, True),
    "Shifts": ("DeskewedShifts", 8, False),
    "shifts_int8": ("DeskewedShifts", 5, True),
}


@cache
def programs() -> dict[str, tuple[Program, Mapping[str, bytes]]]:
    """A program and its files by prefix."""
    found = {}
    for given, (network, bits, int8) in NETWORKS.items():
        graph = replace(read.graph(network), bits=bits)
        program = quantize(graph, some_images()).program if int8 else float_program(graph)
        files = c_files(program, "A network.", None if given == "branches_int8" else given)
        found[source_name(files).removesuffix(".c")] = (program, files)
    assert list(found) == [name or "branches" for name in NETWORKS]
    return found


def write(folder: Path) -> None:
    for _, files in programs().values():
        for name, content in files.items():
            (folder / name).write_bytes(content)


def caller() -> str:
    """The source of a program, valid in C and in C++, that prints the logits of each network."""
    lines = ["#include <stdio.h>"]
    lines += [f'#include "{name}.h"' for name in programs()]
    lines += ["int main(void)", "{", "    static uint8_t pixels[784];"]
    lines += [
        "    if (fread(pixels, 1, sizeof pixels, stdin) != sizeof pixels)",
        "        return 1;",
    ]
    for name, (program, _) in programs().items():
        macro, number = name.upper(), "int32_t" if program.int8 else "float"
        lines += [
            f"    static {number} of_{name}[{macro}_NUM_CLASSES];",
            f'    printf("%s", {name}_class_names[{name}_classify(pixels, of_{name})]);',
            f"    for (int k = 0; k < {macro}_NUM_CLASSES; k++)",
            f'        printf(" %.9g", (double)of_{name}[k]);',
            f'    printf(" %d\\n", {macro}_HEIGHT * {macro}_WIDTH * {macro}_CHANNELS);',
        ]
    return "\n".join([*lines, "    return 0;", "}", ""])


@needs_cc
@pytest.mark.parametrize("language", ["c", "c++"])
def test_several_networks_in_one_program(language: str, tmp_path: Path) -> None:
    write(tmp_path)
    for name in programs():
        command = ["gcc", *C_FLAGS, "-O1", "-c", f"{name}.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
    file = "all.c" if language == "c" else "all.cpp"
    (tmp_path / file).write_text(caller())
    compiler = ["gcc", *C_FLAGS] if language == "c" else ["g++", *CPP_FLAGS]
    objects = [f"{name}.o" for name in programs()]
    subprocess.run([*compiler, "-o", "all", file, *objects, "-lm"], cwd=tmp_path, check=True)
    image = some_images(1)
    given = image.numpy().tobytes()
    done = subprocess.run([tmp_path / "all"], input=given, capture_output=True, check=True)
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert len(lines) == len(programs())
    for (label, *logits, pixels), (program, _) in zip(lines, programs().values(), strict=True):
        found = np.array(logits, float)
        assert pixels == "784"
        assert label == str(found.argmax())
        if program.int8:
            assert (found == int8_logits(program, image)[0]).all()
        else:
            expected = run_logits(program.graph, image)[0].numpy()
            assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


@needs_cc
def test_no_other_symbol_is_external(tmp_path: Path) -> None:
    write(tmp_path)
    for name in programs():
        # Unoptimized, so that no function disappears by inlining.
        subprocess.run(["gcc", *C_FLAGS, "-O0", "-c", f"{name}.c"], cwd=tmp_path, check=True)
        command = ["nm", "--extern-only", "--defined-only", "--format=posix", f"{name}.o"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        symbols = {line.split()[0] for line in done.stdout.splitlines()}
        assert symbols == {f"{name}_classify", f"{name}_class_names"}


@needs_cc
def test_every_macro_of_a_header_has_its_prefix(tmp_path: Path) -> None:
    write(tmp_path)
    for name in programs():
        for language in ("c", "c++"):
            macros = []
            for source in ("#include <stdint.h>\n", f'#include "{name}.h"\n'):
                command = ["gcc", "-x", language, "-dM", "-E", f"-I{tmp_path}", "-"]
                done = subprocess.run(
                    command, input=source, capture_output=True, text=True, check=True
                )
                macros.append({line.split()[1] for line in done.stdout.splitlines()})
            own = macros[1] - macros[0]
            assert {macro.partition("(")[0] for macro in own} == {
                f"{name.upper()}_{suffix}"
                for suffix in ("H", "HEIGHT", "WIDTH", "CHANNELS", "NUM_CLASSES")
            }


@pytest.mark.skipif(not HAS_TOOLS, reason="no ARM compiler or no QEMU for ARM")
def test_float_and_int8_in_one_program_on_a_cortex(tmp_path: Path) -> None:
    """A third function calls both; the bits of the int8 logits follow those of float."""
    graph, images = read.trained_graph(), read.trained().split.images[:2]
    both = float_program(graph), read.trained_int8().program
    files = {
        name: content
        for program in both
        for name, content in c_files(program, "A network.").items()
    }
    files["both.h"] = b"#include <stdint.h>\n#define BOTH_NUM_CLASSES 20\n" + (
        b"int both_classify(const uint8_t *pixels, float *logits);\n"
    )
    files["both.c"] = b"""
#include <string.h>
#include "fewest_epochs.h"
#include "fewest_epochs_int8.h"
#include "both.h"
int both_classify(const uint8_t *pixels, float *logits)
{
    int32_t quantized[FEWEST_EPOCHS_INT8_NUM_CLASSES];
    const int a = fewest_epochs_classify(pixels, logits);
    const int b = fewest_epochs_int8_classify(pixels, quantized);
    memcpy(logits + FEWEST_EPOCHS_NUM_CLASSES, quantized, sizeof quantized);
    return 100 * a + b;
}
"""
    sources = ("both.c", "fewest_epochs.c", "fewest_epochs_int8.c")
    found = measure("Cortex-M4", files, False, images, tmp_path, sources)
    expected = run_logits(graph, images)
    integers = int8_logits(both[1], images)
    assert np.allclose(found.logits[:, :10], expected.numpy(), rtol=1e-3, atol=1e-3)
    assert (found.logits[:, 10:].view(np.int32) == integers).all()
    pairs = zip(expected.argmax(1).tolist(), integers.argmax(1).tolist(), strict=True)
    assert found.labels == [100 * a + b for a, b in pairs]


@pytest.mark.parametrize("name", ["a", "net", "KWS_Model2", "main", "x1_y2", "classify", "a" * 60])
def test_names_that_are_allowed(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("int", "keyword"),
        ("class", "keyword"),
        ("restrict", "keyword"),
        ("stdint", "standard library"),
        ("Math", "standard library"),
        ("int8", "standard library"),
        ("uint_fast16", "standard library"),
        ("a" * 61, "61 characters"),
        *((name, "no such identifier") for name in ("2nets", "my-net", "_a", "a_", "a__b", "a b")),
        *((name, "no such identifier") for name in ("größe", "a.b", "a/b", "../a", "a\n", "ａ")),
    ],
)
def test_names_that_are_refused(name: str, why: str, tmp_path: Path) -> None:
    assert why in str(name_problem(name))
    with pytest.raises(InputError, match="allowed: a C identifier of at most 60 letters"):
        export(read.recorded(0), "c", tmp_path / "made", name=name)


def test_a_name_is_for_symbols(tmp_path: Path) -> None:
    for target in ("onnx", "html"):
        with pytest.raises(
            InputError, match=f"the {target} format has no symbol names.* --format c"
        ):
            export(read.recorded(0), target, tmp_path / "made", name="mine")


@pytest.mark.slow
@needs_cc
def test_a_named_export_is_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = export(read.recorded(0), "c", name="mine")
    assert result.path == Path("mine.c")
    assert {path.name for path in result.path.iterdir()} == {
        *("mine.c", "mine.h", "main.c", "README.md"),
    }
