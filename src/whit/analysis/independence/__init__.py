"""Whether the output for an image depends on that image alone."""

__all__ = ["call_state", "cause", "probe"]
