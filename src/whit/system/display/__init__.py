"""Values in a notebook: HTML tables and plots, one output that updates in place, rows of values.

Nothing here needs a notebook to be installed: what is displayed is text.
"""

__all__ = ["html_tables", "jupyter", "line_plot", "records"]
