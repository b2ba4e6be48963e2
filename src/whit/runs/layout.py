"""The names of the files of a run, and how run folders are recognized and found.

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
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from whit.errors import InputError
from whit.recipes.model_ref import COPY_FILE, COPY_FOLDER, MAX_COPY_MODULES
from whit.recipes.recipe import RECIPE_FILE

RECIPE = RECIPE_FILE
ENVIRONMENT = "environment.json"
LOG = "log.jsonl"
RESULT = "result.json"
WEIGHTS = "weights.safetensors"
MAX_WEIGHTS_BYTES = 4 << 30  # larger files are not read
AUDIT = "audit.txt"
MODEL, MODEL_FOLDER = COPY_FILE, COPY_FOLDER
CHECKPOINTS = "checkpoint"
LOCK, LOCK_HOLDER = "lock", "owner.json"  # in CHECKPOINTS
LOCK_FILES = (f"{CHECKPOINTS}/{LOCK}", f"{CHECKPOINTS}/{LOCK_HOLDER}")

RECORD_FILES = (RECIPE, ENVIRONMENT, LOG, RESULT)  # all that `read_run` reads
FILES = (*RECORD_FILES, WEIGHTS, AUDIT)
TEXT_FILES = (*RECORD_FILES, AUDIT)
_MODEL_MODULE = re.compile(rf"{MODEL_FOLDER}(/\w+)+\.py")  # of a module; dots are folders
MAX_FOLDERS = 20_000  # that are searched for runs, for a user who gives /
CHECKPOINT_NAME = re.compile(r"([0-9]{6,})-([0-9a-f]{16})\.safetensors")  # number, digest


def is_run(path: Path) -> bool:
    """Distinguish a run from the folder of a trial, which contains a recipe and its runs.

    One file may have been lost, the recipe too: a run that cannot be read must not disappear.
    """
    files = sum(os.path.lexists(path / name) for name in FILES)
    return files > 1 or (files == 1 and os.path.isdir(path / CHECKPOINTS))


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
        if len(names) > MAX_COPY_MODULES:
            break
    return sorted(names)


def find_runs(roots: Sequence[Path]) -> list[Path]:
    """Return the run folders at or directly under `roots`, by name.

    Raises InputError for a folder that may not be listed.
    """
    runs = []
    for root in roots:
        if is_run(root):
            runs.append(root)
        elif root.is_dir():
            runs += [path for path in list_folder(root) if is_run(path)]
    return runs


def list_folder(folder: Path) -> list[Path]:
    """Return the paths in a folder, by name. Raises InputError when it may not be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}.") from None


def walk_runs(
    path: str, depth: int, remaining: list[int], known: Collection[str] = ()
) -> Iterator[str]:
    """Yield the run folders at or below a folder, by name. Enters no links and no runs.

    At most `remaining[0]` folders are listed, which is counted down. A folder that is `known` as a
    run is not listed again, where its files are checked anyway.
    """
    if path in known:
        yield path
        return
    remaining[0] -= 1
    if remaining[0] < 0:
        return
    files, folders = set(), []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    files.add(entry.name)
    except OSError:
        return  # deleted meanwhile, or without permission
    if _looks_like_run(path, files, folders):
        yield path
        return
    if depth == 0:
        return
    for name in sorted(folders):
        if not name.startswith("."):  # a run that is being created, or not a folder of whit's
            yield from walk_runs(os.path.join(path, name), depth - 1, remaining, known)


def _looks_like_run(path: str, files: set[str], folders: list[str]) -> bool:
    """Whether a folder is a run, and not that of a trial, which holds a recipe and its runs."""
    run_files = files & set(FILES)
    if len(run_files) > 1 or (run_files and CHECKPOINTS in folders):
        return True
    is_trial = folders or os.path.basename(os.path.dirname(path)) == "trials"
    return RECIPE in files and not is_trial
