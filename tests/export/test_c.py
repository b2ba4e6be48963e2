"""The C export: equivalent to the model, reproducible, no compiler warnings, no memory errors.

Sanitized programs run as separate processes, since Python cannot load sanitized libraries.
"""

from __future__ import annotations

import re
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
from whit.export.c.compile import STRICT_FLAGS, c_logits, source_name
from whit.export.c.float_lowering import float_program
from whit.export.c.names import c_name
from whit.export.c.source import c_files, memory_plan
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
    {unit} *logits = malloc({classes} * sizeof *logits);
    while (fread(pixels, 1, {pixels}, stdin) == {pixels}) {{
        {name}_classify(pixels, logits);
        fwrite(logits, sizeof *logits, {classes}, stdout);
    }}
    free(pixels);
    free(logits);
    return 0;
}}
"""


def sanitized(
    program: Program, files: Mapping[str, bytes], folder: Path, *others: str
) -> np.ndarray:
    """Return the logits of some images by a program that aborts at the first invalid access."""
    name, classes = source_name(files).removesuffix(".c"), len(program.graph.classes)
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
def test_c_computes_what_the_model_computes(name: str) -> None:
    images, model = some_images(12), read.network(name)
    with torch.inference_mode():
        expected = model(images.float())
    program = float_program(read.graph(name))
    files = c_files(program, "A network.")
    assert c_files(float_program(read.graph(name)), "A network.") == files
    assert near(c_logits(program, files, images, ["-O1"]).float(), expected)


@pytest.mark.parametrize(
    "name",
    ["fewest-epochs", "Branches", "ChannelsLast", "FullKernel", "Asymmetric", "DeskewedShifts"],
)
@pytest.mark.parametrize("bits", [None, 8, 5], ids=["float", "int8", "5-bit weights"])
def test_sanitizers_find_nothing(name: str, bits: int | None, tmp_path: Path) -> None:
    graph = read.graph(name)
    program = float_program(graph)
    if bits:
        program = quantize(replace(graph, bits=bits), some_images()).program
    files = c_files(program, "A network.")
    logits = sanitized(program, files, tmp_path)
    assert np.isfinite(logits).all()
    if bits:  # also with the tiles of small processors
        assert (sanitized(program, files, tmp_path, "-DSMALL_TILES") == logits).all()


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
def test_clang_agrees(int8: bool) -> None:
    graph, images = read.graph("Branches"), some_images(4)
    program = quantize(graph, images).program if int8 else float_program(graph)
    files = c_files(program, "A network.")
    ours = c_logits(program, files, images, ["-O2"], "clang")
    theirs = c_logits(program, files, images)
    assert torch.equal(ours, theirs) if int8 else near(ours, theirs)


def test_color_images_are_read_in_hwc_layout() -> None:
    torch.manual_seed(5)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(5 * 6 * 7, 4),
    )
    images = torch.randint(0, 256, (6, 3, 6, 7), dtype=torch.uint8)
    graph = fuse(capture_graph(model, (3, 6, 7), ("a", "b", "*/", "ü\n"), "color"))
    program = float_program(graph)
    files = c_files(program, "A network.")
    with torch.inference_mode():
        assert near(c_logits(program, files, images).float(), model(images.float()))
    header = files["color.h"].decode()
    assert "uint8 image, 6 rows x 7 columns x 3 channels (HWC)" in header
    assert "2: * /" in header


@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
def test_the_example_prints_class_names(int8: bool, tmp_path: Path) -> None:
    """The exported folder compiles by the commands of its README and classifies raw images."""
    names = ("zero", 'a "b"\\', "??/", "größe", *"456789")
    graph = replace(read.trained_graph(), classes=names)
    images = read.trained().split.images[:20]
    program = quantize(graph, images).program if int8 else float_program(graph)
    files = c_files(program, "A network.")
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    readme = files["README.md"].decode()
    (link,) = re.findall(r"`(cc .* main\.c .*)`", readme)
    (compiled,) = re.findall(r"^    (cc .*?)(?:  .*)?$", readme, re.MULTILINE)
    for command in (compiled, link):
        subprocess.run([*command.split(), *STRICT_FLAGS], cwd=tmp_path, check=True)
    raw = images.permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    done = subprocess.run([tmp_path / "main"], input=raw, capture_output=True, check=True)
    expected = [names[k] for k in c_logits(program, files, images).argmax(1)]
    assert done.stdout.decode().splitlines() == expected
    assert len(set(expected)) > 5


def test_the_header_describes_the_image_and_the_classes() -> None:
    graph = replace(read.graph("DeskewedShifts"), name="shifts")
    header = c_files(float_program(graph), "A network.")["shifts.h"].decode()
    for name, value in (("HEIGHT", 28), ("WIDTH", 28), ("CHANNELS", 1), ("NUM_CLASSES", 10)):
        assert f"#define SHIFTS_{name} {value}\n" in header
    assert "extern const char *const shifts_class_names[10];" in header
    assert "Resizing an image and scaling its values to 0 to 255 is the caller's job." in header
    assert "in 9 forward passes (test-time augmentation)" in header


def test_the_code_size_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (
        compile.estimate_code_bytes(c_files(float_program(read.graph(name)), "A network."))
        for name in ("ChannelsLast", "Branches")
    )
    assert small is not None
    assert large is not None
    assert 1_000 < small < large < 40_000  # constants alone have more
    monkeypatch.setenv("PATH", "/nowhere")
    assert compile.estimate_code_bytes({"a.h": b"", "a.c": b"int a;"}) is None


def test_shared_weights_are_stored_once() -> None:
    source = c_files(float_program(read.trained_graph()), "A network.")["fewest_epochs.c"].decode()
    assert source.count("conv3_weight[") == 1
    assert source.count("conv3_weight,") == 3
    assert "malloc" not in source


def test_the_header_states_the_requirements() -> None:
    program = float_program(read.trained_graph())
    header = c_files(program, "A network.")["fewest_epochs.h"].decode()
    assert f"{program.constant_bytes:,} bytes of constants" in header
    assert "40,000 bytes for activations (minimal)" in header
    assert "3,085,920 multiply-adds" in header
    assert "int fewest_epochs_classify(const uint8_t pixels[784], float logits[10]);" in header
    assert "Not thread-safe (uses static buffers)." in header


@pytest.mark.parametrize("at", ["compile_library", "classify_each"])
def test_an_unusable_temporary_folder_is_named(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compile, at, failing)
    program = float_program(read.graph("FullKernel"))
    with pytest.raises(RunFailed, match=r"No space left on device\. Set TMPDIR"):
        c_logits(program, c_files(program, "A network."), some_images(1))


def test_no_name_ends_a_comment_or_a_string() -> None:
    odd = ("*é", "a*\\", "/*x", "*/ int a;", "???/", "*\\\\/", "日本", "\n*/", "", "*/*/")
    graph = replace(read.trained_graph(), classes=odd, name="*/ int b; /*\\")
    program = float_program(graph)
    images = some_images(4)
    files = c_files(program, "A network.")
    assert b"int a;" in b"".join(files.values())  # as a comment
    assert b"??" not in b"".join(files.values())
    plain = float_program(read.trained_graph())
    assert torch.equal(
        c_logits(program, files, images, STRICT_FLAGS),
        c_logits(plain, c_files(plain, "A network."), images),
    )


@pytest.mark.parametrize("name", read.NAMES)
def test_memory_plans_are_minimal(name: str) -> None:
    graph = read.graph(name)
    for program in (float_program(graph), quantize(graph, some_images()).program):
        plan = memory_plan(program)
        assert plan.size == plan.lower_bound


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fewest-epochs", "fewest_epochs"),
        ("2 nets", "net_2_nets"),
        ("Ü", "net"),
        ("a*/b", "a_b"),
        ("_x", "x"),
        ("main", "main"),
        ("Math", "net_math"),
        ("int", "net_int"),
        ("a" * 70, "a" * 60),
    ],
)
def test_any_name_becomes_a_c_identifier(name: str, expected: str) -> None:
    assert c_name(name) == expected
    files = c_files(float_program(replace(read.graph("FullKernel"), name=name)), "A network.")
    example = "example.c" if name == "main" else "main.c"
    assert set(files) == {f"{expected}.h", f"{expected}.c", example, "README.md"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_same_class_on_every_test_image(seed: int) -> None:
    run = read.trained(seed)
    expected = predict(run.model, run.split, run.normalize)
    program = float_program(read.trained_graph(seed))
    logits = c_logits(program, c_files(program, "A network."), run.split.images)
    assert (logits.argmax(1) == expected.argmax(1)).sum() == len(run.split) == 10_000
