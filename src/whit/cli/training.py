"""The command that trains one run, or resumes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from whit.cli.options import (
    AsJson,
    Device,
    Sets,
    all_of,
    exit_by,
    recipe_named,
    seed_of,
    whole_number,
)
from whit.console import alone, console, leave_at_once, show
from whit.errors import BudgetRefused, InputError, RunEnded, RunFailed
from whit.recipe import FLAGSHIP, Recipe
from whit.text_table import wrapped


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE]", help=f"A shipped name, or a path; else {FLAGSHIP}."),
    ] = None,
    set_: Sets = None,
    seed: Annotated[
        str | None,
        typer.Option(metavar="N", help="Decides weights, order, warps and dropout; else 0."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Run folder to make; by default one under runs/."),
    ] = None,
    device: Device = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N", help="Processor threads; by default one a core."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with a run that was stopped or killed."),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="Resume under other threads, code, data; the result says so."
        ),
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Resume a run that another machine did not give back."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the verdict only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe or resume a run, judge it, and leave a run folder."""
    from whit.environment import choose_device, choose_threads
    from whit.planning import plan
    from whit.progress import make_callback
    from whit.run import resume_run, train_run
    from whit.run_folder import RunFolder

    def parse_threads() -> int | None:
        return None if threads is None else choose_threads(whole_number("--threads", threads))

    def load_recipe() -> Recipe | None:
        if resume is None:
            return recipe_named(recipe or FLAGSHIP, set_)
        _refuse_with_resume({"RECIPE": recipe, "--set": set_ or None, "--seed": seed, "--out": out})
        return None

    loaded, run_seed, num_threads, _, _, _ = all_of(
        load_recipe,
        lambda: 0 if seed is None else seed_of(seed),
        parse_threads,
        lambda: None if device is None else choose_device(device),
        lambda: None if out is None or resume is not None else RunFolder.refuse(out),
        lambda: _require_resume(
            resume, {"--accept-changes": accept_changes, "--take-over": take_over}
        ),
    )
    callback = make_callback(console(), quiet or as_json)
    try:
        with alone(as_json):
            if loaded is None:
                assert resume is not None
                result = resume_run(
                    resume,
                    device=device,
                    threads=num_threads,
                    accept_changes=accept_changes,
                    take_over=take_over,
                    callback=callback,
                    on_second_signal=leave_at_once,
                )
            else:
                result = train_run(
                    plan(loaded),
                    seed=run_seed,
                    out=out,
                    device=device or "cpu",
                    threads=num_threads,
                    callback=callback,
                    on_second_signal=leave_at_once,
                )
    except BudgetRefused as refused:
        if as_json:
            violations = [violation.to_json() for violation in refused.violations]
            show({"verdict": "missed", "violations": violations}, str, as_json)
        raise
    except RunEnded as ended:
        if ended.result["state"] != "finished":
            raise RunFailed(str(ended)) from None
        message = str(ended)
        show(ended.result, lambda width: wrapped(message, width), as_json)
        exit_by(ended.result["verdict"])
        return
    assert result.folder is not None
    value = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))
    show(value, result.text, as_json)
    exit_by(result.verdict)


def _refuse_with_resume(given: dict[str, object]) -> None:
    problems = [
        f"{name}: a run that is resumed has its own: leave it away."
        for name, value in given.items()
        if value is not None
    ]
    if problems:
        raise InputError(problems)


def _require_resume(resume: Path | None, given: dict[str, bool]) -> None:
    problems = [f"{name}: only with --resume RUN." for name, value in given.items() if value]
    if problems and resume is None:
        raise InputError(problems)
