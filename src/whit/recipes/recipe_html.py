"""A recipe as HTML for a notebook: what it sets, its learning rate, and all of it to copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whit.recipes.toml_writer import toml_value
from whit.system.display.html_tables import (
    html_block,
    html_columns,
    html_details,
    html_table,
    html_text,
)
from whit.system.display.line_plot import Series, line_plot

if TYPE_CHECKING:
    from whit.recipes.recipe import Recipe

_NUM_POINTS = 120  # of the plot


def recipe_html(recipe: Recipe) -> str:
    """Return the keys that differ from their defaults, and the learning rate over the epochs."""
    tables = recipe.model_dump(exclude_none=True, exclude_defaults=True)
    rows = [
        (f"{section}.{key}", _format(value))
        for section, table in tables.items()
        if isinstance(table, dict)
        for key, value in table.items()
    ]
    factor, epochs = recipe.lr_factor(), recipe.train.epochs
    points = [
        (epochs * i / _NUM_POINTS, recipe.optim.lr * factor(i / _NUM_POINTS))
        for i in range(_NUM_POINTS + 1)
    ]
    return html_block(
        html_text(recipe.description),
        html_columns(
            html_table(("key", "value"), rows, "lL"),
            line_plot([Series("lr", points)], "epoch", "learning rate"),
        ),
        html_details("All keys, defaults included", html_text(recipe.to_toml())),
        title=recipe.name,
    )


def _format(value: Any) -> str:
    return value if isinstance(value, str) else toml_value(value)
