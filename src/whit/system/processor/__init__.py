"""The processor that programs share: its cores, turns on them, and Python's garbage collector."""

__all__ = ["cores", "garbage", "turns"]
