"""What a forward pass reads beside its image: code, Python values, files, random numbers."""

__all__ = [
    "accounting",
    "changed_constants",
    "constant_channels",
    "executed_code",
    "file_access",
    "number_formats",
    "packed_values",
    "python_numbers",
    "reachable",
    "stored_statistics",
]
