"""A folder of files that is whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from whit.durable import sync_folder, write_whole


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder beside its name and give it its name as one step.

    Raises OSError; nothing is left then, nor when a signal ends it.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir()
        for name, content in files.items():
            write_whole(beside / name, content)
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(target.parent)
