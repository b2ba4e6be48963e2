"""The operator table: one entry per operator, with all that the export targets need."""

__all__ = ["registry"]
