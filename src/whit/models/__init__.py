"""Build the network of a recipe by name: built in, published, or from a user's file."""

__all__ = ["build", "model_target", "registry", "tta", "user_code", "weights"]
