"""Session: frames of a receiver become states, pictures, and files, series after series.

Frames have priority: pictures are made from copies of the states in a thread, one after the other,
and a picture that is not wanted yet is not made.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..direct.transfer import Optics
from .accumulator import Accumulator
from .finish import finish
from .intake import Begin, End
from .pictures import Canvas, LiveImage, dose, phase_pictures, quick_pictures, results_of
from .receiver import Receiver
from .snapshot import Snapshot, save_pictures

PERIOD_S = 0.1  # between two snapshots, at least
SAVED_S = 5.0  # between two writes of the pictures of a running series
REST = 2.0  # pause after a phase picture, in times that it took


class Session:
    """Run of the command `live`.

    `show` is given every snapshot. `layout` maps the axes of the scan to those of the detector.
    """

    def __init__(
        self,
        receiver: Receiver,
        folder: Path,
        show: Callable[[Snapshot], None],
        layout: dict[str, Any] | None = None,
    ):
        self.receiver = receiver
        self.folder = folder
        self.show = show
        self.layout = layout or {}
        self.running: Accumulator | None = None
        self.recording = folder
        self.canvas: Canvas | None = None
        self.optics: Optics | None = None
        self.measured: dict[str, str] = {}
        self.done: list[Snapshot] = []  # last ones of the series that are over
        self.pool = ThreadPoolExecutor(1)
        self.making: Future | None = None
        self.saved = 0.0
        self.phase_due = 0.0
        self.latest: dict[str, LiveImage] = {}
        self.meter = RateMeter()

    def run(self, stop: Callable[[], str | None], series: int | None = None) -> None:
        """Take series until the camera ends, `stop` gives a reason, or `series` are complete.

        Raises ValueError where a camera fails; what had come is saved.
        """
        asked = False
        try:
            for event in self.receiver.events():
                if not asked and stop() is not None:
                    self.receiver.stop()
                    asked = True
                if isinstance(event, Begin):
                    self._begin(event)
                elif isinstance(event, End):
                    self._end(event)
                    if series is not None and len(self.done) >= series:
                        return
                elif event is not None and self.running is not None:
                    self.running.add(event)
                    self.meter.add(len(event))
                self._develop()
        finally:
            if self.running is not None:
                self._end(End("interrupted"))
            self.pool.shutdown()

    def refocus(self, **aberrations: float) -> None:
        """Use other aberrations [Å] from the next picture on, from the kept bright field."""
        if self.canvas is not None:
            self.optics = self.canvas.scan.lens(**aberrations)
            self.measured = {name: f"{value:.5g} Å (set)" for name, value in aberrations.items()}
            self.phase_due = 0.0

    def _begin(self, begun: Begin) -> None:
        self.running = Accumulator(begun.series, self.layout)
        self.recording = begun.recording
        self.canvas = None
        self.latest = {}
        self.meter = RateMeter()

    def _end(self, ended: End) -> None:
        """Last pictures and the file of a series."""
        running = self.running
        assert running is not None
        self.running = None
        running.begin()
        if self.making is not None:
            self.making.result()
        self.making = None
        snapshot = Snapshot(running.series.name, self._status(running, ended.note, over=True))
        if running.scan is not None:
            self._prepare(running)
            work = running.copied(), snapshot.status, True
            snapshot = self._make(running, *work)
            save_pictures(self.latest, self.recording.with_suffix(""))
        self.show(snapshot)
        self.done.append(snapshot)
        finish(self.recording, self.layout)

    def _develop(self) -> None:
        """Show a picture that is ready, and begin the next one."""
        running = self.running
        if self.making is not None:
            if not self.making.done():
                return
            self.show(self.making.result())
            self.making = None
        if running is None or not self.meter.due():
            return
        if running.scan is None:
            self.show(Snapshot(running.series.name, self._status(running)))
            return
        self._prepare(running)
        phase = time.monotonic() >= self.phase_due
        work = running, running.copied(), self._status(running), phase
        self.making = self.pool.submit(self._make, *work)

    def _prepare(self, running: Accumulator) -> None:
        """Canvas and optics of a series, once its scan is known."""
        if self.canvas is None:
            assert running.scan is not None
            self.canvas = Canvas.of(running.scan, running.processors[-1])  # pyright: ignore
            if self.optics is None:
                self.optics = running.scan.lens()

    def _make(
        self, running: Accumulator, states: tuple[Any, ...], status: dict[str, Any], phase: bool
    ) -> Snapshot:
        canvas = self.canvas
        optics = self.optics
        assert canvas is not None
        assert optics is not None
        begun = time.monotonic()
        results = results_of(running.processors, states)
        pictures = quick_pictures(canvas, results)
        if phase:
            pictures |= phase_pictures(canvas, results, optics)
            now = time.monotonic()
            self.phase_due = now + REST * (now - begun)
        self.latest = self.latest | pictures
        if begun - self.saved > SAVED_S:
            self.saved = begun
            save_pictures(self.latest, self.recording.with_suffix(""))
        status = status | dose(results, canvas.scan)
        status["lag"] += time.monotonic() - begun
        step = np.multiply(canvas.scan.grid.dk, canvas.scan.grid.wavelength)
        y, x = np.divide(canvas.scan.centre, step) + np.array(canvas.scan.grid.shape) // 2
        disc = float(y), float(x), canvas.scan.semiangle / float(np.sqrt(np.prod(step)))
        return Snapshot(running.series.name, status, self.measured, pictures, disc)

    def _status(self, running: Accumulator, note: str = "", over: bool = False) -> dict[str, Any]:
        tally = running.tally
        arrived = tally.arrived
        rate = self.meter.rate()
        queue = self.receiver.queued
        return {
            "frames": tally.frames,
            "arrived": arrived,
            "lost": tally.frames - arrived if over else tally.missing,
            "late": tally.late,
            "doubled": tally.doubled,
            "foreign": tally.foreign + self.receiver.refused,
            "skipped": self.receiver.skipped,
            "restarts": self.receiver.restarts,
            "queue": queue,
            "rate": rate,
            "lag": queue / rate if rate > 0 else 0.0,
            "over": over,
            "note": note,
        }


class RateMeter:
    """Frames per second over the last second, and the clock of snapshots."""

    def __init__(self):
        self.begun = time.monotonic()
        self.marks: list[tuple[float, int]] = [(self.begun, 0)]
        self.shown = 0.0

    def add(self, frames: int) -> None:
        """Count frames."""
        now = time.monotonic()
        self.marks.append((now, self.marks[-1][1] + frames))
        while len(self.marks) > 2 and self.marks[1][0] < now - 1:
            self.marks.pop(0)

    def rate(self) -> float:
        """Frames per second."""
        (first, before), (_, after) = self.marks[0], self.marks[-1]
        return (after - before) / max(time.monotonic() - first, 1e-3)

    def due(self) -> bool:
        """True if it is time for a snapshot."""
        now = time.monotonic()
        if now - self.shown < PERIOD_S:
            return False
        self.shown = now
        return True
