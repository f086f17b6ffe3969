"""Errors for users: one sentence, and nothing lost."""

import errno
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import typer
from jax.errors import JaxRuntimeError

from ..io.atomic_write import final_path

SMALLER = (
    "make smaller what the job computes with: step.N.batch (shots of a step), run.budget_gib (its "
    "gradient), specimen.slices or specimen.size_angstrom, probe.modes, detector.supersample, "
    "detector.extend or the extent of the positions; run.slabs shares a specimen among devices, "
    "and `jaxptycho validate` estimates the memory"
)


def sentence(error: BaseException) -> str:
    """Return what came, what was required and what to do, in one sentence."""
    if isinstance(error, MemoryError) or (
        isinstance(error, JaxRuntimeError) and _out_of_memory(str(error))
    ):
        return f"there is not enough memory{_too_large(str(error))}; {SMALLER}"
    if isinstance(error, JaxRuntimeError):
        line = _first_line(error)
        return f"the device or its compiler failed ({line}); --debug shows all of its report"
    if isinstance(error, OSError):
        return _of_files(error)
    return str(error) if isinstance(error, ValueError) else _first_line(error)


def tidy(command: Callable) -> Callable:
    """The command with user errors ended by one sentence and exit code 2; `--debug` shows all."""

    @functools.wraps(command)
    def tidied(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (ValueError, OSError, MemoryError, JaxRuntimeError) as error:
            if kwargs.get("debug"):
                raise
            print(f"error: {sentence(error)}", file=sys.stderr)
            raise typer.Exit(2) from None

    return tidied


def _of_files(error: OSError) -> str:
    """Return the sentence for a file that cannot be read or written."""
    name = error.filename
    if error.errno == errno.ENOSPC:
        place = f" while writing {name}" if name else ""
        return (
            f"the disk is full{place}: free some space, then continue with `jaxptycho resume` if "
            "a run was under way"
        )
    if not name:
        return " ".join(str(error).split("\n"))
    name = final_path(name)
    if isinstance(error, FileNotFoundError):
        folder = Path(name).parent
        missing = "file" if folder.is_dir() else f"folder {folder} for"
        return f"there is no {missing} {name}; check the path"
    if isinstance(error, FileExistsError):
        return f"{name} exists and is never overwritten; choose another name"
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        found, required = (
            ("folder", "file") if isinstance(error, IsADirectoryError) else ("file", "folder")
        )
        return f"{name} is a {found}, and a {required} is required; check the path"
    if isinstance(error, PermissionError):
        return (
            f"there is no permission to use {name}; change its owner or its mode, or choose "
            "another place"
        )
    return f"{name} cannot be used ({error.strerror}); check the path"


def _out_of_memory(text: str) -> bool:
    return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


def _too_large(text: str) -> str:
    """Return what was asked for, in the words of numpy or XLA, as far as they name it."""
    asked = re.search(r"allocat\w* ([\d.]+) ?([KMGTPE]?i?B|bytes)", text)
    if asked is None:
        return ""
    size = f"{float(asked[1]) / 2**30:.4g} GiB" if asked[2] == "bytes" else f"{asked[1]} {asked[2]}"
    shape = re.search(r"shape \(([\d, ]+)\)", text)
    return f" for {size}" + (
        f" (an array of {' × '.join(re.findall(r'[0-9]+', shape[1]))})" if shape else ""
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
