"""Session: frames of a receiver become states, pictures, and files, series after series.

Frames have priority: pictures are made from copies of the states in threads, the phase at its own
pace, and a picture that is not yet required is not made.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..analysis.pictures import picture
from ..direct.transfer import Optics
from ..io.readers.stream import positions_file
from ..io.results import write
from .accumulator import Accumulator, Make
from .finish import finish
from .focus import measure_live
from .intake import Begin, End
from .iterative import Arrivals, Iterative, live_model
from .pictures import (
    Canvas,
    LiveImage,
    dose,
    further_results,
    phase_pictures,
    quick_pictures,
    results_of,
)
from .positions import LatePositions
from .rate_meter import RateMeter
from .receiver import Receiver
from .scan import LiveScan
from .snapshot import Snapshot, save_pictures

SAVED_S = 5.0  # between two writes of the pictures of a running series
REST = 2.0  # pause after a phase picture, in times that it took
IDLE_S = 0.02
LATE_S = 5.0  # after the last position that came, for those which miss at the end of a series
TICK_S = 1.0  # of iterative steps, after which their object is shown
WORKERS = 4  # quick pictures, phase, a measurement of the optics, iterative steps


class Session:
    """Run of the command `live`.

    `show` is given every snapshot; `asked` takes requests of other threads, such as
    `{"do": "refocus", "defocus": 150.0}` [Å], `{"do": "measure"}`, `{"do": "iterate"}` (begin or
    pause an iterative reconstruction) or `{"do": "save"}`. `layout` maps the axes of the scan to
    those of the detector, `further` make processors of the user. `late` are measured positions that
    come beside the frames: a shot is used once its own has come.
    """

    def __init__(
        self,
        receiver: Receiver,
        folder: Path,
        show: Callable[[Snapshot], None],
        layout: dict[str, Any] | None = None,
        asked: SimpleQueue[dict[str, Any]] | None = None,
        further: Sequence[Make] = (),
        iterates: bool = False,
        late: LatePositions | None = None,
    ):
        self.receiver = receiver
        self.folder = folder
        self.show = show
        self.layout = layout or {}
        self.further = further
        self.asked = SimpleQueue() if asked is None else asked
        self.current: Accumulator | None = None  # the last series that has begun
        self.over = True  # whether it has ended
        self.note = ""
        self.recording = folder
        self.canvas: Canvas | None = None
        self.optics: Optics | None = None
        self.shown_optics: dict[str, str] = {}
        self.done: list[Snapshot] = []  # last ones of the series that are over
        self.pool = ThreadPoolExecutor(WORKERS)
        self.beginning: Future | None = None
        self.making: dict[str, Future] = {}
        self.measuring: Future | None = None
        self.saved = 0.0
        self.phase_due = 0.0
        self.iterates = iterates
        self.late = late
        self.placed = 0  # changes of `late` that the canvas has seen
        self.iterative: Iterative | None = None
        self.latest: dict[str, LiveImage] = {}
        self.meter = RateMeter()

    def run(self, stop: Callable[[], str | None], series: int | None = None) -> None:
        """Take series until the camera ends, `stop` gives a reason, or `series` are complete.

        Raises ValueError where a camera or the source of positions fails; what had come is saved.
        """
        stopped = False
        try:
            for event in self.receiver.events():
                if not stopped and stop() is not None:
                    self.receiver.stop()
                    stopped = True
                if isinstance(event, Begin):
                    self._begin(event)
                elif isinstance(event, End):
                    self._end(event)
                    if self.late is not None and self.late.fault:
                        raise ValueError(self.late.fault)
                    if series is not None and len(self.done) >= series:
                        return
                elif event is not None:
                    self._add(event)
                self._attend()
        finally:
            if not self.over:
                self.receiver.stop()
                self.receiver.join()  # the recording is closed before it is converted
                self._end(End("interrupted"))

    def stay(self, stop: Callable[[], str | None]) -> None:
        """Answer requests about the last series until `stop` gives a reason."""
        while stop() is None:
            self._attend()
            time.sleep(IDLE_S)

    def close(self) -> None:
        """Wait for what is under way."""
        self.pool.shutdown(cancel_futures=True)

    def _begin(self, begun: Begin) -> None:
        self.current = Accumulator(begun.series, self.layout, self.further)
        self.over = False
        self.note = ""
        self.recording = begun.recording
        if self.late is not None:
            self.late.begin(begun.series.name, positions_file(begun.recording))
        self.canvas = None
        self.latest = {}
        self.phase_due = 0.0
        self.measuring = None
        self.iterative = None
        self.meter = RateMeter()

    def _add(self, records: np.ndarray) -> None:
        """Add frames; while programs are compiled in a thread, they wait."""
        current = self.current
        assert current is not None
        self._begun()
        current.add(records)
        self.meter.add(len(records))
        if current.may_begin:
            self.beginning = self.pool.submit(current.begin)
            self.receiver.paused = True

    def _begun(self) -> None:
        """Wait until the series is under way; raises ValueError where its scan is not known."""
        if self.beginning is not None:
            beginning = self.beginning
            self.beginning = None
            self.receiver.paused = False
            beginning.result()

    def _end(self, ended: End) -> None:
        """Last pictures and the file of a series."""
        current = self.current
        assert current is not None
        self.over = True
        self.note = ended.note
        self._settle(wait=True)
        self._await_positions(current)
        snapshot = self._plain(current)
        try:
            self._begun()
            current.begin()
            if current.scan is not None:
                self._prepare(current)
                for kind in ("quick", "phase"):
                    work = current.copied(), time.monotonic()
                    snapshot = self._made(kind, current, *work)
                    self.show(snapshot)
                self.phase_due = math.inf
                snapshot = replace(snapshot, pictures=self.latest)
                save_pictures(self.latest, self.recording.with_suffix(""))
                if self.iterative is not None:
                    self.iterative.arrivals.refresh()
                    model = self.recording.with_name(f"{self.recording.stem}-model.h5")
                    write(model, self.iterative.model)
        finally:
            self.note = "; ".join(filter(None, (self.note, finish(self.recording, self.layout))))
            snapshot = replace(snapshot, status=snapshot.status | {"note": self.note})
            self.show(replace(snapshot, pictures={}))
            self.done.append(snapshot)

    def _await_positions(self, current: Accumulator) -> None:
        """Wait for the positions of all frames, while some still come."""
        late = self.late
        if late is None:
            return
        changes = late.changes
        since = time.monotonic()
        while not late.fault and time.monotonic() - since < LATE_S:
            found = late.of(current.series.name, current.series.frames)
            if not np.isnan(found[current.tally.seen]).any():
                return
            time.sleep(IDLE_S)
            if late.changes != changes:
                changes = late.changes
                since = time.monotonic()

    def _attend(self) -> None:
        """Answer requests, and begin the next picture once the last one is shown."""
        current = self.current
        if current is None:
            return
        if self.beginning is not None and self.beginning.done():
            self._begun()
        while self.canvas is not None and not self.asked.empty():
            self._answer(current, self.asked.get())
            self.show(self._plain(current))
        if self.measuring is not None and self.measuring.done():
            self._focused(self.measuring)
            self.measuring = None
        self._settle()
        if self.beginning is not None or current.scan is None:
            if self.meter.due():
                self.show(self._plain(current))
            return
        canvas = self._prepare(current)
        if self.iterates and "iterative" not in self.making:
            work = canvas, current, current.copied()
            self.making["iterative"] = self.pool.submit(self._iterate, *work)
        if "phase" not in self.making and time.monotonic() >= self.phase_due:
            self._make("phase", current)
        elif "quick" not in self.making and not self.over and self.meter.due():
            self._make("quick", current)

    def _plain(self, current: Accumulator) -> Snapshot:
        """Snapshot without new pictures."""
        return Snapshot(current.series.name, self._status(current), self.shown_optics)

    def _make(self, kind: str, current: Accumulator) -> None:
        """Begin to make pictures of copies of the states."""
        work = current.copied(), time.monotonic()
        if kind == "phase":
            self.phase_due = math.inf
        self.making[kind] = self.pool.submit(lambda: self.show(self._made(kind, current, *work)))

    def _iterate(self, canvas: Canvas, current: Accumulator, states: tuple[Any, ...]) -> None:
        """Take steps for a while, and show the object; the first time, make its model."""
        if self.iterative is None:
            mean = results_of(current.processors, states).moments.mean
            arrivals = Arrivals(self.recording, current.series.frames)
            assert self.optics is not None
            self.iterative = Iterative(live_model(canvas.scan, mean, self.optics), arrivals)
        iterative = self.iterative
        iterative.place(canvas.scan)
        if iterative.tick(TICK_S):
            image = picture(iterative.model).phase.sum(0)
            images = {"iterative": LiveImage(image, "rad", f"Iterative, {iterative.steps} steps")}
            self.latest = self.latest | images
            status = self._status(current) | {"held_out_loss": iterative.held_out_loss()}
            name = current.series.name
            self.show(Snapshot(name, status, self.shown_optics, images, canvas.scan.disc))

    def _settle(self, wait: bool = False) -> None:
        """Forget pictures that are made; one that fails never stops the recording."""
        for kind, future in list(self.making.items()):
            if wait or future.done():
                del self.making[kind]
                if (error := future.exception()) is not None:
                    self.note = f"no picture: {error}"

    def _answer(self, current: Accumulator, request: dict[str, Any]) -> None:
        assert self.canvas is not None
        kind = request.get("do")
        if kind == "refocus":
            self._use({"defocus": float(request["defocus"])})
            self.shown_optics = {"defocus": f"{float(request['defocus']):.5g} Å (set)"}
        elif kind == "measure" and self.measuring is None:
            results = results_of(current.processors, current.copied())
            scan = self.canvas.scan
            work = scan, self.canvas.bright, results.stack, self.recording, self.layout
            self.measuring = self.pool.submit(measure_live, *work)
            self.shown_optics = self.shown_optics | {"measurement": "under way"}
        elif kind == "iterate":
            self.iterates = not self.iterates
        elif kind == "save":
            folder = self.recording.with_suffix("")
            save_pictures(self.latest, folder.with_name(f"{folder.name}-{time.strftime('%H%M%S')}"))

    def _focused(self, measuring: Future) -> None:
        """Use optics and orientation that were measured."""
        assert self.canvas is not None
        if (error := measuring.exception()) is not None:
            self.shown_optics = {"measurement": str(error)}
            self.phase_due = 0.0
            return
        found, camera = measuring.result()
        self.canvas = Canvas.of(self.canvas.scan.turned(found.matrix), self.canvas.bright)
        self.iterative = None  # begins again with them
        self._use(found.aberrations)
        rows = found.rows() | camera
        self.shown_optics = {name: row.amount for name, row in rows.items()}
        if found.warnings:
            self.shown_optics["caution"] = "; ".join(found.warnings)

    def _use(self, aberrations: dict[str, float]) -> None:
        """Make the next phase with other aberrations [Å], from the kept bright field."""
        assert self.canvas is not None
        self.optics = self.canvas.scan.lens(**aberrations)
        self.phase_due = 0.0

    def _prepare(self, current: Accumulator) -> Canvas:
        """Canvas of a series, once its scan is known; its optics are at first the stated ones."""
        if self.canvas is None:
            assert current.scan is not None
            self.canvas = Canvas.of(self._located(current.scan, current), current.bright)
            self.optics = current.scan.lens()
            self.shown_optics = {"defocus": f"{current.scan.defocus:.5g} Å (stated)"}
        return self.canvas

    def _located(self, scan: LiveScan, current: Accumulator) -> LiveScan:
        """The scan at the measured positions that have come, where they are measured."""
        if self.late is None:
            return scan
        self.placed = self.late.changes
        return scan.placed(self.late.of(current.series.name, current.series.frames))

    def _made(
        self, kind: str, current: Accumulator, states: tuple[Any, ...], taken: float
    ) -> Snapshot:
        """Snapshot with the "quick" pictures or the "phase" of states that were `taken` then."""
        canvas = self.canvas
        optics = self.optics
        assert canvas is not None
        assert optics is not None
        begun = time.monotonic()
        numbers: dict[str, float] = {}
        results = results_of(current.processors, states)
        if kind == "phase":
            if self.late is not None and self.late.changes != self.placed:
                moved = Canvas.of(self._located(canvas.scan, current), canvas.bright)
                if self.canvas is canvas:
                    self.canvas = moved
                canvas = moved
            pictures = phase_pictures(canvas, results, optics)
            if not self.over:
                now = time.monotonic()
                self.phase_due = min(self.phase_due, now + REST * (now - begun))
        else:
            further = current.processors, states, results.stack.seen
            numbers, pictures = further_results(canvas, *further)
            pictures = quick_pictures(canvas, results) | pictures
        self.latest = self.latest | pictures
        if begun - self.saved > SAVED_S:
            self.saved = begun
            save_pictures(self.latest, self.recording.with_suffix(""))
        status = self._status(current) | dose(canvas, results) | numbers
        status["lag"] += time.monotonic() - taken
        name = current.series.name
        return Snapshot(name, status, self.shown_optics, pictures, canvas.scan.disc)

    def _status(self, current: Accumulator) -> dict[str, Any]:
        tally = current.tally
        arrived = tally.arrived
        rate = self.meter.rate()
        unplaced = 0
        if self.canvas is not None and self.canvas.scan.unplaced is not None:
            unplaced = int((tally.seen & self.canvas.scan.unplaced).sum())
        queue = 0 if self.over else self.receiver.queued
        return {
            "frames": tally.frames,
            "arrived": arrived,
            "lost": tally.frames - arrived if self.over else tally.missing,
            "late": tally.late,
            "doubled": tally.doubled,
            "foreign": tally.foreign + self.receiver.refused,
            "skipped": self.receiver.skipped,
            "restarts": self.receiver.restarts,
            "without_position": unplaced,
            "queue": queue,
            "rate": rate,
            "lag": queue / rate if rate > 0 else 0.0,
            "over": self.over,
            "note": self.note,
        }
