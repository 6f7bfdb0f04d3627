"""Training sets: ``export`` writes one of five sets from one table version, with the same bytes every time."""

from pipelines.exports.driver import ExportReport, export
from pipelines.exports.erasing import erase
from pipelines.exports.filters import ExportFilters

__all__ = ["ExportFilters", "ExportReport", "erase", "export"]
