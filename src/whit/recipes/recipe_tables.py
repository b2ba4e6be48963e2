"""The tables of a recipe. The reference of keys is printed from their fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from whit.recipes.augmentations import AUGMENTATIONS, Augmentation
from whit.recipes.budget import RULES, Budget
from whit.recipes.field_types import Count, Flag, Name, Positive, Real, Section, key_field
from whit.recipes.model_ref import IN_MEMORY, is_model_path
from whit.recipes.optimizers import OPTIMIZERS, UpdateRule
from whit.recipes.toml_writer import toml_value


class ModelSpec(BaseModel):
    """The network. Every key but `name` and `run_whole_file` is an argument of the model."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Name = key_field(..., "a built-in model, or `path/file.py:Class`")
    run_whole_file: Flag | None = key_field(
        None,
        "execute all statements of a `path/file.py:Class`, not only those that the class needs",
    )

    @model_validator(mode="after")
    def _check_arguments(self) -> ModelSpec:
        # TOML also has dates, which no model takes and a run folder cannot store.
        for name, value in self.arguments.items():
            try:
                toml_value(value)
            except ValueError:
                raise ValueError(
                    f"{name} must be a string, a number, true or false, a list or a table"
                ) from None
        if self.run_whole_file is not None and not is_model_path(self.name):
            raise ValueError("run_whole_file is only for a model named as path/file.py:Class")
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})

    @property
    def is_in_memory(self) -> bool:
        """Whether it was passed as an object, so that no recipe can rebuild it."""
        return self.name.startswith(IN_MEMORY)


BUILTIN_DATA = frozenset({"mnist"})  # every other data.name is a path
ValBy = Literal["block", "digest"]


def default_val_by(data: str) -> ValBy:
    """Return how the val split of a data set is selected where a recipe does not say.

    MNIST's training images are in the order of their writers: a block has other writers than the
    rest. The images of other data sets may be in the order of their classes.
    """
    return "block" if data == "mnist" else "digest"


class DataSpec(Section):
    """The images."""

    name: Name = key_field(
        "mnist", "a built-in data set, or the path of a folder or an `.npz` file"
    )
    val_size: Count = key_field(
        0,
        "size of the validation split, held out from the training images",
        "images",
    )
    val_by: ValBy | None = key_field(
        None,
        "how they are selected: `block`, consecutive images; `digest`, a fixed sample, stratified "
        "by class; default: `block` for `mnist`, whose images are in the order of their writers, "
        "else `digest`",
    )
    val_block: Count | None = key_field(
        None, "which block of `val_size` consecutive images, from 0; default: the last one"
    )
    transpose: Flag = key_field(
        False, "swap rows and columns of every image, as EMNIST's IDX files need it"
    )
    mean: tuple[Real, ...] | None = key_field(
        None, "mean of each channel, subtracted; default: that of the training split", "pixel / 255"
    )
    std: tuple[Annotated[Real, Field(gt=0)], ...] | None = key_field(
        None,
        "standard deviation of each channel, divided by; default: that of the training split",
        "pixel / 255",
    )

    @model_validator(mode="before")
    @classmethod
    def _set_val_by(cls, tables: Any) -> Any:
        # Part of the recipe of a run: a later default must not select other images.
        if isinstance(tables, Mapping) and tables.get("val_size") and "val_by" not in tables:
            return {**tables, "val_by": default_val_by(str(tables.get("name", "mnist")))}
        return tables

    @model_validator(mode="after")
    def _check_val(self) -> DataSpec:
        if self.val_block is not None and self.val_by == "digest":
            raise ValueError('val_block needs val_by = "block"')
        return self

    @property
    def held_out(self) -> tuple[int, str | None, int | None]:
        """What selects the images of the val split: size, rule and number of the block."""
        return self.val_size, self.val_by, self.val_block

    def describe_val(self) -> str:
        """Return the val split in words, such as `10,000 images, block 3`."""
        block = "the last block" if self.val_block is None else f"block {self.val_block}"
        return f"{self.val_size:,} images, {block if self.val_by == 'block' else 'by digest'}"

    @model_validator(mode="after")
    def _check_channels(self) -> DataSpec:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be given together, or neither of them")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError("mean and std must have one number per channel each")
        return self


