"""Types of recipe values that several tables share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(strict=True, ge=0, le=10_000_000)]
Positive = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Real = Annotated[float, Field(strict=True)]  # accepts an int, but no text
Flag = Annotated[bool, Field(strict=True)]
