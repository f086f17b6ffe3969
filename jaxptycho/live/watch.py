"""A running job as a source for the page: its folder is read, nothing is asked of the run."""

import base64
import csv
import tomllib
from pathlib import Path
from typing import Any

from ..runs.folder import require_run

RECENT = 5  # epochs that the time left is taken from


class WatchedRun:
    """State of the run in a folder, of this machine or another one."""

    def __init__(self, folder: Path):
        require_run(folder)
        self.folder = folder
        self._seen: dict[Path, int] = {}

    def news(self) -> dict[str, Any] | None:
        """Message for the page if anything has changed, with the pictures that have."""
        files = [self.folder / name for name in ("run.toml", "history.csv", "result.h5")]
        figures = sorted((self.folder / "figures").glob("*.png"))
        changed = [path for path in (*files, *figures) if self._changed(path)]
        if not changed:
            return None
        history = history_of(self.folder / "history.csv")
        return {
            "series": self.folder.name,
            "kind": "run",
            "status": run_status(self.folder, history),
            "optics": {},
            "pictures": {p.stem: _figure(p) for p in figures if p in changed},
            "curves": {"losses": _curves(history)} if history else {},
        }

    def _changed(self, path: Path) -> bool:
        modified = _modified(path)
        before = self._seen.get(path, 0)
        self._seen[path] = modified
        return before != modified


def _modified(path: Path) -> int:
    """Time of the last change [ns], 0 for what is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def history_of(path: Path) -> list[dict[str, str]]:
    """Rows of the history of a run, none before its first epoch."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def run_status(folder: Path, history: list[dict[str, str]]) -> dict[str, Any]:
    """Numbers of a run: epochs, losses, time left at most [min]."""
    job = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
    epochs = sum(step.get("epochs", 0) for step in job.get("step", []))
    over = _modified(folder / "result.h5") > _modified(folder / "history.csv")
    status: dict[str, Any] = {"epoch": len(history), "of_at_most": epochs, "over": over, "note": ""}
    if not history:
        return status | {"note": "before the first epoch"}
    last = history[-1]
    status |= {"step": last["step"], "loss": float(last["loss"])}
    if last["held_out"]:
        status["held_out_loss"] = float(last["held_out"])
    seconds = [float(row["seconds"]) for row in history[-RECENT:]]
    status["seconds_per_epoch"] = sum(seconds) / len(seconds)
    if not over:
        left = max(epochs - len(history), 0) * status["seconds_per_epoch"]
        status["minutes_left_at_most"] = left / 60
    return status


def run_line(status: dict[str, Any]) -> str:
    """One line for a terminal."""
    held = f", held-out {status['held_out_loss']:.5g}" if "held_out_loss" in status else ""
    loss = f", loss {status['loss']:.5g}{held}" if "loss" in status else ""
    left = status.get("minutes_left_at_most")
    left = "" if left is None else f", at most {left:.1f} min left"
    return f"epoch {status['epoch']} of at most {status['of_at_most']}{loss}{left}"


def _curves(history: list[dict[str, str]]) -> dict[str, Any]:
    lines = [
        {"name": name, "y": [float(row[name]) if row[name] else None for row in history]}
        for name in ("loss", "held_out")
    ]
    return {"title": "Loss, held-out loss", "lines": lines}


def _figure(path: Path) -> dict[str, Any]:
    png = base64.b64encode(path.read_bytes()).decode()
    return {"png": png, "title": path.stem.replace("_", " "), "range": None, "unit": ""}
