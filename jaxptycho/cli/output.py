"""What commands print: tables, warnings, and the summary and verdict of a run."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import typer

# as in shells and `timeout`; all is saved in each case. All processes of a run end with the same
# one: the launcher sees that none has finished.
EXIT_CODES = {"Ctrl-C": 130, "SIGTERM": 143, "the wall-time limit": 124}
# of a finished run, by its verdict (`analysis.verdict`)
EXPLAINS_NOTHING = 3
EXPLAINS_LITTLE = 4  # as a wrong geometry may do as well


def run_listener() -> Any:
    """Progress on the screen of the first of many processes."""
    from ..distributed.multihost import first
    from ..runs.progress import ProgressListener, screen_listener

    return screen_listener() if first() else ProgressListener()


def tell(outcome: Any) -> None:
    """Print the summary and the verdict of a run, in the first of many processes; exit with its
    code in all.
    """
    from ..distributed.multihost import first

    if first():
        _summarize(outcome)
    if code := exit_code(outcome):
        raise typer.Exit(code)


def exit_code(outcome: Any) -> int:
    """0 for a finished run whose model explains the patterns."""
    if not outcome.finished:
        return EXIT_CODES.get(outcome.why, 0)
    if outcome.verdict is None or not outcome.verdict.doubtful:
        return 0
    return EXPLAINS_LITTLE if outcome.verdict.explains else EXPLAINS_NOTHING


def _summarize(outcome: Any) -> None:
    print_table(outcome.summary(), str(outcome.folder))
    if outcome.verdict is not None:
        print(outcome.verdict)
    if not outcome.finished:
        print(f"stopped by {outcome.why}; continue with: jaxptycho resume {outcome.folder}")


def print_table(rows: Mapping[str, str | tuple[str, ...]], title: str) -> None:
    """Print rows of a name and one or several values."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, *((value,) if isinstance(value, str) else value))
    Console(soft_wrap=False).print(table)


def print_warnings(texts: Iterable[str]) -> None:
    """Print warnings as those of Python are."""
    for text in texts:
        print(f"warning: {text}", file=sys.stderr)
