"""Figures and tables of a model or a measurement, imported on first use.

The only place where a lower folder imports a higher one, so that computing does not import
plotting libraries.
"""

from importlib import import_module
from typing import Any


def figures() -> Any:
    """The namespace `jaxptycho.figures`."""
    return import_module(f"{__package__}.figures")


def table_of(thing: Any, kind: str) -> dict[str, str]:
    """Rows of `inspect` for a dataset (`kind` "data"), a "model" or a calibration ("look")."""
    reports = "describe_result" if kind == "model" else "describe"
    return getattr(import_module(f"{__package__}.reports.{reports}"), f"describe_{kind}")(thing)


def text_of(thing: Any, kind: str) -> str:
    """The same rows as lines of text, below the name of the class."""
    rows = table_of(thing, kind).items()
    return "\n".join([type(thing).__name__, *(f"  {name}: {value}" for name, value in rows)])


def html_table(thing: Any, kind: str) -> str:
    """The same rows as an HTML table."""
    return import_module(f"{__package__}.figures.html").html_of(table_of(thing, kind))
