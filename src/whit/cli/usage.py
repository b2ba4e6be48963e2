"""Usage errors: what is wrong, and what to type here where other tools have another option."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from typer.exceptions import TyperException

from whit.errors import did_you_mean
from whit.system.console import echo

# Options of other training tools whose name is not that of a recipe key.
_SYNONYMS = {
    "arch": "model.name",
    "architecture": "model.name",
    "bs": "train.batch_size",
    "batch": "train.batch_size",
    "dataset": "data.name",
    "dropout": "model.dropout",
    "ema": "ema.decay",
    "learning_rate": "optim.lr",
    "mixed_precision": "train.precision",
    "model": "model.name",
    "num_epochs": "train.epochs",
    "opt": "optim.name",
    "optimizer": "optim.name",
    "scheduler": "schedule.name",
    "lr_scheduler": "schedule.name",
    "tta": "eval.tta_shifts",
    "val_split": "data.val_size",
    "wd": "optim.weight_decay",
}
_OPTIONS = {
    "checkpoint": "--resume RUN",
    "config": "RECIPE, the path of a .toml file, without an option",
    "cuda": "--device cuda",
    "gpu": "--device cuda",
    "no_cuda": "--device cpu",
    "num_threads": "--threads N",
    "num_workers": "--threads N",
    "output": "--out FOLDER",
    "output_dir": "--out FOLDER",
    "random_seed": "--seed N",
    "save_dir": "--out FOLDER",
    "silent": "--quiet",
    "workers": "--threads N",
}


def report_usage_error(error: TyperException, arguments: Sequence[str]) -> int:
    """Print a usage error to standard error, with a hint; return the exit code."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "whit"
    option = getattr(error, "option_name", None)
    sentence = _sentence(error)
    if isinstance(option, str) and hasattr(error, "possibilities"):  # an unknown option
        options = _options(context)
        hint = suggest_option(option, arguments, options)
        hint = f" {hint}" if hint else did_you_mean(option, options)
        sentence = f"{command} has no option {option}.{hint}"
    echo(f"whit: {sentence}\nSee `{command} --help`.", sys.stderr)
    return int(getattr(error, "exit_code", 2))


def suggest_option(option: str, arguments: Sequence[str], options: Sequence[str]) -> str:
    """Return what to type instead of an option that a command does not have; empty if unknown.

    `arguments` are those of the command line, `options` those that the command has.
    """
    name = option.lstrip("-").replace("-", "_").lower()
    if name in _OPTIONS and _OPTIONS[name].split()[0] in (*options, "RECIPE,"):
        return f"Use {_OPTIONS[name]}."
    if "--set" not in options:
        return ""
    keys = _keys_named(name)
    if not keys:
        return ""
    value = _value_of(option, arguments)
    given = " or ".join(f"--set {key}={value}" for key in keys)
    return f"It is a key of the recipe: use {given}."


def _keys_named(name: str) -> list[str]:
    from whit.recipes.recipe import Recipe, list_keys

    if name in _SYNONYMS:
        return [_SYNONYMS[name]]
    if name in ("name", "start"):  # keys of several tables
        return []
    tables = [key for key in Recipe.model_fields if key not in ("name", "description", "budget")]
    return [f"{table}.{name}" for table in tables if name in list_keys([table], {table: {}})]


def _value_of(option: str, arguments: Sequence[str]) -> str:
    for index, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option and index + 1 < len(arguments):
            value = arguments[index + 1]
            return "VALUE" if value.startswith("--") else value
    return "VALUE"


def _options(context: Any) -> list[str]:
    parameters = context.command.params if context else []
    return [name for parameter in parameters for name in parameter.opts]


def _sentence(error: TyperException) -> str:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    message = message[:1].lower() + message[1:]
    return message if message.endswith((".", "?")) else f"{message}."
