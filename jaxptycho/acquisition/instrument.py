"""Requirements of a schedule on a microscope: tilt, aim, scan, and the shift between two scans."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from .microscopes.microscope import Displacement


@dataclass(frozen=True)
class TargetScan:
    """Recorded scan: where it was aimed at, its image, and what is known without another image.

    `angle` [rad], `shift` (x along the tilt axis, y) and `focus` (change of underfocus) [Å] are
    those of the exposure. `defocus_error` is the measured underfocus less the nominal one [Å],
    infinite `defocus_sigma` if it was not measured. `mean` is the mean of the counts.
    """

    name: str
    angle: float
    shift: tuple[float, float]
    focus: float
    mean: float
    defocus_error: float = 0.0
    defocus_sigma: float = float("inf")
    image: Shaped[np.ndarray, "y x"] = field(default_factory=lambda: np.zeros((0, 0)))
    pixel: float = 1.0


@runtime_checkable
class Instrument(Protocol):
    """Microscope as a schedule uses it. Errors are `MicroscopeError`."""

    def seconds(self) -> float:
        """Time of its clock [s]."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait."""
        ...

    def tilt(self, angle: float) -> float:
        """Tilt to an angle [rad] from the side of lower angles; the angle that is read back."""
        ...

    def angle(self) -> float:
        """Angle that is read back now [rad]."""
        ...

    def aim(self, shift: tuple[float, float], focus: float) -> None:
        """Set image shift (x along the tilt axis, y) and change of underfocus [Å]."""
        ...

    def exposures(self) -> int:
        """Number of scans `record` has made in this session, also those that were not returned."""
        ...

    def record(self, name: str) -> TargetScan:
        """Scan a target where the beam is aimed at, and store the scan under a name."""
        ...

    def look(self, name: str) -> TargetScan:
        """Scan a wider field with little dose, where the beam is aimed at, and store it."""
        ...

    def load(self, name: str) -> TargetScan | None:
        """Stored scan of a name, or None."""
        ...

    def displacement(self, scan: TargetScan, other: TargetScan) -> Displacement:
        """Place of the target in the image of `scan` less that in the image of `other`.

        Both relative to the place that the scan was aimed at.
        """
        ...

    def blank(self) -> None:
        """Blank the beam; works after every error."""
        ...
