"""A C form on a Cortex-M: built by Debian's compiler for it, and run on a board of QEMU.

QEMU counts instructions, not cycles: with `-icount shift=0` each takes one nanosecond of the
board's time, whose SysTick counts 25 a microsecond. So the count is true to 40 instructions, and
says nothing about wait states or how many cycles an instruction takes.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

HERE = Path(__file__).parent
CC, QEMU = "arm-none-eabi-gcc", "qemu-system-arm"
HAS_TOOLS = shutil.which(CC) is not None and shutil.which(QEMU) is not None
INSTRUCTIONS_A_TICK = 40
# Name, QEMU's board, and the compiler's flags.
BOARDS = {
    "Cortex-M3": ("mps2-an385", ("-mcpu=cortex-m3", "-mthumb")),
    "Cortex-M4": (
        "mps2-an386",
        ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    ),
}
# As small as the compiler makes it, and loops as fast as it makes them in that.
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffunction-sections")


@dataclass(frozen=True)
class Measured:
    """What a board answered, and what it took.

    flash: bytes of code and constants; ram: static bytes; stack: bytes at its deepest, the
    driver's few included.
    """

    answers: list[int]
    scores: np.ndarray
    instructions: float  # for one image, the mean
    flash: int
    ram: int
    stack: int


def measure(
    board: str, files: Mapping[str, bytes], int8: bool, images: Tensor, folder: Path
) -> Measured:
    """Build a C form for a board and run it on uint8 images (N, C, H, W)."""
    machine, flags = BOARDS[board]
    for name, content in files.items():
        (folder / name).write_bytes(content)
    rows = images.permute(0, 2, 3, 1).contiguous().numpy()
    (folder / "images.bin").write_bytes(struct.pack("<I", len(rows)) + rows.tobytes())
    (source,) = (name for name in files if name.endswith(".c"))
    stem = source.removesuffix(".c")
    header = files[f"{stem}.h"].decode()
    (classes,) = re.findall(r"scores\[(\d+)\]", header)
    run([CC, *flags, *FLAGS, "-c", source], folder)
    defined = (
        f'-DNETWORK_H="{stem}.h"',
        f"-DCLASSIFY={stem}_classify",
        f"-DPIXELS={rows[0].size}",
        f"-DCLASSES={classes}",
        f"-DSCORE={'int32_t' if int8 else 'float'}",
    )
    own = [str(HERE / name) for name in ("start.c", "main.c", "images.S")]
    linked = ("-nostartfiles", "-Wl,--gc-sections", f"-T{HERE / 'board.ld'}")
    made = ("-Wl,-Map=network.map", "-o", "network.elf", *own, f"{stem}.o", "-lm")
    run([CC, *flags, "-O2", *defined, f"-I{folder}", *linked, *made], folder)
    alone = ("-display", "none", "-monitor", "none", "-serial", "none")
    counted = ("-icount", "shift=0", "-semihosting-config", "enable=on,target=native")
    said = run([QEMU, "-M", machine, *alone, *counted, "-kernel", "network.elf"], folder)
    *lines, last = [line.split() for line in said.splitlines()]
    assert len(lines) == len(images), said
    numbers = np.array([[int(word, 16) for word in line] for line in lines], np.uint32)
    scores = numbers[:, 2:].view(np.int32 if int8 else np.float32)
    flash, ram = sizes((folder / "network.map").read_text(), f"{stem}.o")
    ticks = float(numbers[:, 1].mean())
    stack = int(last[1], 16)
    answers = numbers[:, 0].tolist()
    return Measured(answers, scores, ticks * INSTRUCTIONS_A_TICK, flash, ram, stack)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def sizes(text: str, network: str) -> tuple[int, int]:
    """Return the bytes of flash and of memory that the linker's map gives to the network.

    What libraries add for it (soft floating point, mathematics, 64-bit division) counts as its
    own; start-up and the driver of the test do not.
    """
    flash = ram = 0
    entry = re.compile(
        r"^ (\.(?:text|rodata|data|bss)\S*)\s+0x[0-9a-f]+\s+0x([0-9a-f]+) (\S+)", re.MULTILINE
    )
    _, _, linked = text.partition("Linker script and memory map")
    for section, size, place in entry.findall(linked):
        if place != network and ".a(" not in place:
            continue
        number = int(size, 16)
        if section.startswith((".data", ".bss")):
            ram += number
        if not section.startswith(".bss"):
            flash += number
    return flash, ram
