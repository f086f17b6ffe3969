"""Fixtures of runs."""

from run_fixtures import compiled, measurement, series, values

__all__ = ["compiled", "measurement", "series", "values"]
