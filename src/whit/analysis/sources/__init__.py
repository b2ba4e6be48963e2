"""What a forward pass reads beside its image: code, Python values, files, random numbers."""

__all__ = [
    "accounting",
    "channels",
    "executed_code",
    "file_access",
    "packed_values",
    "python_numbers",
    "reachable",
]
