"""Recipes and budgets: values read from TOML, without torch."""

__all__ = ["augmentations", "budget", "listing", "model_ref", "optimizers", "recipe", "schedule"]
