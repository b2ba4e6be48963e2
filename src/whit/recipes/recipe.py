"""A recipe: everything that decides a run, as one frozen value read from TOML.

Unknown keys and wrong values are refused all at once, with the nearest valid name. The other keys
of `[model]` are arguments of the model; its builder checks them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from whit.errors import RecipeError, did_you_mean
from whit.recipes.field_types import Section, key_field
from whit.recipes.model_ref import SUFFIXES
from whit.recipes.recipe_tables import (
    AugmentSpec,
    BudgetSpec,
    DataSpec,
    DistillSpec,
    EMASpec,
    EvalSpec,
    ModelSpec,
    OptimSpec,
    QATSpec,
    SamplingSpec,
    TrainSpec,
)
from whit.recipes.schedule import DEFAULT_SCHEDULE, SCHEDULES, Linear, Schedule, parse_schedule
from whit.recipes.schema1 import find_old_keys, remove_old_keys, upgrade_recipe
from whit.recipes.toml_writer import toml_key, toml_value
from whit.system.validation_errors import describe_errors

SCHEMA = 2
DEFAULT_RECIPE = "sprint"
RECIPE_FILE = "recipe.toml"  # in a run folder, and in the folder of a trial
_MAX_DOTS = 300  # tomllib's memory grows with the square of the parts of a dotted key
MAX_BYTES = 100_000  # of a recipe; more could need more memory when parsed than a run does
_MAX_BASES = 8  # recipes in a chain of `base`
_NAMED_TABLES = "model", "schedule"  # whose `name` decides which other keys there are


class Recipe(Section):
    """One way to train one model; equal recipes with equal seeds give equal weights."""

    name: str = key_field(
        ..., "name of the recipe: letters, digits, `_`, `.` and `-`; also used for run folders"
    )
    description: Annotated[str, Field(max_length=500)] = key_field(
        "", "one sentence, shown by `whit recipes`"
    )
    model: ModelSpec
    data: DataSpec = DataSpec()
    augment: AugmentSpec = AugmentSpec()
    train: TrainSpec = TrainSpec()
    sampling: SamplingSpec | None = None
    optim: OptimSpec = OptimSpec()
    schedule: Annotated[SerializeAsAny[Schedule], BeforeValidator(parse_schedule)] = Linear(
        name="linear"
    )
    eval: EvalSpec = EvalSpec()
    ema: EMASpec = EMASpec()
    distill: DistillSpec | None = None
    qat: QATSpec | None = None
    budget: BudgetSpec = BudgetSpec()

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise ValueError(
                "must be 1 to 64 letters, digits, '_', '.' or '-', and start with a letter or digit"
            )
        return name

    @model_validator(mode="after")
    def _check_val(self) -> Recipe:
        if self.eval.each_epoch == "val" and self.data.name == "mnist" and not self.data.val_size:
            raise ValueError('eval.each_epoch = "val" needs data.val_size above 0, such as 5000')
        return self

    def images_per_epoch(self, num_train: int) -> int:
        """Return the images of an epoch, of `num_train` in the training split."""
        return self.sampling.num_images(num_train) if self.sampling else num_train

    def lr_factor(self) -> Callable[[float], float]:
        """Return the schedule: progress in [0, 1] to the factor of `optim.lr`."""
        return lambda progress: self.schedule.factor_at(progress, self.train.epochs)

    def to_toml(self) -> str:
        """Return the complete recipe, defaults included; `parse_recipe` returns an equal one."""
        top, tables = [f"schema = {SCHEMA}"], []
        for key, value in self.model_dump(exclude_none=True).items():
            if isinstance(value, dict):
                lines = (f"\n{toml_key(k)} = {toml_value(v)}" for k, v in value.items())
                tables.append(f"[{key}]" + "".join(lines))
            else:
                top.append(f"{key} = {toml_value(value)}")
        return "\n\n".join(["\n".join(top), *tables]) + "\n"

    def _repr_html_(self) -> str:
        from whit.recipes.recipe_html import recipe_html

        return recipe_html(self)

    def with_whole_file(self, source: str) -> Recipe:
        """Return the recipe with `model.run_whole_file`, which the option `source` sets.

        Raises RecipeError for a built-in model.
        """
        return self.with_overrides(["model.run_whole_file=true"], source)

    def with_overrides(self, changes: Sequence[str], source: str = "--set") -> Recipe:
        """Return the recipe with `key=value` changes, such as `train.epochs=5`.

        Values are parsed as TOML; anything else is a string. Another `model.name` or
        `schedule.name` starts without the other keys of its table. `source` names the changes in
        messages. Raises RecipeError for unknown keys and wrong values, all at once.
        """
        if not changes:
            return self
        tables = self.model_dump(exclude_none=True)
        problems = []
        keys = [change.partition("=")[0].strip() for change in changes]
        for named in _NAMED_TABLES:  # models and schedules do not share keys
            if f"{named}.name" in keys:
                tables[named] = {}
        for change in changes:
            key, equals, text = change.partition("=")
            path = key.strip().split(".")
            if not equals or not all(path):
                problems.append(f"{source} {change}: expected key=value, such as train.epochs=5.")
                continue
            table: Any = tables
            for step in path[:-1]:
                table = table.setdefault(step, {}) if isinstance(table, dict) else None
            if not isinstance(table, dict):
                problems.append(f"{source} {change}: {'.'.join(path[:-1])} is not a table.")
                continue
            table[path[-1]] = _toml_or_text(text.strip())
        recipe = _validate(tables, source, problems)
        assert recipe is not None
        return recipe


def parse_recipe(text: str, source: str, folder: Path | None = None) -> Recipe:
    """Read a recipe from TOML; `source` names it in messages. Raises RecipeError.

    A `base` that is a relative path starts from `folder`, by default the current one.
    """
    tables = parse_toml(text, source)
    problems = _schema_problems(tables, source)
    if "base" in tables:
        tables = _merge_base(tables, source, folder or Path(), _MAX_BASES)
    return _validate(tables, source, problems)


def parse_run_recipe(text: str, source: str) -> Recipe:
    """Read the `recipe.toml` of a run, of which schema 1 is translated. Raises RecipeError."""
    tables = parse_toml(text, source)
    schema = tables.pop("schema", 1)
    if schema not in (1, SCHEMA) or type(schema) is not int:
        raise RecipeError(
            f"{source}: schema = {schema!r}: this version of whit reads runs in schema 1 or "
            f"{SCHEMA}."
        )
    if schema == 1:
        try:
            tables = upgrade_recipe(tables)
        except (KeyError, TypeError, ValueError) as error:
            reason = (
                str(error) if type(error) is ValueError else "a value that schema 1 does not allow"
            )
            raise RecipeError(f"{source}: damaged: {reason}.") from None
    return _validate(tables, source, [])


def _schema_problems(tables: dict[str, Any], source: str) -> list[str]:
    """Remove `schema` from the tables; return the problem with it, if any."""
    schema = tables.pop("schema", None)
    has_old_keys = bool(find_old_keys(tables))
    if schema is not None and (schema not in (1, SCHEMA) or type(schema) is not int):
        return [f"{source}: schema = {schema!r}: this version of whit reads schema {SCHEMA}."]
    if schema == 1 and not has_old_keys:
        return [
            f"{source}: schema = 1: all of its keys are also valid in schema {SCHEMA}: "
            f"write schema = {SCHEMA}."
        ]
    if schema != SCHEMA and has_old_keys:
        return [
            f"{source}: written in recipe schema 1; this version of whit reads schema {SCHEMA}. "
            f"Write schema = {SCHEMA} in the first line, and rename these keys:"
        ]
    return []


def _old_key_problems(tables: Mapping[str, Any], source: str) -> list[str]:
    return [f"{source}: {old.explain(value)}." for old, value in find_old_keys(tables)]


def _merge_base(
    tables: dict[str, Any], source: str, folder: Path, remaining: int
) -> dict[str, Any]:
    """Return the tables of the recipe that `base` names, overridden by `tables`."""
    name = tables.pop("base")
    if not isinstance(name, str):
        raise RecipeError(f"{source}: base = {name!r}: must be the name or the path of a recipe.")
    if not remaining:
        raise RecipeError(
            f"{source}: base = {name!r}: more than {_MAX_BASES} recipes extend each other; "
            "does one of them extend itself?"
        )
    path = name if name in builtin_recipes() else folder / name
    try:
        text, base_source, base_folder = _read_recipe_text(path)
    except RecipeError as error:
        raise RecipeError([f"{source}: base = {name!r}: {p}" for p in error.problems]) from None
    below = parse_toml(text, base_source)
    problems = _schema_problems(below, base_source)
    if problems := [*problems, *_old_key_problems(below, base_source)]:
        raise RecipeError(problems)
    if "base" in below:
        below = _merge_base(below, base_source, base_folder, remaining - 1)
    if "name" in tables:
        below.pop("description", None)  # it describes the other recipe
    for key, value in tables.items():
        table = below.get(key, {})
        is_merged = isinstance(table, dict) and isinstance(value, dict)
        if is_merged and key in _NAMED_TABLES:
            is_merged = value.get("name", table.get("name")) == table.get("name")
        if not is_merged:
            below[key] = value
        else:
            below[key] = {**table, **value}
    return below


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Return the tables of a TOML text; `source` names it in messages. Raises RecipeError."""
    try:
        if any(line.count(".") > _MAX_DOTS for line in text.splitlines()):
            raise RecipeError(f"{source}: more than {_MAX_DOTS} dots in one line.")
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not valid TOML: {error}.") from None
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        raise RecipeError(
            f"{source}: a number is too long, or a list is nested too deeply."
        ) from None


