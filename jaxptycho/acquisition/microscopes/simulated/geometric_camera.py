"""Fast camera: no images, but the shift between any two, with the errors of a correlation."""

from dataclasses import dataclass

import numpy as np

from ..microscope import Displacement, Recording, Report, ScanKind
from .view import ExposureView

NOTHING_IN_COMMON = Displacement((0.0, 0.0), float("inf"))
LOSS_ANGLE = np.deg2rad(6.0)


@dataclass(frozen=True)
class GeometricRecording(Recording):
    """Recording that has the view itself instead of an image, and the width of its field [Å]."""

    view: ExposureView | None = None
    field_angstrom: float = 0.0


@dataclass(frozen=True)
class GeometricCamera:
    """Errors [Å]: `sigma` of a shift between images of one tilt, more between tilts Δθ apart,

    σ √(1 + (Δθ/6°)²); `defocus` of a measured underfocus; `mislocks` the fraction of shifts that
    are off by `period`, in one of six directions. `fields` of scans that record and that track.
    """

    sigma: float = 20.0
    defocus: float = 100.0
    mislocks: float = 0.0
    period: float = 1000.0
    record_field: float = 1000.0
    track_field: float = 50_000.0

    def record(
        self, kind: ScanKind, view: ExposureView, report: Report, rng: np.random.Generator
    ) -> Recording:
        """Recording of a view; dark ones have a mean count of 0."""
        return GeometricRecording(
            report,
            mean_count=0.0 if view.dark else 100.0,
            underfocus_error_angstrom=view.underfocus_error + rng.normal(0, self.defocus),
            underfocus_sigma_angstrom=np.inf if view.dark else self.defocus,
            view=view,
            field_angstrom=self.record_field if kind == "record" else self.track_field,
        )

    def displacement(
        self, scan: Recording, other: Recording, rng: np.random.Generator
    ) -> Displacement:
        """Shift in (x, y) of the image, of what is in the middle of the other image."""
        assert isinstance(scan, GeometricRecording)
        assert isinstance(other, GeometricRecording)
        here = scan.view
        there = other.view
        assert here is not None
        assert there is not None
        shift = here.in_image(there.point) - there.in_image(there.point)
        reach = (scan.field_angstrom + other.field_angstrom) / 2
        if here.dark or there.dark or np.max(np.abs(shift)) > reach:
            return NOTHING_IN_COMMON
        apart = (here.pose.angle - there.pose.angle) / LOSS_ANGLE
        sigma = self.sigma * np.sqrt(1 + apart**2)
        shift = shift + rng.normal(0, sigma, 2)
        if rng.random() < self.mislocks:
            angle = rng.integers(6) * np.pi / 3
            shift = shift + self.period * np.array([np.cos(angle), np.sin(angle)])
        return Displacement((float(shift[0]), float(shift[1])), float(sigma))
