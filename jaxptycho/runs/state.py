"""State of a run: what its steps hand on, and the progress within one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..model import Model
from .course import Course


class Row(NamedTuple):
    """One line of the history; losses are means over shots [quanta per shot]."""

    epoch: int  # from 1, over all steps
    step: str
    loss: float
    held_out: float | None
    seconds: float


def columns_of(history: Sequence[Row]) -> dict[str, list[Any]]:
    """Columns of a history by name, without a held-out loss NaN."""
    columns = {name: [getattr(row, name) for row in history] for name in Row._fields}
    missing = float("nan")
    return columns | {"held_out": [missing if v is None else v for v in columns["held_out"]]}


@dataclass(frozen=True)
class State:
    """State that is passed from step to step."""

    model: Model | None = None  # None before the first step that makes one
    views: dict[int, Model] = field(default_factory=dict)  # of a tilt series, each separately
    left_out: tuple[int, ...] = ()  # views that are not used
    history: tuple[Row, ...] = ()
    measurement: Path | None = None  # written by a step
    found: dict[str, Any] = field(
        default_factory=dict
    )  # keys of the job, by path, of a calibration


@dataclass
class Progress:
    """Progress within a step of epochs: all that it needs to continue as if never interrupted."""

    model: Model
    state: Any = None  # of the optimiser; None before the first epoch
    epoch: int = 0  # of the step
    losses: list[tuple[float, float]] = field(default_factory=list)  # loss and shots of batches
    home: list[np.ndarray] = field(default_factory=list)  # slab of every shot in this epoch
    seconds: float = 0.0  # spent on this epoch
    history: list[Row] = field(default_factory=list)
    begun: Model | None = None  # at the start of the step, where a constraint refers to it
    course: Course | None = None  # of the rates; None before the first epoch
    best: Any = None  # `snapshot` of the model of the least held-out loss, None if it is `model`


class Stopped(Exception):
    """A step was asked to stop; `state` is what it has reached."""

    def __init__(self, reason: str, state: State):
        super().__init__(reason)
        self.reason = reason
        self.state = state


class Diverged(ValueError):
    """The loss is no longer a number; `state` is the last good one."""

    def __init__(self, message: str, state: State | None = None):
        super().__init__(message)
        self.state = state
