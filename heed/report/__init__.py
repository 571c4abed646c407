"""The run's HTML report: one offline page made of what lies in a run folder, and of nothing else.

Left out: pictures that need a script, and comparing runs.
"""

from heed.report.page import write_report

__all__ = ["write_report"]
