"""Files that are written completely or not at all."""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def final_path(path: str | Path) -> Path:
    """The file that a path belongs to, if that is one of its drafts."""
    path = Path(path)
    draft = re.fullmatch(r"\.(.+)\.\d+", path.name)
    return path.with_name(draft[1]) if draft else path


@contextmanager
def atomic_path(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Path of a draft to be written, which is renamed to `path` once it is complete on the disk."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or remove it first")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        with open(draft, "rb+") as written:
            os.fsync(written)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table of comma-separated values, replacing a file at `path`; None stays empty."""
    with (
        atomic_path(path, overwrite=True) as draft,
        draft.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)
