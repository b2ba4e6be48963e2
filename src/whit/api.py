"""The functions of the package: what the command line does, for programs and notebooks.

Everything is imported inside the functions, so that `import whit` stays quick. A recipe is a
built-in name, a path to a `.toml` file or a run folder, or a `Recipe`; where a model is to be
trained or planned, also `file.py:Class`, `notebook.ipynb:Class` or an nn.Module, with data,
training and budget of the default recipe. `model` takes the place of a recipe's: an nn.Module or
such a file; of a file with one model the class may be omitted. A run is its folder, the `RunResult`
of its training, or a `LoadedRun`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from whit.errors import InputError, did_you_mean

_EXPECTED_MODEL = "expected a torch.nn.Module, its class or a function that builds it"

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import TypeIs  # in `typing` from Python 3.13 on

    from whit.data.splits import Dataset
    from whit.experiments.comparison import Comparison
    from whit.experiments.search.result import SearchResult
    from whit.experiments.study import Study
    from whit.export.exporter import ExportResult
    from whit.recipes.recipe import Recipe
    from whit.reports.report_path import ReportPath
    from whit.runs.result import RunResult
    from whit.system.display.records import Records
    from whit.training.plan import Plan
    from whit.verification.restore import LoadedRun
    from whit.verification.verify import AuditResult

    RecipeOrModel: TypeAlias = Recipe | str | Path | nn.Module
    Model: TypeAlias = nn.Module | str | Path
    Run: TypeAlias = str | Path | RunResult | LoadedRun


def plan(
    recipe: RecipeOrModel, model: Model | None = None, *, run_whole_file: bool = False
) -> Plan:
    """Return what a recipe will cost and the predicted verdict; reads no images.

    Of a `file.py:Class` only what the class depends on is executed; with `run_whole_file` all of
    the file is.
    """
    from whit.training.plan import make_plan

    return make_plan(*_resolve(recipe, model, run_whole_file))


def train(
    recipe: RecipeOrModel | None = None,
    model: Model | None = None,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    over_budget: bool = False,
    quiet: bool = False,
    run_whole_file: bool = False,
) -> RunResult:
    """Train a recipe, by default the flagship one, judge it, and leave a run folder.

    An nn.Module is trained from the weights that it has. `run_whole_file` is as in `plan`. Raises
    BudgetInfeasible when the run can never meet its budget, unless `over_budget`; InputError for
    invalid input, Interrupted after saving, RunFailed when the run itself fails.
    """
    from whit.recipes.recipe import DEFAULT_RECIPE
    from whit.system.console import make_console
    from whit.training.plan import make_plan
    from whit.training.progress import make_callback
    from whit.training.run import train_run

    resolved, model = _resolve(DEFAULT_RECIPE if recipe is None else recipe, model, run_whole_file)
    return train_run(
        make_plan(resolved, model),
        model=model,
        seed=seed,
        out=Path(out) if out is not None else None,
        device=device,
        threads=threads,
        over_budget=over_budget,
        callback=make_callback(make_console(), quiet),
    )


def resume(
    run: str | Path,
    model: nn.Module | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
    allow_changes: bool = False,
    steal_lock: bool = False,
    trust_model_files: bool = False,
    quiet: bool = False,
) -> RunResult:
    """Resume a run that was stopped or killed, to the same bytes as if it had not been.

    `model` is needed for a run of a model given in Python. `trust_model_files` executes the copy of
    a model's source in the folder, if its own file is missing or has changed. Raises
    RunAlreadyFinished when the run has a result, IncompatibleResume when it would not be the same
    run, and what `train` raises.
    """
    from whit.system.console import make_console
    from whit.training.progress import make_callback
    from whit.training.run import resume_run

    return resume_run(
        Path(run),
        model=model,
        device=device,
        threads=threads,
        allow_changes=allow_changes,
        steal_lock=steal_lock,
        trust_model_files=trust_model_files,
        callback=make_callback(make_console(), quiet),
    )


def study(
    recipes: RecipeOrModel | Sequence[RecipeOrModel],
    model: Model | Callable[[], nn.Module] | None = None,
    *,
    seeds: int | range = 10,
    out: str | Path = "studies",
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    cluster: str | None = None,
    allow_changes: bool = False,
    over_budget: bool = False,
    quiet: bool = False,
    run_whole_file: bool = False,
) -> Study:
    """Train recipes over seeds, `jobs` at a time in processes of their own.

    `seeds` is their number, from 0 on, or a range such as `range(1000, 1010)`. Seeds that are in
    `out` already are not trained again. `threads` are those of each run, by default 1; `cluster`
    is the address of a dask scheduler whose workers train.

    `model` takes the place of the recipes' own: a file, or a module, whose layers are initialized
    again for each seed by their `reset_parameters`, or better its class or a function that builds
    it, which is called for each seed. A model that is no file is trained in this process, into
    folders that are always new. `run_whole_file` is as in `plan`.

    Raises InputError for invalid input, BudgetInfeasible when a recipe can never meet its
    budget, unless `over_budget`, Interrupted when stopped; what was running is saved.
    """
    from whit.experiments.execution.executors import open_executor
    from whit.experiments.execution.in_process import InProcessExecutor
    from whit.experiments.study import plan_variants, run_study
    from whit.experiments.study_progress import make_study_callback
    from whit.system.console import make_console
    from whit.system.signals import catch_signals

    is_sequence = isinstance(recipes, Sequence) and not isinstance(recipes, str)
    listed: Any = recipes if is_sequence else [recipes]
    all_seeds = range(seeds) if isinstance(seeds, int) else seeds
    if isinstance(model, str | Path):
        resolved, model = [_resolve(recipe, model, run_whole_file) for recipe in listed], None
    else:
        resolved = [_resolve(recipe, None, run_whole_file) for recipe in listed]
    given = [other for _, other in resolved if other is not None]
    if given and (model is not None or len(resolved) > 1):
        raise InputError("A study takes one model: study(model), or study(recipes, model).")
    build = _model_builder(model if model is not None else given[0] if given else None)
    arms = plan_variants(
        [recipe for recipe, _ in resolved], Path(out), build and build(), over_budget
    )
    callback = make_study_callback(make_console(), quiet)
    if build:
        if jobs not in (None, 1) or cluster is not None:
            raise InputError(
                "jobs, cluster: a model given in Python is trained in this process, one seed after "
                "the other. Omit them, or put its class in a file and name it as file.py:Class."
            )
        executor = InProcessExecutor(build)
        # 0 is as many threads as there are cores.
        return run_study(
            arms,
            all_seeds,
            executor,
            threads=threads or 0,
            device=device,
            over_budget=over_budget,
            callback=callback,
        )
    num_threads = threads or 1
    with (
        catch_signals("The same call resumes.") as signals,
        open_executor(cluster, jobs, num_threads, signals, len(all_seeds) * len(arms)) as workers,
    ):
        return run_study(
            arms,
            all_seeds,
            workers,
            threads=num_threads,
            device=device,
            allow_changes=allow_changes,
            over_budget=over_budget,
            callback=callback,
            signals=signals,
        )


def search(
    space: str | Path,
    *,
    trials: int = 50,
    out: str | Path = "searches",
    jobs: int | None = None,
    threads: int = 1,
    device: str = "cpu",
    seed: int = 0,
    cluster: str | None = None,
    storage: str | None = None,
    allow_changes: bool = False,
    quiet: bool = False,
) -> SearchResult:
    """Search a space, a built-in name or a `.toml` or `.py` file, on the validation split.

    `trials` counts those of earlier calls too. `storage` is the address of a PostgreSQL database
    that several searches share. Raises InputError for invalid input, Interrupted when
    stopped; the same call resumes.
    """
    from whit.experiments.execution.executors import open_executor
    from whit.experiments.search.space_file import load_space
    from whit.system.console import make_console
    from whit.system.optional_deps import require_extra
    from whit.system.signals import catch_signals

    require_extra("search", "optuna", "matplotlib")
    if storage is not None:
        require_extra("cluster", "psycopg")
    from whit.experiments.search.database import validate_storage_url
    from whit.experiments.search.driver import SearchDriver
    from whit.experiments.search.search_progress import make_search_callback

    loaded = load_space(str(space))
    if storage is not None:
        validate_storage_url(storage)
    with (
        catch_signals("The same call resumes.") as signals,
        open_executor(cluster, jobs, threads, signals) as executor,
        SearchDriver(
            loaded,
            Path(out),
            executor,
            storage=storage,
            seed=seed,
            threads=threads,
            device=device,
            allow_changes=allow_changes,
            callback=make_search_callback(make_console(), quiet),
            signals=signals,
        ) as driver,
    ):
        return driver.run(trials)


def audit(
    target: Run | nn.Module,
    recipe: Recipe | str | Path | None = None,
    model: nn.Module | None = None,
    *,
    run_whole_file: bool = False,
    trust_model_files: bool = False,
) -> AuditResult:
    """Recompute layers and verdict of a run, recipe, `file.py:Class`, `notebook.ipynb:Class`,
    `.safetensors`, or a model; stored results are not trusted.

    `model` takes the weights of a run that trained a model given in Python. `run_whole_file` is as
    in `plan`; `trust_model_files` executes a run's copy of a model's source, if the file itself is
    missing or has changed.
    """
    from whit.runs.input_paths import load_local_recipe
    from whit.verification.verify import audit

    loaded = load_local_recipe(recipe) if isinstance(recipe, str | Path) else recipe
    return audit(
        *_target_and_model(target, model, loaded),
        run_whole_file=run_whole_file,
        trust_model_files=trust_model_files,
    )


def load_run(
    run: Run, model: nn.Module | None = None, *, trust_model_files: bool = False
) -> LoadedRun:
    """Return a finished run with its recipe, result, history, and its model with its weights.

    `model` is the network of a run that was given one in Python; the weights are put into it.
    Runs a user's own model file; with `trust_model_files` its copy in the run folder, if the file
    is missing or has changed. Raises InputError when there are no weights, or they do not fit.
    """
    from whit.runs.reader import read_run
    from whit.verification.restore import load_run_model

    folder, model = _folder_and_model(run, model)
    return load_run_model(read_run(folder, trust_model_files=trust_model_files), model)


def load_data(name_or_path: str | Path = "mnist", *, val: int = 0) -> Dataset:
    """Return a data set, validated: `.train`, `.val` and `.test` with uint8 `images` and `labels`.

    `val` training images are held out as the validation split, as a recipe with this number does.
    Raises DataError with all problems.
    """
    from whit.data.datasets import load_dataset

    return load_dataset(str(name_or_path), val=val)


def runs(folder: str | Path = "runs", *more: str | Path) -> Records:
    """Return one dict a run folder at or under the folders, unfinished and damaged ones included.

    Raises InputError for what is no folder.
    """
    from whit.runs.listing import run_rows
    from whit.system.display.records import Records

    return Records(run_rows([Path(folder), *map(Path, more)]))


def compare(*runs: Run) -> Comparison:
    """Compare runs, or folders of runs, by recipe, with significance tests.

    Raises InputError for fewer than two, for a run given twice, and for runs that were not judged
    on the same images.
    """
    from whit.experiments.comparison import compare_runs

    return compare_runs([_folder_and_model(run)[0] for run in runs])


def report(
    target: Run,
    out: str | Path | None = None,
    markdown: bool = False,
    model: nn.Module | None = None,
    *,
    trust_model_files: bool = False,
) -> ReportPath:
    """Write the report of a run, a study or a folder of several as one HTML page; return its path.

    A notebook shows the path as a link.
    With `markdown`, a section for a README, its pictures in a folder. By default it goes into the
    target. `model` takes the weights of a run that trained a model given in Python;
    `trust_model_files` is as in `load_run`. Raises InputError for a target that is none of these,
    RunFailed when the disk is full.
    """
    from whit.reports import write_report

    folder, model = _folder_and_model(target, model)
    return write_report(
        folder,
        None if out is None else Path(out),
        markdown,
        model,
        trust_model_files=trust_model_files,
    )


def export(
    run: Run,
    format: str,
    out: str | Path | None = None,
    *,
    int8: bool = False,
    name: str | None = None,
    model: nn.Module | None = None,
    trust_model_files: bool = False,
) -> ExportResult:
    """Export a finished run as "onnx", "c" or "html", and verify it on every image of its split.

    By default `out` is `name`, or else the run's name, with the format as its suffix, in the
    current folder; it must not exist yet. `int8` quantizes to integers, for onnx and c. `name` is
    the prefix of the symbols, macros and files of C; by default the recipe's name, with `_int8` if
    quantized. `model` takes the weights of a run that trained a model given in Python;
    `trust_model_files` is as in `load_run`. Raises InputError for what cannot be exported,
    RunFailed when the export is not the network.
    """
    from whit.export.targets import TARGETS

    if format not in TARGETS:
        hint = did_you_mean(format, TARGETS)
        raise InputError(f"format = {format!r}: allowed: {', '.join(TARGETS)}.{hint}")
    from whit.export.exporter import export_run

    folder, model = _folder_and_model(run, model)
    return export_run(
        folder,
        format,
        None if out is None else Path(out),
        model,
        int8=int8,
        name=name,
        trust_model_files=trust_model_files,
    )


def _resolve(
    recipe: RecipeOrModel, model: Model | None, run_whole_file: bool = False
) -> tuple[Recipe, nn.Module | None]:
    """Return the recipe, and the module that takes the place of its own model."""
    if run_whole_file:
        resolved, module = _resolve(recipe, model)
        return resolved.with_whole_file("run_whole_file"), module

    from whit.recipes.model_ref import is_model_path
    from whit.recipes.recipe import DEFAULT_RECIPE, Recipe, load_recipe
    from whit.training.target import load_target, rename

    is_file = isinstance(recipe, str | Path) and is_model_path(str(recipe))
    if model is not None and (is_file or _is_module(recipe)):
        raise InputError("Two models: give a recipe and a model, or a model alone.")
    if _is_module(recipe):
        return rename(load_recipe(DEFAULT_RECIPE), type(recipe).__name__), recipe
    if isinstance(model, str | Path):
        if not is_model_path(str(model)):
            raise InputError(f"model = {str(model)!r}: {_EXPECTED_MODEL}, or file.py:Class.")
        assert isinstance(recipe, Recipe | str | Path)
        return load_target(model, recipe), None
    if model is not None and not _is_module(model):
        raise InputError(f"model: {_EXPECTED_MODEL}, found {type(model).__name__}.")
    if isinstance(recipe, Recipe):
        return recipe, model
    if not isinstance(recipe, str | Path):
        raise InputError(
            f"recipe: expected a name, a path, a Recipe or a torch.nn.Module, found "
            f"{type(recipe).__name__}."
        )
    return load_target(recipe), model


def _model_builder(
    model: nn.Module | Callable[[], nn.Module] | None,
) -> Callable[[], nn.Module] | None:
    """Return a function that builds a model with new initial weights."""
    if model is None:
        return None
    if _is_module(model):
        from whit.models.build import initialize_copy

        module: Any = model
        return lambda: initialize_copy(module)
    if not callable(model):
        raise InputError(f"model: {_EXPECTED_MODEL}, found {type(model).__name__}.")
    function: Any = model

    def build() -> nn.Module:
        built = function()
        if not _is_module(built):
            raise InputError(f"model: gave a {type(built).__name__}; {_EXPECTED_MODEL}.")
        return built

    return build


def _target_and_model(
    target: Run | nn.Module, model: nn.Module | None, recipe: Recipe | None
) -> tuple[Any, Recipe | None, nn.Module | None]:
    """Return the arguments of an audit."""
    if _is_module(target) or isinstance(target, str | Path):
        return target, recipe, model
    folder, model = _folder_and_model(target, model)
    return folder, recipe, model


def _folder_and_model(run: Any, model: nn.Module | None = None) -> tuple[Path, nn.Module | None]:
    """Return the folder of a run; and its model, where only a loaded run has it."""
    if isinstance(run, str | Path):
        from whit.training.target import require_run

        require_run(run)
        return Path(run), model
    folder = getattr(run, "folder", None)
    if not isinstance(folder, Path):
        raise InputError(
            f"expected a run folder, a RunResult or a LoadedRun, found {type(run).__name__}."
        )
    recipe = getattr(run, "recipe", None)
    if model is None and recipe is not None and recipe.model.is_in_memory:
        model = run.model
    return folder, model


def _is_module(value: object) -> TypeIs[nn.Module]:
    """Whether it is an nn.Module; without torch imported there is none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)
