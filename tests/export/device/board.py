"""Exported C code on a Cortex-M: compiled by Debian's cross compiler, run on a board of QEMU.

QEMU counts instructions, not cycles: with `-icount shift=0` each takes one nanosecond of emulated
time, and SysTick has 25 ticks per microsecond. So the resolution is 40 instructions; wait states
and cycles per instruction are not modeled.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from whit.export.c.compile import source_name

HERE = Path(__file__).parent
CC, QEMU = "arm-none-eabi-gcc", "qemu-system-arm"
HAS_TOOLS = shutil.which(CC) is not None and shutil.which(QEMU) is not None
INSTRUCTIONS_PER_TICK = 40
# By processor: machine of QEMU, compiler flags.
BOARDS = {
    "Cortex-M3": ("mps2-an385", ("-mcpu=cortex-m3", "-mthumb")),
    "Cortex-M4": (
        "mps2-an386",
        ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    ),
}
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")
FLAGS = ("-std=c99", "-O2", *_WARNINGS, "-ffunction-sections", "-fdata-sections")


@dataclass(frozen=True)
class Measured:
    """Results and costs on a board.

    flash: bytes of code and constants; ram: static bytes; stack: maximum depth in bytes, including
    the test driver.
    """

    labels: list[int]
    logits: np.ndarray
    instructions: float  # mean per image
    max_instructions: int  # of one image
    flash: int
    ram: int
    stack: int


def measure(
    board: str,
    files: Mapping[str, bytes],
    int8: bool,
    images: Tensor,
    folder: Path,
    sources: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Measured:
    """Compile exported C code for a board and run it on uint8 images (N, C, H, W).

    With several `sources`, the first one is called and may call the others. `options` are further
    ones of the compiler.
    """
    machine, flags = BOARDS[board]
    for name, content in files.items():
        (folder / name).write_bytes(content)
    rows = images.permute(0, 2, 3, 1).contiguous().numpy()
    (folder / "images.bin").write_bytes(struct.pack("<I", len(rows)) + rows.tobytes())
    sources = sources or [source_name(files)]
    stem = sources[0].removesuffix(".c")
    header = files[f"{stem}.h"].decode()
    (classes,) = re.findall(r"_NUM_CLASSES (\d+)", header)
    run([CC, *flags, *FLAGS, *options, "-c", *sources], folder)
    objects = [f"{source.removesuffix('.c')}.o" for source in sources]
    defined = (
        f'-DNETWORK_H="{stem}.h"',
        f"-DCLASSIFY={stem}_classify",
        f"-DPIXELS={rows[0].size}",
        f"-DCLASSES={classes}",
        f"-DLOGIT={'int32_t' if int8 else 'float'}",
    )
    driver = [str(HERE / name) for name in ("start.c", "main.c", "images.S")]
    linked = ("-nostartfiles", "-Wl,--gc-sections", f"-T{HERE / 'board.ld'}")
    output_flags = ("-Wl,-Map=network.map", "-o", "network.elf", *driver, *objects, "-lm")
    run([CC, *flags, "-O2", *defined, f"-I{folder}", *linked, *output_flags], folder)
    alone = ("-display", "none", "-monitor", "none", "-serial", "none")
    counted = ("-icount", "shift=0", "-semihosting-config", "enable=on,target=native")
    output = run([QEMU, "-M", machine, *alone, *counted, "-kernel", "network.elf"], folder)
    *lines, last = [line.split() for line in output.splitlines()]
    assert len(lines) == len(images), output
    numbers = np.array([[int(word, 16) for word in line] for line in lines], np.uint32)
    logits = numbers[:, 2:].view(np.int32 if int8 else np.float32)
    flash, ram = sizes((folder / "network.map").read_text(), f"{stem}.o")
    counts = numbers[:, 1].astype(np.int64) * INSTRUCTIONS_PER_TICK
    stack = int(last[1], 16)
    labels = numbers[:, 0].tolist()
    return Measured(labels, logits, float(counts.mean()), int(counts.max()), flash, ram, stack)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def sizes(text: str, network: str) -> tuple[int, int]:
    """Return the bytes of flash and RAM of the network from the linker's map file.

    Library code that it needs (software floating point, math functions, 64-bit division) counts;
    startup code and the test driver do not.
    """
    flash = ram = 0
    entry = re.compile(
        r"^ (\.(?:text|rodata|data|bss)\S*)\s+0x[0-9a-f]+\s+0x([0-9a-f]+) (\S+)", re.MULTILINE
    )
    _, _, linked = text.partition("Linker script and memory map")
    for section, size, object_file in entry.findall(linked):
        if object_file != network and ".a(" not in object_file:
            continue
        number = int(size, 16)
        if section.startswith((".data", ".bss")):
            ram += number
        if not section.startswith(".bss"):
            flash += number
    return flash, ram
