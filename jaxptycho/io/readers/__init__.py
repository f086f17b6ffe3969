"""Readers of camera files, one file for each format, each a function that returns a `Reading`."""
