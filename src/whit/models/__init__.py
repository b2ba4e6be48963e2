"""Build the network of a recipe by name: built in, published, or from a user's file."""

from whit.models.build import build_initialized_model, load_model
from whit.models.registry import build_model

__all__ = ["build_initialized_model", "build_model", "load_model"]
