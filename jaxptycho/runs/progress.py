"""Looking at a run while it goes, and stopping it without losing anything."""

import signal
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..jobs.schema import Job
from ..jobs.tomogram_schema import TomogramJob


class Watch:
    """Sees every batch and epoch of a run, and says nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def say(self, text: str) -> None:
        """Something else was done."""

    def begin(self, job: Job | TomogramJob, patterns: int, done: int) -> None:
        """A run of `job` with `patterns` an epoch starts after `done` epochs."""

    def batch(self, patterns: float) -> None:
        """A batch of so many patterns is under way."""

    def epoch(self, row) -> None:
        """An epoch is over; `row` is its line of the history."""


class Bar(Watch):
    """A bar with epoch, loss, held-out loss, patterns per second and the time left."""

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

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None):
        self.bar.stop()

    def say(self, text):
        self.bar.console.print(text, highlight=False)

    def begin(self, job, patterns, done):
        epochs = sum(stage.epochs for stage in job.stage)
        self.task = self.bar.add_task(
            job.stage[0].name,
            total=epochs * patterns,
            completed=done * patterns,
            epoch=done,
            epochs=epochs,
            loss="…",
            held="…",
            speed="…",
        )
        self.patterns = patterns

    def batch(self, patterns):
        self.bar.advance(self.task, patterns)

    def epoch(self, row):
        self.bar.update(
            self.task,
            completed=row.epoch * self.patterns,
            description=row.stage,
            epoch=row.epoch,
            loss=f"{row.loss:.4g}",
            held="–" if row.held_out is None else f"{row.held_out:.4g}",
            speed=f"{self.patterns / row.seconds:.0f}",
        )


class Stopper:
    """Says when to stop: after Ctrl-C, SIGTERM, or so many minutes. A second Ctrl-C stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, minutes: float | None = None):
        self.until = None if minutes is None else time.monotonic() + 60 * minutes
        self.signal = None

    def __enter__(self):
        self.before = {}
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            self.before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        return self

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def why(self) -> str | None:
        """What asks the run to stop, None if nothing does."""
        if self.signal is not None:
            return {"SIGINT": "Ctrl-C"}.get(self.signal, self.signal)
        if self.until is not None and time.monotonic() > self.until:
            return "the wall-time limit"
        return None
