"""Load a model from a user's own Python file or notebook, and run as little of it as possible."""

from whit.models.user_code.discovery import find_models
from whit.models.user_code.loader import (
    build_user_model,
    read_source,
    resolve_target,
    user_model_sha256,
)

__all__ = ["build_user_model", "find_models", "read_source", "resolve_target", "user_model_sha256"]
