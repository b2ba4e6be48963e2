"""The processor that programs share: its cores, and turns on them."""

__all__ = ["cores", "turns"]
