"""What a run is asked for, and its limits: values read from TOML, without torch."""

__all__ = ["augmentations", "budget", "listing", "model_ref", "optimizers", "recipe", "schedule"]
