"""Acquisition of a tilt series of many targets: track, predict, expose, measure.

At every tilt the first target is looked at with little dose, until the stage is quiet; then every
target is aimed at as predicted, scanned once, and measured against earlier scans. Everything is in
the journal before it is acted upon, the intent to expose included, so that an acquisition that was
killed goes on where it was, and no target is exposed twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .instrument import Instrument, TargetScan
from .journal import JOURNAL, Event, Journal
from .microscopes.microscope import MicroscopeError, NotReady, Refused
from .pairs import closest_tilts
from .plan import Plan, stage_moves
from .priors import GeometryPrior
from .series_state import SeriesState

T = TypeVar("T")
SAME_ANGLE = np.deg2rad(0.05)  # within which a stage has not moved since it was tilted
FIRST_SIGMA = 1.0  # Å; the first scan of a target says what the target is
FILM_SLOPE = 0.1  # of a film at no tilt
LOOK_SIGMA = 20.0  # Å; place of the tracked target in the first look
SIGNIFICANT = 2.0  # standard deviations of a drift beyond what is allowed
AGREEMENT = 6.0  # standard deviations within which a second look confirms the first
RETRY = 20.0  # s between two attempts
RESUMABLE = "resume with --resume once it is"


@dataclass(frozen=True)
class Rules:
    """Limits of an acquisition.

    `shift_limit` [Å] of the image shift, `dark` the fraction of a target's first mean count below
    which its branch ends, `drift` [Å/s] below which the stage is quiet, for which it is waited
    `settle` seconds at most, with `pause` seconds between two looks. `patience` [s] for a
    microscope that is not ready, `minutes` the time for the series, `partners` the earlier scans
    that each is measured against.
    """

    shift_limit: float = 150_000.0
    dark: float = 0.2
    drift: float = 5.0
    settle: float = 60.0
    pause: float = 3.0
    patience: float = 3600.0
    minutes: float = np.inf
    partners: int = 3


class Acquisition:
    """Series in a folder: a new one, or one that its journal continues."""

    def __init__(
        self,
        plan: Plan,
        instrument: Instrument,
        folder: Path,
        prior: GeometryPrior | None = None,
        rules: Rules | None = None,
        listener: Callable[["Acquisition", str], None] = lambda series, line: None,
    ):
        self.plan = plan
        self.instrument = instrument
        self.rules = rules or Rules()
        self.listener = listener
        self.journal = Journal(folder / JOURNAL)
        self.state = SeriesState.of(plan, prior or GeometryPrior())
        self.state.apply(self.journal.events)

    def run(self) -> SeriesState:
        """Expose what is not yet exposed. The beam is blanked at the end, whatever it is."""
        try:
            self._begin()
            for tilt in range(max(self.state.tilt, 0), len(self.plan.angles)):
                self._acquire(tilt)
            if not self.state.finished:
                self._write("finish")
        finally:
            self.instrument.blank()
            self.journal.close()
        return self.state

    def seconds(self) -> float:
        """Time since the series was begun [s]."""
        return self.instrument.seconds() - self.journal.events[0]["time"]

    def _begin(self):
        plan = {
            "angles_deg": np.rad2deg(self.plan.angles).round(6).tolist(),
            "targets": self.plan.targets.round(3).tolist(),
            "focus_sign": self.plan.focus_sign,
        }
        if not self.journal.events:
            self._write("start", date=datetime.now().isoformat(timespec="seconds"), **plan)
        elif any(self.journal.events[0].get(key) != value for key, value in plan.items()):
            raise ValueError(
                "the journal is of another plan (tilts, targets or focus sign); resume with the "
                "job as it was, or begin in a new folder"
            )
        elif self.state.intent is not None:
            self._settle_intent(self.state.intent)

    def _acquire(self, tilt: int):
        if not self.state.pending(tilt):
            return
        if not self._tilt(tilt):
            return
        begun = self.instrument.seconds()
        self._track(tilt)
        self._write("tracked", tilt=tilt, seconds=self.instrument.seconds() - begun)
        self._drop_if_late(tilt)
        for target in self.state.pending(tilt):
            self._expose(target, tilt)

    def _tilt(self, tilt: int) -> bool:
        """Tilt, unless the stage is there already; False if it refuses."""
        angle = float(self.plan.angles[tilt])
        here = self.instrument.angle()
        if self.state.tilt == tilt and abs(here - angle) < SAME_ANGLE:
            return True
        begun = self.instrument.seconds()
        try:
            reading = self._patiently(lambda: self.instrument.tilt(angle))
        except Refused as refusal:
            for target in self.state.pending(tilt):
                self._end(target, tilt, str(refusal))
            return False
        moves, way = stage_moves(here, angle)
        self._write("tilt", tilt=tilt, reading=reading, begun=begun, moves=moves, way=way)
        return True

    def _track(self, tilt: int):
        """Look at the first target until the stage is quiet, and learn where it is."""
        if (0, bool(self.plan.branch[tilt])) in self.state.ended:
            return
        if not self._aim(0, tilt, *self._predict(0, tilt)):
            return
        scan = self._quiet_look(tilt)
        rows = self._rows(scan, 0, tilt, self.state.looks, LOOK_SIGMA)
        event = {"event": "track", "target": 0, "tilt": tilt, "name": scan.name, "rows": rows}
        accepted = self._accepted(event, scan, self.state.looks)
        if accepted is None:
            self._write("lost", target=0, tilt=tilt)
        else:
            self._write(**accepted)

    def _quiet_look(self, tilt: int) -> TargetScan:
        """Last of several looks at the aimed target, between which it drifts slowly enough."""
        begun = self.instrument.seconds()
        scan = self._look(0, tilt)
        while self.instrument.seconds() - begun < self.rules.settle:
            before, last = self.instrument.seconds(), scan
            self.instrument.wait(self.rules.pause)
            scan = self._look(0, tilt)
            apart = self.instrument.displacement(scan, last)
            quiet = self.rules.drift * (self.instrument.seconds() - before)
            if np.hypot(*apart.value) < quiet + SIGNIFICANT * apart.sigma:
                break
        return scan

    def _expose(self, target: int, tilt: int):
        begun = self.instrument.seconds()
        shift, focus = self._predict(target, tilt)
        self._write(
            "expose",
            target=target,
            tilt=tilt,
            name=f"scan-{tilt:03d}-{target:02d}",
            count=self.instrument.exposures(),
            begun=begun,
        )
        if not self._aim(target, tilt, shift, focus):
            return
        intent = self.state.intent
        assert intent is not None
        scan = self._patiently(lambda: self._once(intent))
        self._learn(scan, intent)

    def _once(self, intent: Event) -> TargetScan | None:
        """Scan, unless an attempt that failed has exposed."""
        if self.instrument.exposures() > intent["count"]:
            return self.instrument.load(intent["name"])
        return self.instrument.record(intent["name"])

    def _settle_intent(self, intent: Event):
        """After a kill: learn from the exposure that was intended, if it was made."""
        if self.instrument.exposures() > intent["count"]:
            self._learn(self.instrument.load(intent["name"]), intent)
        else:
            self._write("cancel", target=intent["target"], tilt=intent["tilt"])

    def _predict(self, target: int, tilt: int) -> tuple[tuple[float, float], float]:
        prediction = self.state.belief.predict(self.state.exposures, target, tilt)
        x, y = map(float, prediction.shift)
        return (x, y), float(prediction.focus)

    def _aim(self, target: int, tilt: int, shift: tuple[float, float], focus: float) -> bool:
        """Aim at a target; False if that is beyond a limit, which ends its branch."""
        size = float(np.hypot(*shift))
        try:
            if size > self.rules.shift_limit:
                raise Refused(
                    f"an image shift of {size / 1e4:.2f} µm is beyond the limit of "
                    f"{self.rules.shift_limit / 1e4:.2f} µm"
                )
            self._patiently(lambda: self.instrument.aim(shift, focus))
        except Refused as refusal:
            self._end(target, tilt, str(refusal))
            return False
        return True

    def _learn(self, scan: TargetScan | None, intent: Event):
        """Measure a scan, and put it into the journal with what it tells."""
        target = intent["target"]
        tilt = intent["tilt"]
        if scan is None:
            self._write("skip", target=target, tilt=tilt, why="exposed, image lost")
            return
        others = {k: name for (i, k), name in self.state.scans.items() if i == target}
        dark = scan.mean < self.rules.dark * self.state.brightness.get(target, 0.0)
        rows = [] if dark else self._rows(scan, target, tilt, others, FIRST_SIGMA)
        event = {"event": "exposed", "target": target, "tilt": tilt, "name": scan.name}
        event |= {"shift": list(scan.shift), "focus": scan.focus, "rows": rows}
        event |= {"mean": scan.mean, "pixel": scan.pixel}
        accepted = None if dark else self._accepted(event, scan, others)
        seconds = self.instrument.seconds() - intent["begun"]
        self._write(**(accepted or event | {"rows": []}), seconds=seconds)
        if dark:
            self._end(target, tilt, "dark image")
        elif accepted is None:
            self._end(target, tilt, "lost")

    def _accepted(self, event, scan: TargetScan, others: dict[int, str]) -> dict[str, Any] | None:
        """Event with rows that can be believed; None where a second look does not help.

        What is lost is looked at again, once: the same place confirms a jump of the stage, another
        one that is as predicted replaces the first.
        """
        _, lost = self.state.trial(event)
        if event["rows"] and not lost:
            return event
        target = event["target"]
        tilt = event["tilt"]
        self._write("rescan", target=target, tilt=tilt)
        again = self._look(target, tilt)
        rows = self._rows(again, target, tilt, others, None)
        if not rows:
            return None
        if event["rows"] and _agree(event["rows"], rows):
            return event | {"confirmed": True}
        second = event | {"rows": rows}
        return None if self.state.trial(second)[1] else second

    def _rows(self, scan: TargetScan, target: int, tilt: int, others: dict[int, str], first):
        """Measurements of a scan: shifts to the closest earlier scans, and defocus.

        What is in the first scan of a target is the target, to `first` [Å].
        """
        earlier = np.array(sorted(k for k in others if k != tilt), int)
        rows = []
        off = 0.0
        for other in closest_tilts(self.plan.angles, tilt, earlier, self.rules.partners):
            stored = self.instrument.load(others[int(other)])
            if stored is None:
                continue
            apart = self.instrument.displacement(scan, stored)
            if np.isfinite(apart.sigma):
                off = max(off, float(np.hypot(*apart.value)))
                value = np.subtract(scan.shift, stored.shift) + apart.value
                rows.append([int(other), *map(float, value), 0.0, apart.sigma, apart.sigma, None])
        if not earlier.size and first is not None:
            rows = [[-1, *scan.shift, 0.0, first, first, None]]
        if rows and np.isfinite(scan.defocus_sigma):
            focus = scan.focus - scan.defocus_error
            # of what is under the beam, which is as much higher or lower as the film is steep
            sigma = np.hypot(scan.defocus_sigma, off * (np.tan(abs(scan.angle)) + FILM_SLOPE))
            rows.append([-1, 0.0, 0.0, focus, None, None, float(sigma)])
        return rows

    def _look(self, target: int, tilt: int) -> TargetScan:
        number = sum(event["event"] == "look" for event in self.journal.events)
        name = f"look-{tilt:03d}-{target:02d}-{number}"
        self._write("look", target=target, tilt=tilt, name=name)
        return self._patiently(lambda: self.instrument.look(name))

    def _drop_if_late(self, tilt: int):
        """Give up the last targets of the plan while the forecast is beyond the time allowed."""
        if tilt < 2:
            return
        for target in reversed(range(1, len(self.plan.targets))):
            if self.seconds() + self.state.seconds_left() <= 60 * self.rules.minutes:
                return
            for branch in (False, True):
                if (target, branch) not in self.state.ended:
                    self._write("end", target=target, branch=branch, tilt=tilt, why="late")

    def _end(self, target: int, tilt: int, why: str):
        branch = bool(self.plan.branch[tilt])
        self._write("end", target=target, branch=branch, tilt=tilt, why=why)

    def _patiently(self, action: Callable[[], T]) -> T:
        """Result of an action, which is tried again while the microscope is not ready."""
        begun = self.instrument.seconds()
        while True:
            try:
                return action()
            except NotReady as obstacle:
                if self.instrument.seconds() - begun > self.rules.patience:
                    raise MicroscopeError(f"{obstacle}; {RESUMABLE}") from None
                self._write("waiting", why=str(obstacle))
                self.instrument.wait(RETRY)

    def _write(self, event: str, **values: Any):
        time = self.instrument.seconds()
        self.state.apply([self.journal.write(event, time=time, **values)])
        self.listener(self, event)


def _agree(first, second) -> bool:
    """True if the shifts that two events have in common are within their errors."""
    others = {row[0]: row for row in second if row[4] is not None}
    for row in first:
        other = others.get(row[0])
        if row[4] is None or other is None:
            continue
        apart = np.hypot(row[1] - other[1], row[2] - other[2])
        if apart > AGREEMENT * np.hypot(row[4], other[4]):
            return False
    return bool(others)
