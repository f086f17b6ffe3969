"""Failures of a simulated microscope, by the time of its clock or the number of a scan."""

from dataclasses import dataclass

import numpy as np

from ..microscope import ConnectionLost, DewarFilling, StageRefused, ValveClosed

Interval = tuple[float, float]


@dataclass(frozen=True)
class MicroscopeFaults:
    """Failures that happen.

    The valve is closed and the dewar is filled within intervals of time [s]; the stage refuses
    angles within intervals [rad]; the connection is lost at recordings of these numbers, either
    before they are made or after.
    """

    valve_closed: tuple[Interval, ...] = ()
    dewar_filling: tuple[Interval, ...] = ()
    angles_refused: tuple[Interval, ...] = ()
    lost_before: frozenset[int] = frozenset()
    lost_after: frozenset[int] = frozenset()

    def check_beam(self, time: float) -> None:
        """`ValveClosed` or `DewarFilling`, if so at this time."""
        if _within(time, self.valve_closed):
            raise ValveClosed("the column valve is closed; open it")
        if _within(time, self.dewar_filling):
            raise DewarFilling("the dewar is being filled and the stage shakes; wait until it ends")

    def check_tilt(self, angle: float) -> None:
        """`StageRefused` for an angle that cannot be reached."""
        if _within(angle, self.angles_refused):
            raise StageRefused(
                f"the stage does not go to {np.rad2deg(angle):.1f}°; leave the angle out"
            )

    def check_connection(self, number: int, made: bool) -> None:
        """`ConnectionLost` at a recording, before or after it is made."""
        if number in (self.lost_after if made else self.lost_before):
            raise ConnectionLost("the microscope does not answer; connect again, then resume")


def _within(value, intervals):
    return any(low <= value <= high for low, high in intervals)
