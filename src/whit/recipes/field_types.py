"""Types of recipe values that several tables share, and how a key is documented."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(strict=True, ge=0, le=10_000_000)]
Positive = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Real = Annotated[float, Field(strict=True)]  # accepts an int, but no text
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=500)]


class Section(BaseModel):
    """A table of a recipe: frozen, complete, without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


def key_field(default: Any, description: str, unit: str = "") -> Any:
    """Return the field of a key; the key reference prints its description and unit."""
    return Field(default, description=description, json_schema_extra={"unit": unit})
