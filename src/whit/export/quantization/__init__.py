"""A graph in integer arithmetic: uint8 values, int8 weights, int32 sums."""

__all__ = ["quantize", "reference"]
