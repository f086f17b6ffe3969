"""Calibration of a measurement from its patterns: camera, optics, orientation and the picture."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import viewing
from ..data import Dataset
from ..direct.transfer import Optics
from ..physics.types import Pair
from .camera import MeasuredCamera, measure_camera
from .conjugate_pair import settled
from .hologram import MeasuredHologram, measure_hologram, require_hologram
from .mass_contrast import mass_contrast
from .measured import Measured
from .optics import measure_optics
from .optics_table import MeasuredOptics
from .pictures import DirectPictures, direct_pictures
from .positions import with_map
from .scan_checks import require_scanned_area, require_variation

NEAR_FIELD = (
    "the patterns have no bright-field disc and move with the scan: in-line holograms of a near "
    "field"
)
NOTHING_MEASURED = (
    "neither optics nor orientation are measured, those of the file are used: the patterns do not "
    "move with the scan as in-line holograms do either"
)
SAME_SEMIANGLE = 0.2  # relative difference of a given semiangle and the measured one
SAME_DEFOCUS = 0.15  # relative difference of a stated defocus and the measured one


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """Camera, optics and orientation of a scan, each value ± error ← source.

    Patterns with a bright-field disc have `optics` and `pictures`, in-line holograms a `hologram`;
    others, of a file that brings a probe, neither.
    """

    data: Dataset
    camera: MeasuredCamera
    optics: MeasuredOptics | None
    hologram: MeasuredHologram | None = None
    pictures: DirectPictures | None = None  # of a scan with optics, in the detector's frame
    contrast: Measured | None = None  # of mass in the dark field, which has the sign of the phase

    @property
    def orientation(self) -> MeasuredOptics | MeasuredHologram | None:
        """What determined the orientation of the scan."""
        return self.hologram if self.optics is None else self.optics

    def rows(self) -> dict[str, Measured]:
        """Measured quantities by names that end in their unit."""
        of_scan = {} if self.orientation is None else self.orientation.rows()
        sign = {} if self.contrast is None else {"mass_contrast": self.contrast}
        return self.camera.rows() | of_scan | sign

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the data contradict, or do not determine."""
        if self.hologram is not None:
            return (NEAR_FIELD, *self.hologram.warnings)
        if self.optics is None:
            return (*self.camera.warnings, NOTHING_MEASURED)
        of_optics = self.optics.warnings
        caution = None if self.pictures is None else self.pictures.caution
        found = *self.camera.warnings, *of_optics, *_contradictions(self), caution
        return tuple(text for text in found if text)

    @property
    def semiangle(self) -> float:
        """Semiangle [rad] of the disc, by the step of the detector."""
        return 1e-3 * self.camera.rows()["semiangle_mrad"].value

    @property
    def centre(self) -> Pair:
        """Centre (y, x) [rad] of the bright-field disc, from the middle of the camera."""
        assert self.camera.disc is not None
        steps = np.multiply(self.data.grid.dk, self.data.grid.wavelength)
        y, x = np.multiply(self.camera.disc.centre, steps).tolist()
        return y, x

    def lens(self) -> Optics:
        """Aperture and measured aberrations."""
        assert self.optics is not None
        grid = self.data.grid
        return Optics.of(
            1e3 * self.semiangle, grid.wavelength, max(grid.dk), **self.optics.aberrations
        )

    def aligned(self) -> Dataset:
        """The measurement with its positions in the frame of the detector."""
        return (
            self.data if self.orientation is None else with_map(self.data, self.orientation.matrix)
        )

    def show(self) -> Any:
        """Figure of patterns, pictures, and the evidence for optics and orientation."""
        return viewing.figures().calibration(self)

    def __repr__(self) -> str:
        return viewing.text_of(self, "look")

    def _repr_html_(self) -> str:
        return viewing.html_table(self, "look")


def calibrate(
    data: Dataset, defocus_sign: int | None = None, semiangle_mrad: float | None = None
) -> Calibration:
    """Measure camera, optics and orientation of a scan from its patterns and positions.

    The steps of scan and detector are those of `data`; nothing else needs to be known. The sign of
    the defocus (1 is underfocus), by default that of the file, settles what a weak phase cannot: a
    rotation by 180° with the opposite defocus. Raises ValueError in one sentence for data that
    cannot be calibrated, and for a `semiangle_mrad` that is not that of the disc.
    """
    require_scanned_area(data)
    require_variation(data)
    camera = measure_camera(data)
    if camera.disc is None:
        hologram = measure_hologram(data) if has_probe(data) else require_hologram(data)
        return Calibration(data, camera, None, hologram)
    _require_semiangle(camera, max(data.grid.dk), semiangle_mrad)
    stated = data.about.get("defocus_angstrom")
    if defocus_sign is None and stated:
        defocus_sign = 1 if stated > 0 else -1
    optics = measure_optics(data, camera=camera, defocus_sign=defocus_sign)
    look = _with_pictures(Calibration(data, camera, optics))
    pictures = look.pictures
    if defocus_sign is not None or pictures is None or pictures.atomic_field is None:
        return look
    contrast = mass_contrast(pictures.parallax, pictures.atomic_field, look.lens())
    chosen = settled(optics, contrast)
    if chosen.aberrations == optics.aberrations:
        return replace(look, optics=chosen, contrast=contrast)
    contrast = replace(contrast, value=-contrast.value)
    return _with_pictures(replace(look, optics=chosen, contrast=contrast))


def _require_semiangle(camera: MeasuredCamera, dk: float, given: float | None) -> None:
    """Raise ValueError for a given semiangle [mrad] that is not that of the disc."""
    measured = camera.rows()["semiangle_mrad"].value
    if given is not None and abs(given / measured - 1) > SAME_SEMIANGLE:
        raise ValueError(
            f"probe.semiangle_mrad = {given:g} came, and the disc has {measured:.4g} mrad by the "
            f"detector's step of the file; leave it out, or correct the step, as with "
            f"data.dk_inverse_angstrom = {dk * given / measured:.4g}"
        )


def has_probe(data: Dataset) -> bool:
    """True if a file gives the probe, or the angle of its aperture."""
    return data.probe_guess is not None or "semiangle_mrad" in data.about


def _with_pictures(look: Calibration) -> Calibration:
    shifts = look.camera.shifts * look.data.grid.dk
    pictures = direct_pictures(look.aligned(), look.lens(), look.centre, shifts)
    return replace(look, pictures=pictures)


def _contradictions(look: Calibration) -> list[str]:
    """A defocus of the file that the patterns contradict."""
    stated = look.data.about.get("defocus_angstrom")
    measured = look.rows().get("defocus_angstrom")
    if measured is None:
        return []
    if look.optics is not None and not look.optics.determined:
        used = "" if stated is None else f"; the {stated:.5g} Å of the file are used"
        turn = look.rows()["rotation_deg"].amount
        return [
            f"the patterns do not determine defocus and rotation ({measured.amount}, {turn}): "
            f"more positions, electrons or contrast are required{used}"
        ]
    if stated is None:
        return []
    if abs(measured.value - stated) <= max(SAME_DEFOCUS * abs(stated), 3 * measured.error):
        return []
    return [
        f"the file says a defocus of {stated:.5g} Å, and {measured.amount} is measured; the "
        "measured one is used"
    ]
