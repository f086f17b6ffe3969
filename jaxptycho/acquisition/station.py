"""Microscope in the frame of the specimen, with its scans on disk: the instrument of a schedule."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ..io.atomic_write import atomic_path
from .geometry import STEM
from .instrument import TargetScan
from .microscopes.microscope import Displacement, MicroscopeControl, Recording, Refused, Report
from .plan import OVERSHOOT, from_above

NUMBERS_OF_RECORDING = (
    "mean_count",
    "pixel_angstrom",
    "underfocus_error_angstrom",
    "underfocus_sigma_angstrom",
)


@runtime_checkable
class Correlator(Protocol):
    """Measure of the place of the specimen in one recording less that in another."""

    def __call__(self, scan: Recording, other: Recording) -> Displacement:
        """Displacement in (x, y) of the images [Å]."""
        ...


@dataclass(frozen=True)
class SpecimenFrame:
    """Commands of a microscope from the frame of the specimen (x along the tilt axis, y across).

    `shift_matrix` takes a place on the specimen to the image shift that centres it, `image_matrix`
    a displacement in images to one of the specimen. `focus_sign` is `STEM` or `TEM`.
    """

    shift_matrix: Float[np.ndarray, "2 2"] = field(default_factory=lambda: np.eye(2))
    image_matrix: Float[np.ndarray, "2 2"] = field(default_factory=lambda: np.eye(2))
    focus_sign: int = STEM


class Station:
    """Microscope whose scans are stored in a folder; an `Instrument`."""

    def __init__(
        self,
        microscope: MicroscopeControl,
        frames: SpecimenFrame,
        folder: Path,
        correlate: Correlator,
    ):
        self.microscope = microscope
        self.frames = frames
        self.folder = folder
        self.correlate = correlate
        folder.mkdir(parents=True, exist_ok=True)
        self._recordings: dict[str, Recording] = {}

    def seconds(self) -> float:
        """Time of the clock of the microscope [s]."""
        return self.microscope.report().time_s

    def wait(self, seconds: float) -> None:
        """Wait."""
        self.microscope.wait(seconds)

    def angle(self) -> float:
        """Angle that is read back [rad]."""
        return self.microscope.report().angle_rad

    def tilt(self, angle: float) -> float:
        """Tilt, always from below, where backlash is the same; the angle that is read back."""
        if from_above(self.angle(), angle):
            self._below(angle)
        self.microscope.tilt(angle)
        return self.angle()

    def aim(self, shift: tuple[float, float], focus: float) -> None:
        """Set image shift and change of underfocus from those of the specimen [Å]."""
        x, y = map(float, self.frames.shift_matrix @ np.array(shift))
        self.microscope.shift(x, y)
        self.microscope.focus(focus)

    def exposures(self) -> int:
        """Number of scans with full dose."""
        return self.microscope.report().recorded

    def record(self, name: str) -> TargetScan:
        """Scan with full dose, and store it."""
        return self._store(name, self.microscope.scan("record"))

    def look(self, name: str) -> TargetScan:
        """Scan a wider field with little dose, and store it."""
        return self._store(name, self.microscope.scan("track"))

    def load(self, name: str) -> TargetScan | None:
        """Stored scan of a name, or None."""
        path = self._path(name)
        if name not in self._recordings and not path.exists():
            return None
        return self._scan(name, self._recording(name))

    def displacement(self, scan: TargetScan, other: TargetScan) -> Displacement:
        """Displacement on the specimen between two scans [Å]."""
        apart = self.correlate(self._recording(scan.name), self._recording(other.name))
        x, y = map(float, self.frames.image_matrix @ np.array(apart.value))
        return Displacement((x, y), apart.sigma)

    def blank(self) -> None:
        """Blank the beam."""
        self.microscope.blank()

    def _below(self, angle):
        try:
            self.microscope.tilt(angle - OVERSHOOT)
        except Refused:  # at the end of the range there is no room for it
            return

    def _store(self, name: str, recording: Recording) -> TargetScan:
        numbers = asdict(recording.report) | {
            key: getattr(recording, key) for key in NUMBERS_OF_RECORDING
        }
        with atomic_path(self._path(name), overwrite=True) as draft, draft.open("wb") as file:
            np.savez(file, image=recording.image, numbers=json.dumps(numbers))
        self._recordings[name] = recording
        return self._scan(name, recording)

    def _recording(self, name: str) -> Recording:
        if name not in self._recordings:
            with np.load(self._path(name), allow_pickle=False) as stored:
                numbers = json.loads(str(stored["numbers"]))
                image = stored["image"]
            rest = {key: numbers.pop(key) for key in NUMBERS_OF_RECORDING}
            pairs: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in numbers.items()
            }
            self._recordings[name] = Recording(Report(**pairs), image=image, **rest)
        return self._recordings[name]

    def _path(self, name):
        return self.folder / f"{name}.npz"

    def _scan(self, name: str, recording: Recording) -> TargetScan:
        report = recording.report
        x, y = map(
            float, np.linalg.solve(self.frames.shift_matrix, np.array(report.shift_angstrom))
        )
        return TargetScan(
            name,
            report.angle_rad,
            (x, y),
            report.underfocus_angstrom,
            recording.mean_count,
            recording.underfocus_error_angstrom,
            recording.underfocus_sigma_angstrom,
            recording.image,
            recording.pixel_angstrom,
        )
