"""The local page: a read-only web server over run folders."""

__all__ = ["server"]
