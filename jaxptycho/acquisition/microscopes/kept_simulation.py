"""Simulated microscope that outlives the process that steers it, as a real one does."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...io.atomic_write import atomic_path
from .microscope import Displacement, Recording, Report, ScanKind
from .simulated import SimulatedMicroscope


class KeptSimulation:
    """A `Microscope` whose state, with all that it recorded, is in a file after every command.

    The file is one of this program's own: what unpickles runs code, so open none from elsewhere.
    """

    def __init__(self, path: Path, new: Callable[[], SimulatedMicroscope]):
        self.path = path
        self.recordings: dict[float, Recording] = {}  # by the time of their report
        if path.exists():
            self.simulated, self.recordings = pickle.loads(path.read_bytes())
        else:
            self.simulated = new()

    def tilt(self, angle_rad: float) -> None:
        """As of `Microscope`."""
        self._keep(self.simulated.tilt, angle_rad)

    def move(self, x_angstrom: float, y_angstrom: float, z_angstrom: float) -> None:
        """As of `Microscope`."""
        self._keep(self.simulated.move, x_angstrom, y_angstrom, z_angstrom)

    def shift(self, x_angstrom: float, y_angstrom: float) -> None:
        """As of `Microscope`."""
        self.simulated.shift(x_angstrom, y_angstrom)

    def focus(self, underfocus_angstrom: float) -> None:
        """As of `Microscope`."""
        self.simulated.focus(underfocus_angstrom)

    def wait(self, seconds: float) -> None:
        """As of `Microscope`."""
        self.simulated.wait(seconds)

    def blank(self) -> None:
        """As of `Microscope`."""
        self.simulated.blank()

    def report(self) -> Report:
        """As of `Microscope`."""
        return self.simulated.report()

    def scan(self, kind: ScanKind) -> Recording:
        """As of `Microscope`."""
        return self._keep(self._scan, kind)

    def displacement(self, scan: Recording, other: Recording) -> Displacement:
        """Place of the specimen in one recording less that in another."""
        here, there = (self.recordings[one.report.time_s] for one in (scan, other))
        return self.simulated.displacement(here, there)

    def _scan(self, kind: ScanKind) -> Recording:
        recording = self.simulated.scan(kind)
        self.recordings[recording.report.time_s] = recording
        return recording

    def _keep(self, command: Callable[..., Any], *values: Any) -> Any:
        try:
            return command(*values)
        finally:
            with atomic_path(self.path, overwrite=True) as draft:
                draft.write_bytes(pickle.dumps((self.simulated, self.recordings)))
