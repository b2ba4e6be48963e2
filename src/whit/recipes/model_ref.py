"""What a recipe's `model.name` refers to: a registry name, a user's file, or a model in memory.

Loading a user's file runs its code, so whether a name means one is decided here alone.
"""

from __future__ import annotations

import os
from pathlib import Path

from whit.errors import SourceError
from whit.system.file_names import name_problem

SUFFIXES = (".py", ".ipynb")
# The copy of a user's own model in a run folder: its file, and the modules that it imports.
COPY_FILE, COPY_FOLDER = "model.py", "model"
MAX_COPY_MODULES = 1000
USER_MODULE = "_whit_user_"  # begins the name of the module that a user's file is executed as
IN_MEMORY = "python:"  # before the class name of a model that was passed as an object


def is_model_path(name: str) -> bool:
    """Return whether `name` refers to a user's file, valid or not.

    True for a path with a suffix or a folder in it and `:Name`, and for a bare `.py` or `.ipynb`
    path. False for registry names, run folders (also `C:\\runs\\one`) and models in memory.
    """
    if name.startswith(IN_MEMORY):
        return False
    path, colon, class_name = name.rpartition(":")
    if name.lower().endswith(SUFFIXES) or path.lower().endswith(SUFFIXES):
        return True
    return bool(colon and set(path) & set("./\\")) and class_name.isidentifier()


def split_model_path(name: str) -> tuple[str, str]:
    """Return the path of a user's file, and the rest of `name`: a colon and a class, or nothing."""
    if name.lower().endswith(SUFFIXES):
        return name, ""
    path, colon, class_name = name.rpartition(":")
    return path, colon + class_name


def check_model_name(name: str) -> None:
    """Raise SourceError for a path that no file of a run can hold."""
    if problem := name_problem(name):
        raise SourceError(f"{name!r}: {problem}; rename the file.")


def reject_code_in_run(name: str, run: Path) -> None:
    """Raise SourceError if `name` refers to a file in the run folder `run`.

    A run folder is untrusted: no code in it is executed. A user's file elsewhere is code that
    they chose to run when they trained.
    """
    if not is_model_path(name):
        return
    path = Path(os.path.realpath(split_model_path(name)[0]))
    if path.is_relative_to(os.path.realpath(run)):
        raise SourceError(
            f"{run}: its recipe names {name}, a file in the run folder itself; code in a run "
            "folder is never executed. If it is your own code, move it elsewhere and use that path."
        )
