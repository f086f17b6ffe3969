"""Protocol of a microscope that acquires tilt series: tilt, shift, focus, scan, report.

Commands are in the axes and signs of the microscope, which differ from maker to maker and between
TEM and STEM; `calibrate` finds what they do to the specimen. Units are in the names. Errors are
`MicroscopeError`, each one sentence for the user.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

ScanKind = Literal["record", "track"]


class MicroscopeError(ValueError):
    """The microscope cannot go on. The series can be resumed once it can."""


class NotReady(MicroscopeError):
    """A state that passes, so that the same command may succeed later."""


class ValveClosed(NotReady):
    """The valve of column or gun is closed: no beam."""


class DewarFilling(NotReady):
    """A dewar is being filled; the stage shakes."""


class Refused(MicroscopeError):
    """A movement that the microscope does not make; nothing has changed, others may be made."""


class StageRefused(Refused):
    """The stage does not go there."""


class ShiftLimit(Refused):
    """The image shift is beyond what the deflectors can do."""


class ConnectionLost(MicroscopeError):
    """The microscope does not answer; the last command may have been carried out or not."""


@dataclass(frozen=True)
class Report:
    """State of a microscope: what it reads back, in its own axes and signs.

    `angle_rad` of the stage, its place `stage_angstrom` (x, y, z), image shift and change of
    underfocus as set, `shift_limit_angstrom` of the length of an image shift, time of its clock,
    and number of scans of kind "record" made so far, also of those that were not returned.
    """

    time_s: float
    angle_rad: float
    stage_angstrom: tuple[float, float, float]
    shift_angstrom: tuple[float, float]
    underfocus_angstrom: float
    shift_limit_angstrom: float
    recorded: int


@dataclass(frozen=True)
class Recording:
    """Scan that was made: its image, and the state of the microscope when it was made.

    `image` is a direct phase, or whatever contrast the specimen has, in the axes of the scan; it
    may be empty where the shift between scans comes from elsewhere. `mean_count` per pattern tells
    a dark image. `underfocus_error_angstrom` is measured less nominal underfocus (parallax), with
    an infinite `underfocus_sigma_angstrom` if it was not measured.
    """

    report: Report
    mean_count: float
    image: Float[np.ndarray, "y x"] = field(default_factory=lambda: np.zeros((0, 0)))
    pixel_angstrom: float = 1.0
    underfocus_error_angstrom: float = 0.0
    underfocus_sigma_angstrom: float = float("inf")


@dataclass(frozen=True)
class Displacement:
    """Place of the specimen in one image less that in another, (x, y) of the image [Å].

    `sigma` of either number is infinite where the images have nothing in common.
    """

    value: tuple[float, float]
    sigma: float


@runtime_checkable
class MicroscopeControl(Protocol):
    """Microscope that acquires tilt series."""

    def tilt(self, angle_rad: float) -> None:
        """Tilt the stage to an angle and wait until it has arrived."""
        ...

    def move(self, x_angstrom: float, y_angstrom: float, z_angstrom: float) -> None:
        """Move the stage by a distance and wait until it has arrived."""
        ...

    def shift(self, x_angstrom: float, y_angstrom: float) -> None:
        """Set the image shift (absolute)."""
        ...

    def focus(self, underfocus_angstrom: float) -> None:
        """Set the change of underfocus from its nominal value (absolute)."""
        ...

    def scan(self, kind: ScanKind) -> Recording:
        """Scan where the beam is: "record" with full dose, "track" a wider field with little."""
        ...

    def report(self) -> Report:
        """Read the state; nothing moves."""
        ...

    def wait(self, seconds: float) -> None:
        """Let time of its clock pass."""
        ...

    def blank(self) -> None:
        """Blank the beam; works after every error, and repeatedly."""
        ...
