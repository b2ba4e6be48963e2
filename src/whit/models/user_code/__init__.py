"""Load a model from a user's own Python file or notebook, and run as little of it as possible."""

from whit.models.user_code.loader import (
    build_user_model,
    read_source,
    resolve_target,
    user_model_sha256,
)
from whit.models.user_code.reading.discovery import find_models
from whit.models.user_code.reading.source import Source
from whit.models.user_code.stand_ins import collect_missing_packages

__all__ = [
    "Source",
    "build_user_model",
    "collect_missing_packages",
    "find_models",
    "read_source",
    "resolve_target",
    "user_model_sha256",
]
