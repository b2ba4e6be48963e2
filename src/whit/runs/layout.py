"""The names of the files of a run, and how a run folder is recognized.

runs/<name>-<seed>-<stamp>/
    recipe.toml          complete, defaults included
    environment.json     versions, processor, threads, code state, data
    log.jsonl            one record per epoch
    result.json          written last: a folder without it is an unfinished run
    weights.safetensors  after the last epoch
    audit.txt            the layer table and the verdict
    model.py             of a user's own model: a copy of its source
    model/               the modules that it imports from beside it
    checkpoint/          while the run is unfinished: its state, and its lock
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from whit.recipes.model_ref import COPY_FILE, COPY_FOLDER
from whit.recipes.recipe import RECIPE_FILE

RECIPE = RECIPE_FILE
ENVIRONMENT = "environment.json"
LOG = "log.jsonl"
RESULT = "result.json"
WEIGHTS = "weights.safetensors"
AUDIT = "audit.txt"
MODEL, MODEL_FOLDER = COPY_FILE, COPY_FOLDER
CHECKPOINTS = "checkpoint"
LOCK, LOCK_HOLDER = "lock", "owner.json"  # in CHECKPOINTS
LOCK_FILES = (f"{CHECKPOINTS}/{LOCK}", f"{CHECKPOINTS}/{LOCK_HOLDER}")

RECORD_FILES = (RECIPE, ENVIRONMENT, LOG, RESULT)  # all that `read_run` reads
FILES = (*RECORD_FILES, WEIGHTS, AUDIT)
TEXT_FILES = (*RECORD_FILES, AUDIT)
_MODEL_MODULE = re.compile(rf"{MODEL_FOLDER}(/\w+)+\.py")  # of a module; dots are folders
MAX_MODEL_MODULES = 1000
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
    if is_model_file(name):
        return True
    return name in FILES or (folder == CHECKPOINTS and bool(CHECKPOINT_NAME.fullmatch(file)))


def is_model_file(name: str) -> bool:
    """Whether a path relative to a run folder is one of the copy of a user's own model."""
    return name == MODEL or bool(_MODEL_MODULE.fullmatch(name))


def find_model_files(path: Path) -> list[str]:
    """Return the files of the copy of a user's own model, relative to the run folder."""
    names = [MODEL] if os.path.lexists(path / MODEL) else []
    for folder, folders, files in os.walk(path / MODEL_FOLDER):
        relative = Path(folder).relative_to(path).as_posix()
        names += [f"{relative}/{file}" for file in files if is_model_file(f"{relative}/{file}")]
        folders.sort()
        if len(names) > MAX_MODEL_MODULES:
            break
    return sorted(names)
