"""What runs show, as one HTML page that opens anywhere, and as Markdown for a README.

    run folder --account_of--> Account --run_document--> Document --html_page--> one page
    studies    --study_of----> Study ---study_document--->        --Markdown---> text, pictures

Needs matplotlib (the extra `report`).
"""

from whit.error_analysis import Error as Error
from whit.error_analysis import Findings as Findings
from whit.error_analysis import findings_of as findings_of
from whit.reports.run_facts import Account as Account
from whit.reports.run_facts import account_of as account_of
from whit.reports.writer import run_page as run_page
from whit.reports.writer import study_page as study_page
from whit.reports.writer import write_report as write_report

__all__ = [
    "Account",
    "Error",
    "Findings",
    "account_of",
    "findings_of",
    "run_page",
    "study_page",
    "write_report",
]
