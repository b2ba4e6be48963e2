"""Reports of runs and studies, as one self-contained HTML page or as Markdown for a README.

    run folder --> RunFacts ---> run_report.py ----> Document --> renderers/html.py
    studies    --> StudyFacts -> study_report.py -->          --> renderers/markdown.py

Needs matplotlib (the extra `report`).
"""

from whit.reports.run_facts import RunFacts, collect_run_facts
from whit.reports.writer import render_run_html, render_study_html, write_report

__all__ = ["RunFacts", "collect_run_facts", "render_run_html", "render_study_html", "write_report"]
