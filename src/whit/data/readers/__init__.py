"""Readers of image data sets: untrusted files to NumPy arrays."""

__all__ = ["idx", "image_folder", "mnist", "npz"]
