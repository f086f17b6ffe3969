"""What a user reads when something is wrong: one sentence, and nothing lost."""

import errno
import functools
import sys
from collections.abc import Callable

import typer


class Diverged(ValueError):
    """The loss is no longer a number."""


def sentence(error: BaseException) -> str:
    """What came, what was wanted, what to do, in one sentence."""
    if isinstance(error, OSError):
        place = f" while writing {error.filename}" if error.filename else ""
        if error.errno == errno.ENOSPC:
            return (
                f"the disk is full{place}: free some space, then go on with `jaxptycho resume` if a run was under way"
            )
        if isinstance(error, FileNotFoundError) and error.filename:
            return f"there is no file {error.filename}; check the path"
        if isinstance(error, FileExistsError) and error.filename:
            return f"{error.filename} exists and is never overwritten; choose another name"
    return " ".join(str(error).split("\n")) if not isinstance(error, ValueError) else str(error)


def tidy(command: Callable) -> Callable:
    """The command with user errors ended by one sentence and exit code 2; `--debug` shows all."""

    @functools.wraps(command)
    def tidied(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (ValueError, OSError) as error:
            if kwargs.get("debug"):
                raise
            print(f"error: {sentence(error)}", file=sys.stderr)
            raise typer.Exit(2) from None

    return tidied