def read_text(path: Path, problem: str) -> str:
    """Return the text of a file. Raises OSError; RecipeError if it is too large or not text."""
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path}: larger than {MAX_BYTES // 1000} kB: {problem}.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file in UTF-8.") from None


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Return a built-in recipe by name, or one read from a `.toml` file or a run folder.

    Raises RecipeError when it does not exist, cannot be read, or is not valid.
    """
    path = Path(name_or_path)
    text, source, folder = _read_recipe_text(name_or_path)
    if path.is_dir():
        return parse_run_recipe(text, source)
    return parse_recipe(text, source, folder)


def _read_recipe_text(name_or_path: str | Path) -> tuple[str, str, Path]:
    """Return the text of a recipe, its name in messages, and the folder of its relative paths."""
    builtin = builtin_recipes()
    name, path = str(name_or_path), Path(name_or_path)
    if name in builtin:
        return builtin[name], name, Path()
    if not name:
        raise RecipeError("The name of a recipe is empty. `whit recipes` lists the built-in ones.")
    try:
        if path.is_dir():
            if not (path / RECIPE_FILE).is_file():
                raise RecipeError(
                    f"{path}: this folder contains no {RECIPE_FILE}, as a run folder does. Give a "
                    "built-in recipe, a .toml file or a run folder."
                )
            path /= RECIPE_FILE
        return read_text(path, "not a recipe"), str(path), path.parent
    except FileNotFoundError:
        near = _find_model_target(name) or did_you_mean(name, builtin)
        raise RecipeError(
            f"No recipe {name!r}: it is neither a built-in recipe nor a file."
            f"{near} `whit recipes` lists the built-in ones."
        ) from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}.") from None


def _find_model_target(name: str) -> str:
    """Return ` Did you mean 'net.py:Net'?` for `net:Net` or `net` beside such a file, or ""."""
    stem, colon, class_name = name.partition(":")
    for suffix in SUFFIXES:
        if stem and os.path.isfile(f"{stem}{suffix}"):
            return f" Did you mean '{stem}{suffix}{colon}{class_name}'?"
    return ""


def builtin_recipes() -> dict[str, str]:
    """Return the text of every recipe in the package, by name, the default one first."""
    folder = resources.files("whit.recipes") / "builtin"
    texts = {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }
    return dict(sorted(texts.items(), key=lambda item: (item[0] != DEFAULT_RECIPE, item)))


def _validate(tables: Mapping[str, Any], source: str, problems: list[str]) -> Recipe:
    problems = [*problems, *_old_key_problems(tables, source)]
    tables = remove_old_keys(tables)
    try:
        recipe = Recipe.model_validate(tables)
    except ValidationError as error:
        found = describe_errors(error, source, allowed_keys=lambda path: list_keys(path, tables))
        problems = [*problems, *found]
    if problems:
        raise RecipeError(problems, tables.get("model"))
    return recipe


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the table that a field holds, of `DistillSpec | None` too; None for a value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def list_keys(path: Sequence[str], tables: Mapping[str, Any]) -> list[str]:
    """Return the keys allowed in the table at `path` of a recipe of `tables`, none of a value."""
    if list(path) == ["schedule"]:
        schedule = tables.get("schedule")
        name = schedule.get("name") if isinstance(schedule, Mapping) else None
        kind = SCHEDULES.get(name) if isinstance(name, str) else None
        return list((kind or SCHEDULES[DEFAULT_SCHEDULE]).model_fields)
    section: type[BaseModel] = Recipe
    for name in path:
        field = section.model_fields.get(name)
        inner = section_of(field.annotation) if field else None
        if inner is None:
            return []
        section = inner
    return [*(["schema", "base"] if section is Recipe else []), *section.model_fields]


def _toml_or_text(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # TOMLDecodeError is a ValueError
        return text


def recipe_id(recipe: Recipe) -> str:
    """Return a name that equal recipes share and others do not; the description is ignored.

    So are keys with their default value: a key added later changes no name.
    """
    plain = recipe.model_dump(exclude={"description"}, exclude_defaults=True, mode="json")
    text = json.dumps(plain, sort_keys=True)
    return f"{recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def sample_id(recipe: Recipe) -> str:
    """Return `recipe_id`, but the same for recipes that hold out different blocks.

    The seeds of a search's trial hold out a block each, and are one sample.
    """
    data = recipe.data.model_copy(update={"val_block": None})
    return recipe_id(recipe.model_copy(update={"data": data}))
