"""A recipe: everything that decides a run, as one frozen value read from TOML.

Unknown and wrong keys are refused all at once, each with the nearest right name. The sizes of
a model are free keys of `[model]`; the model's builder checks them.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from whit.errors import RecipeError, did_you_mean
from whit.recipes.augmentations import AUGMENTATIONS, Augmentation
from whit.recipes.budget import RULES, Budget
from whit.recipes.field_types import Count, Flag, Positive, Real
from whit.recipes.model_ref import IN_MEMORY
from whit.recipes.optimizers import OPTIMIZERS, UpdateRule
from whit.recipes.schedule import PiecewiseLinear
from whit.recipes.toml_writer import toml_key, toml_value
from whit.system.validation_errors import describe_errors

DEFAULT_RECIPE = "sprint"
RECIPE_FILE = "recipe.toml"  # in a run folder, and in the folder of a trial
_MAX_DOTS = 300  # tomllib takes memory with the square of the parts of a dotted key
MAX_BYTES = 100_000  # bytes of a recipe; more could parse into more memory than a run takes


class Section(BaseModel):
    """A table of a recipe: frozen, complete, without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class ModelSpec(BaseModel):
    """`name` in the registry, or `path/file.py:Class`; every other key is an argument."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Annotated[str, Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _check_arguments(self) -> ModelSpec:
        # TOML also reads dates, which no model takes and a run folder could not keep.
        for key, value in self.arguments.items():
            try:
                toml_value(value)
            except ValueError:
                raise ValueError(f"{key} is neither text, number, flag, list nor table") from None
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})

    @property
    def is_in_memory(self) -> bool:
        """Whether it was passed as an object, so that no recipe can rebuild it."""
        return self.name.startswith(IN_MEMORY)


class DataSpec(Section):
    """Which images. `val` training images are held out, in proportion to their classes.

    `mean` and `std` are per channel in units of pixel / 255; None takes them from the training
    split.
    """

    name: Annotated[str, Field(min_length=1, max_length=500)] = "mnist"
    val: Count = 0
    mean: tuple[Real, ...] | None = None
    std: tuple[Annotated[Real, Field(gt=0)], ...] | None = None

    @model_validator(mode="after")
    def _check_channels(self) -> DataSpec:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both, or neither")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError("mean and std need one number per channel, equally many")
        return self


def _merge_fields(entries: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """Return the fields of a registry's entries, for `create_model`; the first of a key wins."""
    fields: dict[str, Any] = {}
    for entry in entries:
        for key, field in entry.model_fields.items():
            fields.setdefault(key, (field.annotation, field))
    return fields


_AugmentKeys = create_model("_AugmentKeys", __base__=Section, **_merge_fields(AUGMENTATIONS))


class AugmentSpec(_AugmentKeys):  # type: ignore[valid-type, misc]
    """Random augmentation of each image in each epoch. Its keys are those of AUGMENTATIONS.

    From progress `until` on (images seen / images planned) images are not augmented, so that the
    network ends on what it is evaluated on.
    """

    until: Annotated[Real, Field(gt=0, le=1)] = 1.0  # progress

    def active(self) -> list[Augmentation]:
        """Return the augmentations that change images, in the order applied."""
        entries = [kind.model_validate(self, from_attributes=True) for kind in AUGMENTATIONS]
        return [entry for entry in entries if entry != type(entry)()]


_OptimKeys = create_model(
    "_OptimKeys",
    __base__=Section,
    name=(Literal[tuple(OPTIMIZERS)], "sgd"),  # type: ignore[arg-type]
    lr=(Annotated[Real, Field(gt=0, le=1000)], 0.1),
    **_merge_fields(OPTIMIZERS.values()),
)


class OptimSpec(_OptimKeys):  # type: ignore[valid-type, misc]
    """The optimizer. `lr` is the peak rate per step; `[schedule]` multiplies it.

    `name` and the keys of each optimizer are those of OPTIMIZERS. `weight_decay` acts on the
    weights of convolutions and linear layers only, never on norms and biases. `bias_lr` multiplies
    the rate of BatchNorm's biases.
    """

    weight_decay: Annotated[Real, Field(ge=0, le=1000)] = 0.0
    bias_lr: Annotated[Real, Field(gt=0, le=1000)] = 1.0

    def update_rule(self) -> UpdateRule:
        """Return the optimizer of this name, with its hyperparameters."""
        return OPTIMIZERS[self.name].model_validate(self, from_attributes=True)

    @model_validator(mode="after")
    def _check_update_rule(self) -> OptimSpec:
        self.update_rule().check()
        return self


