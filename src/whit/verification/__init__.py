"""A finished run loaded again: recomputed, compared, its errors analyzed."""

__all__ = ["error_analysis", "provenance", "restore", "verify"]
