"""The C form in float32: as the network, clean for compilers and sanitizers, bytes of its own.

Sanitized programs are processes of their own, as nothing sanitized can be loaded into Python.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export import read
from export.test_onnx import near
from export.zoo import some_images
from whit.errors import RunFailed
from whit.export.c import compile
from whit.export.c.compile import STRICT_FLAGS, c_logits
from whit.export.c.float_lowering import float_program
from whit.export.c.source import c_files, c_name, memory_plan
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.export.program import Program
from whit.export.quantization.quantize import quantize
from whit.training.evaluation import predict

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
]
DRIVER = """
#include <stdio.h>
#include "{name}.h"
int main(void)
{{
    uint8_t *pixels = malloc({pixels});
    {unit} *scores = malloc({classes} * sizeof *scores);
    while (fread(pixels, 1, {pixels}, stdin) == {pixels}) {{
        {name}_classify(pixels, scores);
        fwrite(scores, sizeof *scores, {classes}, stdout);
    }}
    free(pixels);
    free(scores);
    return 0;
}}
"""


def sanitized(
    program: Program, files: Mapping[str, bytes], folder: Path, *others: str
) -> np.ndarray:
    """Return the scores of some images by a program that stops at the first wrong access."""
    name, classes = c_name(program.graph.name), len(program.graph.classes)
    unit = "int32_t" if program.int8 else "float"
    driver = DRIVER.format(name=name, pixels=784, classes=classes, unit=unit)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    (folder / "main.c").write_text("#include <stdlib.h>\n" + driver)
    flags = [
        *STRICT_FLAGS,
        *others,
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    built = ["cc", *flags, "-o", "network", f"{name}.c", "main.c", "-lm"]
    subprocess.run(built, cwd=folder, check=True)
    given = some_images(4).numpy().tobytes()
    done = subprocess.run([folder / "network"], input=given, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    numbers = np.frombuffer(done.stdout, np.int32 if program.int8 else np.float32)
    return numbers.reshape(4, classes)


@pytest.mark.parametrize("name", read.NAMES)
def test_the_c_form_gives_what_the_network_gives(name: str) -> None:
    images, model = some_images(12), read.network(name)
    with torch.inference_mode():
        wanted = model(images.float())
    program = float_program(read.graph(name))
    files = c_files(program, "A network.")
    assert c_files(float_program(read.graph(name)), "A network.") == files
    assert near(c_logits(program, files, images, ["-O1"]).float(), wanted)


@pytest.mark.parametrize(
    "name", ["fewest-epochs", "Branches", "Turned", "Whole", "Halves", "Looking"]
)
@pytest.mark.parametrize("bits", [None, 8, 5], ids=["float", "int8", "five bits"])
def test_sanitizers_find_nothing(name: str, bits: int | None, tmp_path: Path) -> None:
    graph = read.graph(name)
    program = float_program(graph)
    if bits:
        program = quantize(replace(graph, bits=bits), some_images()).program
    files = c_files(program, "A network.")
    scores = sanitized(program, files, tmp_path)
    assert np.isfinite(scores).all()
    if bits:  # in the tiles of small processors, too
        assert (sanitized(program, files, tmp_path, "-DSMALL_TILES") == scores).all()


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
def test_clang_agrees(int8: bool) -> None:
    graph, images = read.graph("Branches"), some_images(4)
    program = quantize(graph, images).program if int8 else float_program(graph)
    files = c_files(program, "A network.")
    ours = c_logits(program, files, images, ["-O2"], "clang")
    theirs = c_logits(program, files, images)
    assert torch.equal(ours, theirs) if int8 else near(ours, theirs)


def test_three_channels_lie_side_by_side() -> None:
    """Colour images are read place by place, as screens and cameras have them."""
    torch.manual_seed(5)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(5 * 6 * 7, 4),
    )
    images = torch.randint(0, 256, (6, 3, 6, 7), dtype=torch.uint8)
    graph = fuse(capture_graph(model, (3, 6, 7), ("a", "b", "*/", "ü\n"), "colour"))
    program = float_program(graph)
    files = c_files(program, "A network.")
    with torch.inference_mode():
        assert near(c_logits(program, files, images).float(), model(images.float()))
    header = files["colour.h"].decode()
    assert "6 lines of 7 places of 3 bytes" in header
    assert "2: * /" in header


def test_shared_weights_are_stored_once() -> None:
    source = c_files(float_program(read.trained_graph()), "A network.")["fewest_epochs.c"].decode()
    assert source.count("conv3_weight[") == 1
    assert source.count("conv3_weight,") == 3
    assert "malloc" not in source


def test_the_header_says_what_the_network_needs() -> None:
    program = float_program(read.trained_graph())
    header = c_files(program, "A network.")["fewest_epochs.h"].decode()
    assert f"{program.constant_bytes:,} bytes of constants" in header
    assert "40,000 bytes for activations (no plan needs less)" in header
    assert "3,085,920 multiply-adds" in header
    assert "int fewest_epochs_classify(const uint8_t pixels[784], float scores[10]);" in header


@pytest.mark.parametrize("at", ["compile_library", "classify_each"])
def test_a_folder_that_takes_no_program_is_named(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compile, at, failing)
    program = float_program(read.graph("Whole"))
    with pytest.raises(RunFailed, match=r"No space left on device\. Set TMPDIR"):
        c_logits(program, c_files(program, "A network."), some_images(1))


def test_no_name_breaks_out_of_a_comment() -> None:
    odd = ("*é", "a*\\", "/*x", "*/ int a;", "???/", "*\\\\/", "日本", "\n*/", "", "*/*/")
    graph = replace(read.trained_graph(), classes=odd, name="*/ int b; /*\\")
    program = float_program(graph)
    images = some_images(4)
    files = c_files(program, "A network.")
    assert b"int a;" in b"".join(files.values())  # as a comment
    assert b"??" not in b"".join(files.values())
    whole = float_program(read.trained_graph())
    assert torch.equal(
        c_logits(program, files, images, STRICT_FLAGS),
        c_logits(whole, c_files(whole, "A network."), images),
    )


@pytest.mark.parametrize("name", read.NAMES)
def test_memory_is_planned_to_the_least(name: str) -> None:
    graph = read.graph(name)
    for program in (float_program(graph), quantize(graph, some_images()).program):
        plan = memory_plan(program)
        assert plan.size == plan.lower_bound


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("fewest-epochs", "fewest_epochs"),
        ("2 nets", "net_2_nets"),
        ("Ü", "net"),
        ("a*/b", "a_b"),
        ("_x", "x"),
    ],
)
def test_any_name_becomes_one_of_c(given: str, wanted: str) -> None:
    assert c_name(given) == wanted
    files = c_files(float_program(replace(read.graph("Whole"), name=given)), "A network.")
    assert set(files) == {f"{wanted}.h", f"{wanted}.c", "README.md"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_same_class_on_every_test_image(seed: int) -> None:
    run = read.trained(seed)
    wanted = predict(run.model, run.split, run.normalize)
    program = float_program(read.trained_graph(seed))
    logits = c_logits(program, c_files(program, "A network."), run.split.images)
    assert (logits.argmax(1) == wanted.argmax(1)).sum() == len(run.split) == 10_000