def _merge_fields(entries: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """Return the fields of a registry's entries, for `create_model`; the first of a key wins."""
    fields: dict[str, Any] = {}
    for entry in entries:
        for name, field in entry.model_fields.items():
            fields.setdefault(name, (field.annotation, field))
    return fields


_AugmentKeys = create_model("_AugmentKeys", __base__=Section, **_merge_fields(AUGMENTATIONS))


class AugmentSpec(_AugmentKeys):  # type: ignore[valid-type, misc]
    """Random augmentation of each training image in each epoch."""

    # Training then ends on images like those of evaluation.
    end: Annotated[Real, Field(gt=0, le=1)] = key_field(1.0, "when augmentation ends", "progress")

    def active(self) -> list[Augmentation]:
        """Return the augmentations that change images, in the order applied."""
        entries = [kind.model_validate(self, from_attributes=True) for kind in AUGMENTATIONS]
        return [entry for entry in entries if entry != type(entry)()]


_OptimKeys = create_model(
    "_OptimKeys",
    __base__=Section,
    name=(Literal[tuple(OPTIMIZERS)], key_field("sgd", "name of the optimizer")),  # type: ignore[arg-type]
    lr=(
        Annotated[Real, Field(gt=0, le=1000)],
        key_field(0.1, "peak learning rate, multiplied by the factor of `[schedule]`", "per step"),
    ),
    **_merge_fields(OPTIMIZERS.values()),
)


class OptimSpec(_OptimKeys):  # type: ignore[valid-type, misc]
    """The optimizer."""

    weight_decay: Annotated[Real, Field(ge=0, le=1000)] = key_field(
        0.0, "weight decay of convolutions and linear layers; norms and biases have none"
    )
    bn_bias_lr_scale: Annotated[Real, Field(gt=0, le=1000)] = key_field(
        1.0, "multiplies the learning rate of BatchNorm biases"
    )

    def update_rule(self) -> UpdateRule:
        """Return the optimizer of this name, with its hyperparameters."""
        return OPTIMIZERS[self.name].model_validate(self, from_attributes=True)

    @model_validator(mode="after")
    def _check_update_rule(self) -> OptimSpec:
        self.update_rule().check()
        return self


class EMASpec(Section):
    """Exponential moving average of the weights over steps.

    The averaged weights replace the trained ones after the last epoch.
    """

    decay: Annotated[Real, Field(ge=0, lt=1)] = key_field(
        0.0, "decay of the average; 0 turns it off", "per step"
    )
    start: Annotated[Real, Field(ge=0, lt=1)] = key_field(0.0, "when averaging starts", "progress")


class DistillSpec(Section):
    """Knowledge distillation: a trained network as teacher, in addition to the labels.

    The method is that of arXiv 1503.02531. The teacher's cost is shown with the run.
    """

    teacher: Name = key_field(..., "the folder of the teacher's run")
    weight: Annotated[Real, Field(gt=0, le=1)] = key_field(
        0.9, "weight of the distillation loss; the cross-entropy of the labels has the rest"
    )
    temperature: Annotated[Real, Field(gt=0, le=100)] = key_field(
        2.0, "softmax temperature of student and teacher"
    )


class QATSpec(Section):
    """Quantization-aware training of the weights of convolutions and linear layers.

    The final weights are integer multiples of one scale per output channel, which `whit export
    --int8` stores in `bits` bits. Evaluation after an epoch also uses quantized weights.
    """

    bits: Annotated[int, Field(strict=True, ge=2, le=8)] = key_field(..., "bits per weight", "bits")
    start: Annotated[Real, Field(ge=0, lt=1)] = key_field(
        0.5, "when fake quantization starts", "progress"
    )


class SamplingSpec(Section):
    """Importance sampling: epochs draw images with a high last loss more often.

    Each epoch draws a fraction of the training images without replacement. A budget counts the
    images seen. The losses are not reweighted, as in arXiv 1511.06343 and 1910.00762.
    """

    fraction: Annotated[Real, Field(gt=0, le=1)] = key_field(
        ..., "of the training images in each epoch"
    )
    power: Annotated[Real, Field(ge=0, le=10)] = key_field(
        0.5, "sampling weight of an image: (last loss + 0.003) ** power; 0: uniform"
    )
    unseen: Literal["first", "mean"] = key_field(
        "first",
        "images that were never drawn: `first`, before all others; `mean`, as if their last loss "
        "were the mean of the last epoch, for a training of about one epoch",
    )

    def num_images(self, num_train: int) -> int:
        """Return the images of an epoch, of `num_train` in the training split.

        Rounded down, so that ten epochs of 0.1 are never more than one.
        """
        return max(1, int(Fraction(str(self.fraction)) * num_train))

    def describe(self) -> str:
        """Return the draw of an epoch, for reports."""
        return (
            f"{self.fraction:.4g} of the training images in each epoch, power {self.power:g}, "
            f"unseen images {'first' if self.unseen == 'first' else 'by the mean loss'}"
        )


class TrainSpec(Section):
    """Training: duration, batches, loss and precision."""

    epochs: Annotated[int, Field(strict=True, ge=1, le=100_000)] = key_field(
        10,
        "number of passes over the training split, or over what `[sampling]` draws of it",
        "epochs",
    )
    batch_size: Positive = key_field(
        128,
        "images per step; the last batch of an epoch may be smaller, or larger by one image",
        "images",
    )
    label_smoothing: Annotated[Real, Field(ge=0, lt=1)] = key_field(
        0.0, "probability that is spread over all classes"
    )
    # At least half of the training, as a budget may require dropout. BatchNorm then ends on the
    # statistics of the network that is evaluated: after dropout those of training are wider
    # ("variance shift", arXiv 1801.05134).
    dropout_end: Annotated[Real, Field(ge=0.5, le=1)] | None = key_field(
        None, "when dropout ends; default: never", "progress"
    )
    precision: Literal["fp32", "bf16", "auto"] = key_field(
        "auto",
        "precision of the forward pass; `auto`: bf16 on hardware that supports it, else fp32",
    )


class EvalSpec(Section):
    """Evaluation. By default the test split is evaluated once, after the last epoch."""

    each_epoch: Literal["none", "val", "test"] = key_field(
        "none", "split to evaluate after each epoch"
    )
    test: Flag = key_field(
        True, "evaluate on test after the last epoch; `false` for tuning: the verdict stays pending"
    )
    tta_shifts: Literal[0, 4, 8] = key_field(
        0,
        "test-time augmentation: logits are averaged over the image and its shifts by one pixel, "
        "to 4 sides or to 8 with the diagonals; a decision then takes 5 or 9 forward passes",
        "shifts",
    )

    @model_validator(mode="after")
    def _check_splits(self) -> EvalSpec:
        if self.each_epoch == "test" and not self.test:
            raise ValueError('each_epoch = "test" and test = false contradict each other')
        return self

    @property
    def forward_passes(self) -> int:
        """Forward passes of the network for one decision."""
        return 1 + self.tta_shifts


_BudgetKeys = create_model(
    "_BudgetKeys",
    __base__=Section,
    **{
        rule.key: (rule.annotation, key_field(rule.default, rule.description, rule.unit))
        for rule in RULES
    },
)  # type: ignore[call-overload]


class BudgetSpec(_BudgetKeys):  # type: ignore[valid-type, misc]
    """The limits; each is a string with a comparison, such as `"< 20000"`."""

    @model_validator(mode="after")
    def _check_kinds(self) -> BudgetSpec:
        both = sorted(set(self.require) & set(self.forbid))
        if both:
            raise ValueError(f"{both[0]!r} is both required and forbidden")
        return self

    def to_budget(self) -> Budget:
        return Budget(self.model_dump())
