"""Build the network of a recipe by name: built in, published, or from a user's file."""

from whit.models.build import build_initialized_model, load_model, materialize_lazy_layers
from whit.models.registry import MODELS, build_model, in_memory_spec
from whit.models.weights import load_weights, save_weights

__all__ = [
    "MODELS",
    "build_initialized_model",
    "build_model",
    "in_memory_spec",
    "load_model",
    "load_weights",
    "materialize_lazy_layers",
    "save_weights",
]
