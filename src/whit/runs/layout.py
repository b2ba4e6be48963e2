"""The names of the files of a run, and how a run folder is recognized.

runs/<name>-<seed>-<stamp>/
    recipe.toml          complete, defaults included
    environment.json     versions, processor, threads, code state, data
    log.jsonl            one record per epoch
    result.json          written last: a folder without it is an unfinished run
    weights.safetensors  after the last epoch
    audit.txt            the layer table and the verdict
    checkpoint/          while the run is unfinished: its state, and its lock
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from whit.recipes.recipe import RECIPE_FILE

RECIPE = RECIPE_FILE
ENVIRONMENT = "environment.json"
LOG = "log.jsonl"
RESULT = "result.json"
WEIGHTS = "weights.safetensors"
MAX_WEIGHTS_BYTES = 4 << 30  # larger files are not read
AUDIT = "audit.txt"
CHECKPOINTS = "checkpoint"
LOCK, LOCK_HOLDER = "lock", "owner.json"  # in CHECKPOINTS
LOCK_FILES = (f"{CHECKPOINTS}/{LOCK}", f"{CHECKPOINTS}/{LOCK_HOLDER}")

RECORD_FILES = (RECIPE, ENVIRONMENT, LOG, RESULT)  # all that `read_run` reads
FILES = (*RECORD_FILES, WEIGHTS, AUDIT)
TEXT_FILES = (*RECORD_FILES, AUDIT)
CHECKPOINT_NAME = re.compile(r"([0-9]{6,})-([0-9a-f]{16})\.safetensors")  # number, digest


def is_run(path: Path) -> bool:
    """Distinguish a run from the folder of a trial, which contains a recipe and its runs."""
    # A run has the first of these from the start, and others if that one was lost.
    others = (ENVIRONMENT, CHECKPOINTS, LOG, RESULT)
    return has_recipe(path) and any(os.path.lexists(path / name) for name in others)


def has_recipe(path: Path) -> bool:
    """Whether a recipe is in a folder; False for a folder without permission to read it."""
    return os.path.isfile(path / RECIPE)


def is_run_file(name: str) -> bool:
    """Whether a path relative to a run folder is one that whit writes, except the lock's."""
    folder, _, file = name.rpartition("/")
    return name in FILES or (folder == CHECKPOINTS and bool(CHECKPOINT_NAME.fullmatch(file)))
