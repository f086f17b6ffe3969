"""The verb `convert`: a measurement in any format as a native dataset, with progress."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..io.convert import convert
from ..io.datasets import read, reading_of
from ..io.native import write_native
from ..io.readers.completion import missing

SUFFIXES = (".h5", ".hdf5")


def run_convert(file: Path, out: Path, known: Mapping[str, Any]) -> None:
    """Write `file` as the native dataset `out`, and print what was left out."""
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{out} is the name of another format; give one that ends in .h5")
    if out.exists():
        raise FileExistsError(f"{out} exists; choose another name or remove it first")
    reading = reading_of(file, **known)
    if reading is None:
        write_native(out, read(file, **known))
        print(f"wrote {out}")
        return
    with _bar() as bar:
        task = bar.add_task(f"{file.name} → {out.name}", total=reading.patterns.shape[0])
        done = convert(
            reading, out, known, lambda n, total: bar.update(task, completed=n, total=total)
        )
    absent = missing(done)
    left = f"; not known and left out: {', '.join(absent)}" if absent else ""
    print(f"wrote {out}: {done.patterns.shape[0]} patterns{left}")


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} patterns"),
        TimeRemainingColumn(),
    )
