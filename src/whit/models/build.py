"""Build the model of a recipe: with the initial weights of a seed, or with those of a file."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from torch import nn

from whit.data.datasets import probe_dataset
from whit.errors import ModelError
from whit.models.registry import build_model
from whit.models.user_code import Source
from whit.models.weights import load_weights
from whit.recipes.recipe import Recipe
from whit.system.rng import preserve_rng_state, seed_all
from whit.system.user_lines import describe_error, find_user_line


def build_initialized_model(
    recipe: Recipe,
    image_shape: tuple[int, int, int],
    num_classes: int,
    seed: int = 0,
    source: Source | None = None,
) -> nn.Module:
    """Return the recipe's model with the initial weights of `seed`, lazy layers materialized.

    `image_shape` is (C, H, W); `source` is the code of a user's model, if it was read already.
    torch's global generators are restored afterwards.
    Raises ModelError when it cannot be built, SourceError when a user's code fails.
    """
    with preserve_rng_state():
        seed_all(seed, "weights")
        model = build_model(recipe.model, image_shape[0], num_classes, source)
        materialize_lazy_layers(model, image_shape, recipe.model.name)
    return model


def load_model(
    recipe: Recipe,
    weights: Path,
    model: nn.Module | None = None,
    seed: int = 0,
    source: Source | None = None,
) -> nn.Module:
    """Return the recipe's model, or `model`, with the weights of a safetensors file.

    Raises ModelError when it cannot be built, InputError when the weights do not fit, DataError
    when the data set is missing.
    """
    image_shape, num_classes, _ = probe_dataset(recipe.data)
    if model is None:
        model = build_initialized_model(recipe, image_shape, num_classes, seed, source)
    else:
        materialize_lazy_layers(model, image_shape, recipe.model.name)
    load_weights(model, weights)
    return model


def initialize_copy(model: nn.Module) -> nn.Module:
    """Return a copy of `model` with new initial weights from torch's global generator.

    They are those of each layer's `reset_parameters`, so what a constructor sets in another way is
    lost. Raises ModelError for parameters of modules without that method.
    """
    model = copy.deepcopy(model)
    fixed = []
    for path, module in model.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        else:
            fixed += [name for name, _ in module.named_parameters(path, recurse=False)]
    if fixed:
        raise ModelError(
            f"{type(model).__name__}: {', '.join(fixed[:6])} cannot be initialized again for each "
            "seed: the module that holds it has no reset_parameters(). Give the class, or a "
            "function that builds the model, in place of the model."
        )
    return model


def materialize_lazy_layers(model: nn.Module, image_shape: tuple[int, int, int], name: str) -> None:
    """Initialize by a pass of blank images what a network creates in its first forward pass.

    That is lazy layers, and parameters and buffers that the pass registers. A network without them
    is left as it is. Raises ModelError for lazy layers if the pass fails.
    """
    has_lazy_layers = any(nn.parameter.is_lazy(parameter) for parameter in model.parameters())
    if not has_lazy_layers and not _creates_tensors(model, image_shape):
        return
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, *image_shape))
    except Exception as error:
        location, statement = find_user_line(error)
        at = f" at `{statement}`" if statement else ""
        raise ModelError(
            f"{location or name}: the lazy layers cannot be initialized: the forward pass fails "
            f"on images {tuple(image_shape)}{at}: {describe_error(error)}"
        ) from None
    finally:
        model.train(was_training)


def _creates_tensors(model: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    """Return whether a first forward pass registers parameters or buffers; tries it on a copy."""
    before = set(model.state_dict())
    with preserve_rng_state(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            copied = copy.deepcopy(model).eval()
            copied(torch.zeros(2, *image_shape))
        except Exception:
            return False  # what fails is reported by the audit
        return set(copied.state_dict()) != before
