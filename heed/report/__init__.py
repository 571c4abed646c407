"""HTML reports: of a run, of a comparison of models, of a cross-validation and of a search over settings, each one offline page.

The report of a run is made of what lies in its folder, and of nothing else. Left out: pictures that need a script.
"""

from heed.report.comparison import comparison_page
from heed.report.folds import folds_page
from heed.report.page import write_report
from heed.report.trials import trials_page

__all__ = ["comparison_page", "folds_page", "trials_page", "write_report"]
