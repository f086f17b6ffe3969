"""Journal of a series: one line of JSON for every event, on the disk before anything follows it.

A process may be killed at any moment. What was half written is dropped when the journal is opened
again, and nothing that was acted upon is lost.
"""

import json
import os
from pathlib import Path
from typing import Any

JOURNAL = "journal.jsonl"

Event = dict[str, Any]


def read_journal(path: str | Path) -> list[Event]:
    """All events in their order; a last line that is not complete is left out.

    ValueError for a line before it that is no event.
    """
    return _parse(Path(path).read_bytes(), Path(path))[0]


class Journal:
    """Append-only journal: `events` in their order; opened again, it continues."""

    def __init__(self, path: str | Path):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.events: list[Event] = []
        complete = 0
        if path.exists():
            self.events, complete = _parse(path.read_bytes(), path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        os.ftruncate(self._file, complete)
        os.lseek(self._file, 0, os.SEEK_END)
        _sync_folder(path.parent)

    def write(self, kind: str, **values: Any) -> Event:
        """Append an event, which is on the disk when this returns."""
        event = {"event": kind, **values}
        line = json.dumps(event, allow_nan=False, ensure_ascii=False).encode() + b"\n"
        os.write(self._file, line)
        os.fsync(self._file)
        self.events.append(event)
        return event

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _parse(text: bytes, path: Path) -> tuple[list[Event], int]:
    """Events, and number of bytes of the lines that are complete."""
    complete = text.rfind(b"\n") + 1
    events = []
    for number, line in enumerate(text[:complete].splitlines(), 1):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "event" not in event:
            raise ValueError(
                f"line {number} of {path} is no event; the journal of an acquisition is required, "
                "and is changed by nothing else: restore it, or begin in a new folder"
            )
        events.append(event)
    return events, complete


def _sync_folder(folder: Path) -> None:
    """Let the name of a new file be on the disk, where folders can be synchronised."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
