"""A finished run loaded again: recomputed, compared, its errors analyzed."""

__all__ = ["audit_batch", "error_analysis", "provenance", "restore", "verify"]
