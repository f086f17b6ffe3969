"""State of a series at the microscope, as its journal tells it.

An acquisition changes its state by events alone, after they are in the journal. A resumed one
applies the same events, and is therefore in the same state, its belief included.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import equinox as eqx
import numpy as np

from .belief import HUBER, LOSS, Belief, TargetMeasurement
from .geometry import Exposures
from .journal import Event
from .plan import Forecast, Plan
from .precision import in_double_precision
from .priors import GeometryPrior

JUMP = 20_000.0  # Å; standard deviation of the stage after a jump that was confirmed


@dataclass
class SeriesState:
    """What was done, and what is believed."""

    plan: Plan
    belief: Belief
    exposures: Exposures
    forecast: Forecast
    tilt: int = -1
    tracked: int = -1  # last tilt whose tracking is over
    tilted_at: float = 0.0  # s of the clock
    intent: Event | None = None
    scans: dict[tuple[int, int], str] = field(default_factory=dict)  # (target, tilt): name
    looks: dict[int, str] = field(default_factory=dict)  # of the tracked target, by tilt
    shifts: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    settled: set[tuple[int, int]] = field(default_factory=set)  # exposed or skipped
    ended: dict[tuple[int, bool], str] = field(default_factory=dict)  # (target, branch): why
    brightness: dict[int, float] = field(default_factory=dict)  # of the first scan of a target
    finished: bool = False

    @classmethod
    def of(cls, plan: Plan, prior: GeometryPrior) -> "SeriesState":
        """State before the first event."""
        exposures = plan.exposures()
        places = np.column_stack([plan.targets, np.zeros(len(plan.targets))])
        return cls(plan, prior.belief(places, exposures), exposures, Forecast.of(plan))

    def apply(self, events: Iterable[Event]) -> None:
        """Follow events of the journal."""
        for event in events:
            getattr(self, f"_{event['event']}", _nothing)(event)

    def pending(self, tilt: int) -> list[int]:
        """Targets to be exposed at a tilt, in their order."""
        branch = bool(self.plan.branch[tilt])
        return [
            i
            for i in self.plan.order
            if (i, tilt) not in self.settled and (i, branch) not in self.ended
        ]

    def remaining(self) -> tuple[list[int], int]:
        """Tilts that are not over, and the number of exposures in them."""
        tilts = range(max(self.tilt, 0), len(self.plan.angles))
        counts = {k: len(self.pending(k)) for k in tilts}
        return [k for k, count in counts.items() if count], sum(counts.values())

    def seconds_left(self) -> float:
        """Forecast of the time until the end [s]."""
        tilts, exposures = self.remaining()
        here = self.plan.angles[self.tilt] if self.tilt >= 0 else self.plan.angles[0]
        ahead = [k for k in tilts if k > self.tilt]
        tracked = len(ahead) + (self.tracked < self.tilt)
        angles = self.plan.angles[ahead]
        return self.forecast.remaining(float(here), angles, tracked, exposures)

    def trial(self, event: Event) -> tuple[Belief, bool]:
        """Belief after the rows of an event, and whether one of them is lost."""
        belief = self.belief
        confirmed = bool(event.get("confirmed"))
        if confirmed:
            belief = belief.widen(event["tilt"], JUMP)
        loss = np.inf if confirmed else LOSS
        huber = np.inf if confirmed or event["event"] == "track" else HUBER
        lost = False
        for row in event["rows"]:
            measurement = _measurement(event["target"], event["tilt"], row)
            belief, innovation = belief.observe(self.exposures, measurement, loss, huber)
            lost = lost or bool(innovation.lost)
        return belief, lost

    # one method an event

    def _tilt(self, event: Event) -> None:
        tilt = event["tilt"]
        if tilt == self.tilt:  # the stage has been elsewhere, and is not where it was
            self.belief = self.belief.widen(tilt, JUMP)
        seconds = event["time"] - event["begun"]
        tilts = self.forecast.tilts.add(seconds, event["moves"], event["way"])
        self.forecast = replace(self.forecast, tilts=tilts)
        self.tilted_at = event["time"]
        self.tilt = tilt
        self.exposures = _with_reading(self.exposures, tilt, event["reading"])

    def _track(self, event: Event) -> None:
        self.looks[event["tilt"]] = event["name"]
        self.belief, _ = self.trial(event)

    def _tracked(self, event: Event) -> None:
        tracking = self.forecast.tracking.add(event["seconds"])
        self.forecast = replace(self.forecast, tracking=tracking)
        self.tracked = event["tilt"]

    def _expose(self, event: Event) -> None:
        self.intent = event
        after = event["time"] - self.tilted_at
        self.exposures = _with_delay(self.exposures, event["target"], event["tilt"], after)

    def _cancel(self, event: Event) -> None:
        self.intent = None

    def _exposed(self, event: Event) -> None:
        key = event["target"], event["tilt"]
        self.intent = None
        self.scans[key] = event["name"]
        self.shifts[key] = event["shift"]
        self.settled.add(key)
        self.brightness.setdefault(event["target"], event["mean"])
        exposures = self.forecast.exposures.add(event["seconds"])
        self.forecast = replace(self.forecast, exposures=exposures)
        self.belief, _ = self.trial(event)

    def _skip(self, event: Event) -> None:
        self.intent = None
        self.settled.add((event["target"], event["tilt"]))

    def _end(self, event: Event) -> None:
        self.intent = None
        self.ended[event["target"], event["branch"]] = event["why"]

    def _finish(self, event: Event) -> None:
        self.finished = True


def _measurement(target, tilt, row):
    reference, *numbers = row
    sigma = [np.inf if s is None else s for s in numbers[3:]]
    return TargetMeasurement.of(target, tilt, reference, numbers[:3], sigma)


def _nothing(event: Event) -> None:
    """Events that tell the user something and change nothing."""


@in_double_precision
def _with_reading(exposures, tilt, reading):
    return eqx.tree_at(lambda e: e.angle, exposures, exposures.angle.at[tilt].set(reading))


@in_double_precision
def _with_delay(exposures, target, tilt, delay):
    changed = exposures.delay.at[target, tilt].set(delay)
    return eqx.tree_at(lambda e: e.delay, exposures, changed)
