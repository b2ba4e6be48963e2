"""What a run computes on: the device, the memory, and the cores that it shares."""

__all__ = ["device", "threads"]
