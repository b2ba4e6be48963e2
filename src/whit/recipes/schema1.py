"""Schema 1, the format of recipes and results before schema 2, and its translation.

A recipe in schema 1 is refused, with the new spelling of every key it uses. Run folders in schema
1 stay readable: their recipe, result and weights are translated when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from whit.recipes.model_ref import is_model_path
from whit.recipes.toml_writer import toml_value


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Rename:
    """A key of schema 1, what it is in schema 2, and how its value is translated.

    `applies` returns whether a value is in the old spelling.
    """

    old: str
    new: str
    convert: Callable[[Any], Any] = _same
    applies: Callable[[Any], bool] = lambda value: True

    def explain(self, value: Any) -> str:
        """Return the new spelling, with the value translated where that is possible."""
        try:
            spelling = f"{self.new} = {toml_value(self.convert(value))}"
        except (ValueError, KeyError, TypeError):
            spelling = self.new
        return f"{self.old} is now {self.new}: write {spelling}"


_COLUMNS = ["raw", "deskewed"]
_TTA_SHIFTS = {1: 0, 5: 4, 9: 8}

# Of the models of the package; a user's own model may have arguments of these names.
_MODEL = (
    Rename("model.views", "eval.tta_shifts", lambda views: _TTA_SHIFTS[views]),
    Rename("model.deskew", "model.columns", lambda both: _COLUMNS, lambda value: value == "both"),
    Rename("model.kinds", "model.conv_types"),
    Rename("model.shares", "model.weight_groups"),
    Rename("model.pools", "model.pool_after"),
    Rename("model.pooling", "model.pool_type"),
    Rename(
        "model.norm", "model.batchnorm_affine", lambda norm: {"full": "full", "shift": "bias"}[norm]
    ),
)
_RENAMES = (
    Rename("data.val", "data.val_size"),
    Rename("augment.rotate", "augment.degrees"),
    Rename("augment.shift", "augment.translate"),
    Rename("augment.until", "augment.end"),
    Rename("optim.bias_lr", "optim.bn_bias_lr_scale"),
    Rename("schedule.progress", "schedule.at"),
    Rename("schedule.scale", "schedule.factor"),
    Rename("train.evaluate", "eval.each_epoch"),
    Rename("train.test", "eval.test"),
    Rename("train.dropout_until", "train.dropout_end"),
    Rename("average.decay", "ema.decay"),
    Rename("average.start", "ema.start"),
    Rename("quantise.bits", "qat.bits"),
    Rename("quantise.start", "qat.start"),
)
_TABLES = ("average", "quantise")  # tables that schema 2 does not have


def find_old_keys(tables: Mapping[str, Any]) -> list[tuple[Rename, Any]]:
    """Return the keys of schema 1 in the tables of a recipe, each with its value."""
    model = tables.get("model")
    name = model.get("name") if isinstance(model, Mapping) else None
    is_users = isinstance(name, str) and is_model_path(name)
    found = []
    for rename in (*(() if is_users else _MODEL), *_RENAMES):
        section, _, key = rename.old.partition(".")
        table = tables.get(section)
        if isinstance(table, Mapping) and key in table and rename.applies(table[key]):
            found.append((rename, table[key]))
    return found


def remove_old_keys(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables without the keys of schema 1."""
    cleaned = deepcopy(dict(tables))
    for rename, _ in find_old_keys(tables):
        section, _, key = rename.old.partition(".")
        del cleaned[section][key]
    for name in _TABLES:
        if cleaned.get(name) == {}:
            del cleaned[name]
    return cleaned


def upgrade_recipe(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a recipe in schema 1 as they are in schema 2.

    Raises ValueError for a key that is there in both schemas, and ValueError, KeyError or
    TypeError for a value that schema 1 did not allow.
    """
    upgraded = remove_old_keys(tables)
    for rename, value in find_old_keys(tables):
        section, _, key = rename.new.partition(".")
        table = upgraded.setdefault(section, {})
        if key in table:
            raise ValueError(f"both {rename.old} and {rename.new}, the same key in two schemas")
        table[key] = rename.convert(value)
    data = upgraded.get("data")
    if isinstance(data, dict) and data.get("val_size"):
        data["val_by"] = "digest"  # the only way that there was
    return upgraded


def upgrade_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `result.json` in schema 1 with the keys and values of schema 2."""
    renamed = {"changes": "accepted_changes", "seal": "digest"}
    upgraded = {renamed.get(key, key): value for key, value in result.items()}
    if upgraded.get("verdict") == "open":
        upgraded["verdict"] = "pending"
    if isinstance(test := upgraded.get("test"), dict):
        renamed = {"reads": "evaluations", "wrong": "misclassified"}
        upgraded["test"] = {renamed.get(key, key): value for key, value in test.items()}
    return upgraded


def digest_key(result: Mapping[str, Any]) -> str:
    """Return the key of the digest of a stored `result.json` of either schema."""
    return "seal" if "seal" in result else "digest"


def upgrade_weight_name(name: str) -> str:
    """Return the name in schema 2 of a tensor of one of the package's models.

    Test-time augmentation was a layer around the network, and its columns had other names.
    """
    name = name.removeprefix("network.")
    for old, new in (("as_is.", "raw."), ("upright.", "deskewed.")):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