class ScheduleSpec(Section):
    """Piecewise linear through (progress, scale); progress is images seen / images planned."""

    progress: tuple[Annotated[Real, Field(ge=0, le=1)], ...] = (0.0, 0.25, 1.0)
    scale: tuple[Annotated[Real, Field(ge=0, le=1000)], ...] = (0.1, 1.0, 0.0)

    @model_validator(mode="after")
    def _check_points(self) -> ScheduleSpec:
        if len(self.progress) != len(self.scale) or not self.progress:
            raise ValueError("progress and scale need equally many numbers, at least one")
        if any(a >= b for a, b in zip(self.progress, self.progress[1:], strict=False)):
            raise ValueError("progress must rise from each point to the next")
        return self

    def lr_factor(self) -> PiecewiseLinear:
        return PiecewiseLinear(self.progress, self.scale)


class EMASpec(Section):
    """Exponential moving average of the weights over steps, from progress `start` on.

    decay 0 is off. The averaged weights replace the trained ones after the last epoch.
    """

    decay: Annotated[Real, Field(ge=0, lt=1)] = 0.0  # per step
    start: Annotated[Real, Field(ge=0, lt=1)] = 0.0  # progress


class DistillSpec(Section):
    """A trained network to learn from, beside the labels (arXiv 1503.02531).

    `teacher` is a run folder. The loss is 1 - `weight` parts the labels' cross-entropy and `weight`
    parts the distance from the teacher's classes, both softened by `temperature`. What the
    teacher cost is shown beside the run.
    """

    teacher: Annotated[str, Field(min_length=1, max_length=500)]
    weight: Annotated[Real, Field(gt=0, le=1)] = 0.9
    temperature: Annotated[Real, Field(gt=0, le=100)] = 2.0


class QATSpec(Section):
    """Weights of `bits` bits: from progress `start` on, training uses fake-quantized ones.

    Evaluation after an epoch uses them, too. The final weights of convolutions and linear layers
    are integer multiples of one scale an output channel, which `whit export --int8` stores in
    `bits` bits.
    """

    bits: Annotated[int, Field(strict=True, ge=2, le=8)]
    start: Annotated[Real, Field(ge=0, lt=1)] = 0.5  # progress


class TrainSpec(Section):
    """The training itself. `evaluate` names the split to evaluate after each epoch.

    The test split is evaluated once, after the last epoch; with `evaluate = "test"` after every
    one, as the published systems did, and the record says so; with `test = false` never, for
    tuning, and the verdict stays open. `precision = "auto"` is bf16 on a device with bf16
    instructions, else fp32.

    From progress `dropout_until` on, layers of dropout drop nothing, so that BatchNorm ends on the
    statistics of the network that is judged: behind dropout those of training are wider ("variance
    shift", arXiv 1801.05134).
    """

    epochs: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 10
    batch_size: Positive = 128
    label_smoothing: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    # At least half of the training: a budget that requires dropout means it.
    dropout_until: Annotated[Real, Field(ge=0.5, le=1)] | None = None
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    evaluate: Literal["none", "val", "test"] = "none"
    test: Flag = True

    @model_validator(mode="after")
    def _check_splits(self) -> TrainSpec:
        if self.evaluate == "test" and not self.test:
            raise ValueError('evaluate = "test" reads the test split, test = false forbids it')
        return self


_BudgetKeys = create_model(
    "_BudgetKeys", __base__=Section, **{rule.key: (rule.annotation, rule.default) for rule in RULES}
)  # type: ignore[call-overload]


class BudgetSpec(_BudgetKeys):  # type: ignore[valid-type, misc]
    """Limits as text (`"< 20000"`), so that inclusive and exclusive are never confused.

    Its keys are those of `budget.RULES`.
    """

    @model_validator(mode="after")
    def _check_kinds(self) -> BudgetSpec:
        both = sorted(set(self.require) & set(self.forbid))
        if both:
            raise ValueError(f"{both[0]!r} is both required and forbidden")
        return self

    def to_budget(self) -> Budget:
        return Budget(self.model_dump())


