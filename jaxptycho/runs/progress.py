"""Progress of a run on the screen, and signals that stop it without losing anything."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median_low
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .state import Row

RECENT = 10  # epochs from which the time left is estimated


class ProgressListener:
    """Listener to every batch and epoch of a run, without output."""

    def __enter__(self):
        return self

    def __exit__(self, *error: object):
        return None

    def say(self, text: str) -> None:
        """Report something else that was done."""

    def begin(self, name: str, epochs: int, patterns: int, done: int) -> None:
        """Epochs of `patterns` begin, `epochs` in the full run, `done` of them before."""

    def batch(self, patterns: float) -> None:
        """A batch of `patterns` is under way."""

    def epoch(self, row: Row) -> None:
        """An epoch is over; `row` is its line of the history."""


class ProgressBar(ProgressListener):
    """Bar with epoch, loss, held-out loss, patterns per second and the time left."""

    def __init__(self, console: Console | None = None):
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("held out {task.fields[held]}"),
            TextColumn("{task.fields[speed]} patterns/s"),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = None

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None):
        self.bar.stop()

    def say(self, text: str) -> None:
        self.bar.console.print(text, highlight=False)

    def begin(self, name: str, epochs: int, patterns: int, done: int) -> None:
        self.patterns = patterns
        whole: dict[str, Any] = {"total": epochs * patterns, "completed": done * patterns}
        if self.task is None:
            unknown = dict.fromkeys(("loss", "held", "speed"), "…")
            self.task = self.bar.add_task(name, epoch=done, epochs=epochs, **whole, **unknown)
        self.bar.update(self.task, description=name, epochs=epochs, **whole)

    def batch(self, patterns: float) -> None:
        if self.task is not None:
            self.bar.advance(self.task, patterns)

    def epoch(self, row: Row) -> None:
        if self.task is not None:
            self.bar.update(
                self.task,
                completed=row.epoch * self.patterns,
                description=row.step,
                epoch=row.epoch,
                loss=f"{row.loss:.4g}",
                held="–" if row.held_out is None else f"{row.held_out:.4g}",
                speed=f"{self.patterns / row.seconds:.0f}",
            )


class EpochLines(ProgressListener):
    """One line for every epoch, with the losses and the time left, and for what is said."""

    def __init__(self, write: Callable[[str], None]):
        self.write = write
        self.epochs = 0
        self.seconds: list[float] = []

    def say(self, text: str) -> None:
        self.write(text)

    def begin(self, name: str, epochs: int, patterns: int, done: int) -> None:
        self.epochs = epochs
        self.write(f"{name}: {patterns} patterns, {epochs} epochs" + f", {done} done" * (done > 0))

    def epoch(self, row: Row) -> None:
        self.seconds.append(row.seconds)
        held = "" if row.held_out is None else f"  held out {row.held_out:.4g}"
        left = time_left(self.seconds, self.epochs - row.epoch)
        self.write(
            f"{row.step} epoch {row.epoch}/{self.epochs}  loss {row.loss:.4g}{held}  "
            f"{row.seconds:.3g} s  {left} left"
        )


class RunLog(EpochLines):
    """Lines of a run with their times, appended to its file, which the first of them creates."""

    def __init__(self, path: Path):
        super().__init__(self._append)
        self.path = path

    def _append(self, text: str) -> None:
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{now}  {text}\n")


class Listeners(ProgressListener):
    """Several listeners to one run."""

    def __init__(self, *listeners: ProgressListener):
        self.listeners = listeners

    def __enter__(self):
        for one in self.listeners:
            one.__enter__()
        return self

    def __exit__(self, *error: Any):
        for one in self.listeners:
            one.__exit__(*error)

    def say(self, text: str) -> None:
        for one in self.listeners:
            one.say(text)

    def begin(self, name: str, epochs: int, patterns: int, done: int) -> None:
        for one in self.listeners:
            one.begin(name, epochs, patterns, done)

    def batch(self, patterns: float) -> None:
        for one in self.listeners:
            one.batch(patterns)

    def epoch(self, row: Row) -> None:
        for one in self.listeners:
            one.epoch(row)


def screen_listener() -> ProgressListener:
    """A bar on a terminal, lines where the output goes to a file or a queue."""
    if sys.stdout.isatty():
        return ProgressBar()
    return EpochLines(partial(print, flush=True))


def time_left(seconds: Sequence[float], epochs: int) -> str:
    """Time of `epochs` like the last ones, whose median is taken: the first compiles."""
    if not seconds:
        return "an unknown time"
    left = max(epochs, 0) * median_low(seconds[-RECENT:])
    return f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"


class SignalStopper:
    """Reason to stop: Ctrl-C, SIGTERM, or a limit of minutes. A second Ctrl-C stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, minutes: float | None = None):
        self.until = None if minutes is None else time.monotonic() + 60 * minutes
        self.signal = None

    def __enter__(self):
        self.before = {}
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            self.before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def why(self) -> str | None:
        """Cause of a request to stop, else None."""
        if self.signal is not None:
            return {"SIGINT": "Ctrl-C"}.get(self.signal, self.signal)
        if self.until is not None and time.monotonic() > self.until:
            return "the wall-time limit"
        return None
