"""Fixtures of runs."""

from run_fixtures import measurement, series, undrawn, values

__all__ = ["measurement", "series", "undrawn", "values"]