class Recipe(Section):
    """One way to train one model; equal recipes with equal seeds give equal weights."""

    name: str
    description: Annotated[str, Field(max_length=500)] = ""
    model: ModelSpec
    data: DataSpec = DataSpec()
    augment: AugmentSpec = AugmentSpec()
    train: TrainSpec = TrainSpec()
    optim: OptimSpec = OptimSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    average: EMASpec = EMASpec()
    distill: DistillSpec | None = None
    quantise: QATSpec | None = None
    budget: BudgetSpec = BudgetSpec()

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise ValueError(
                "wanted 1 to 64 letters, digits, '_', '.' or '-', the first a letter or a digit"
            )
        return name

    @model_validator(mode="after")
    def _check_val(self) -> Recipe:
        if self.train.evaluate == "val" and self.data.name == "mnist" and not self.data.val:
            raise ValueError('train.evaluate = "val" needs data.val above 0, such as 5000')
        return self

    def to_toml(self) -> str:
        """Return the complete recipe, defaults written out; `parse_recipe` returns an equal one."""
        top, tables = [], []
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

    def with_overrides(self, changes: Sequence[str], source: str = "--set") -> Recipe:
        """Return the recipe with `key=value` changes, such as `train.epochs=5`.

        Values are TOML; what is not TOML is taken as text. Another `model.name` starts without
        the sizes of the model before. `source` names the changes in messages. Raises RecipeError
        for unknown keys and wrong values, all at once.
        """
        if not changes:
            return self
        tables = self.model_dump(exclude_none=True)
        problems = []
        keys = [change.partition("=")[0].strip() for change in changes]
        if "model.name" in keys:  # the sizes of one model mean nothing to another
            tables["model"] = {}
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


def parse_recipe(text: str, source: str) -> Recipe:
    """Read a recipe from TOML; `source` names it in messages. Raises RecipeError."""
    return _validate(parse_toml(text, source), source, [])


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Return the tables of a TOML text; `source` names it in messages. Raises RecipeError."""
    try:
        if any(line.count(".") > _MAX_DOTS for line in text.splitlines()):
            raise RecipeError(f"{source}: more than {_MAX_DOTS} dots in a line.")
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not valid TOML: {error}.") from None
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        raise RecipeError(f"{source}: a number too long or a list too deep to be read.") from None


def read_text(path: Path, problem: str) -> str:
    """Return the text of a file. Raises OSError; RecipeError if it is too large or not text."""
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path}: larger than {MAX_BYTES // 1000} kB, so it is {problem}.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file in UTF-8.") from None


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Return a built-in recipe by name, or one read from a `.toml` file or a run folder.

    Raises RecipeError when there is none, it cannot be read, or its content is wrong.
    """
    builtin = builtin_recipes()
    name, path = str(name_or_path), Path(name_or_path)
    if name in builtin:
        return parse_recipe(builtin[name], name)
    try:
        if path.is_dir():
            if not (path / RECIPE_FILE).is_file():
                raise RecipeError(f"{path}: a folder without a {RECIPE_FILE} in it.")
            path /= RECIPE_FILE
        text = read_text(path, "not a recipe")
    except FileNotFoundError:
        raise RecipeError(
            f"No recipe {name!r}: it is neither a shipped recipe nor a file."
            f"{did_you_mean(name, builtin)} `whit recipes` lists the shipped ones."
        ) from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}.") from None
    return parse_recipe(text, str(path))


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
    try:
        recipe = Recipe.model_validate(tables)
    except ValidationError as error:
        problems = [*problems, *describe_errors(error, source, allowed_keys=_list_keys)]
    if problems:
        raise RecipeError(problems)
    return recipe


def _list_keys(path: Sequence[str]) -> list[str]:
    """Return the keys allowed in the table at `path`."""
    section: type[BaseModel] = Recipe
    for key in path:
        annotation = section.model_fields[key].annotation
        section = next(  # of `DistillSpec | None`, too
            kind
            for kind in (annotation, *get_args(annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        )
    return list(section.model_fields)


def _toml_or_text(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # TOMLDecodeError is a ValueError
        return text


def recipe_id(recipe: Recipe) -> str:
    """Return a name that equal recipes share and others do not; the description does not count."""
    plain = recipe.model_copy(update={"description": ""})
    return f"{recipe.name}-{hashlib.sha256(plain.to_toml().encode()).hexdigest()[:8]}"
