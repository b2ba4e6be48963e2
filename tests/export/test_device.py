"""The C export on a Cortex-M in QEMU: the same classes as on this machine, bit by bit in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export import read
from export.device.board import BOARDS, HAS_TOOLS, Measured, measure
from whit.export.c.float_lowering import float_program
from whit.export.c.source import c_files, memory_plan
from whit.export.ir.interpreter import run_logits
from whit.export.program import Program
from whit.export.quantization.reference import int8_logits

pytestmark = pytest.mark.skipif(not HAS_TOOLS, reason="no ARM compiler or no QEMU for ARM")


def measured(program: Program, board: str, count: int, folder: Path, *options: str) -> Measured:
    files, images = c_files(program, "A network."), read.trained().split.images[:count]
    found = measure(board, files, program.int8, images, folder, options=options)
    if program.int8:
        assert np.array_equal(found.logits, int8_logits(program, images))
    expected = found.logits if program.int8 else run_logits(read.trained_graph(), images).numpy()
    assert found.labels == expected.argmax(1).tolist()
    unit = 1 if program.int8 else 4
    assert program.constant_bytes < found.flash < program.constant_bytes + 16_000
    assert found.ram == unit * memory_plan(program).size
    return found


@pytest.mark.parametrize("board", BOARDS)
def test_a_few_images(board: str, tmp_path: Path) -> None:
    found = measured(read.trained_int8().program, board, 4, tmp_path)
    assert 0 < found.stack < 4096
    assert found.instructions > 3_085_920  # multiply-adds


def test_dsp_instructions_give_the_same_bits_in_half_the_instructions(tmp_path: Path) -> None:
    """`measured` compares both with the reference."""
    program = read.trained_int8().program
    with_dsp = measured(program, "Cortex-M4", 3, tmp_path)
    without = measured(program, "Cortex-M4", 3, tmp_path, "-DNO_DSP")
    assert with_dsp.instructions < 0.5 * without.instructions


@pytest.mark.parametrize("options", [("-O0",), ("-Os",), ("-O3",)])
def test_dsp_instructions_at_any_optimization(options: tuple[str, ...], tmp_path: Path) -> None:
    measured(read.trained_int8().program, "Cortex-M4", 2, tmp_path, *options)


def test_a_few_images_in_float(tmp_path: Path) -> None:
    measured(float_program(read.trained_graph()), "Cortex-M4", 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
def test_a_thousand_images(board: str, tmp_path: Path) -> None:
    measured(read.trained_int8().program, board, 1000, tmp_path)


@pytest.mark.slow
def test_a_thousand_images_in_float(tmp_path: Path) -> None:
    measured(float_program(read.trained_graph()), "Cortex-M4", 1000, tmp_path)
