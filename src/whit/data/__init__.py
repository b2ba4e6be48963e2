"""Image data sets as uint8 tensors: read safely, split, batched, augmented."""

__all__ = ["datasets", "holdout", "loader", "normalization", "splits", "validation"]
