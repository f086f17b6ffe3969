"""Design of an experiment: sampling, overlap, dose, and attainable resolution."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from ..physics.grids import Grid

LEAST_STEP = 1e-6  # Å, smallest step between distinct positions
MIN_OVERLAP = 0.6  # Bunk et al., Ultramicroscopy 108, 481 (2008)


class Design(NamedTuple):
    """Quantities derived from the optics and the scan; Å, radians and quanta."""

    information_limit: float  # 1/Å, of the bright field: 2α/λ
    detector_limit: float  # 1/Å, half the width of the pattern
    depth_of_field: float  # Å, λ/α²
    probe_radius: float  # Å, on the specimen
    window: float  # Å, the shorter side of the probe's window, 1/dk
    sampling: float  # the window over the probe's diameter
    overlap: float  # linear, of neighbouring positions: 1 − s/2r
    oversampling: float  # areal: πr²/s²
    magnification: (
        float  # pixels of the detector per Å of the specimen in the Ronchigram; infinite in focus
    )
    tilt_step: float  # rad, largest without a gap between neighbouring cones at the resolution
    dose: float | None  # quanta/Å²
    warnings: tuple[str, ...]

    def summary(self) -> dict[str, str]:
        """Names and values of a table, the dose only if it is known."""
        rows = [
            ("information limit 2α/λ", f"{1 / self.information_limit:.3g} Å"),
            ("limit of the detector", f"{1 / self.detector_limit:.3g} Å"),
            ("depth of field λ/α²", f"{self.depth_of_field:.3g} Å"),
            ("probe radius on the specimen r", f"{self.probe_radius:.3g} Å"),
            ("window 1/dk", f"{self.window:.3g} Å"),
            ("window over the probe's diameter", f"{self.sampling:.3g}"),
            ("linear overlap 1 − s/2r", f"{100 * self.overlap:.3g} %"),
            ("areal oversampling πr²/s²", f"{self.oversampling:.3g}"),
            ("Ronchigram magnification", f"{self.magnification:.3g} pixels/Å"),
            ("largest tilt step 2(α + λk/2)", f"{math.degrees(self.tilt_step):.3g}°"),
        ]
        return dict(rows) | ({} if self.dose is None else {"dose": f"{self.dose:.4g} quanta/Å²"})


def design(
    grid: Grid,
    semiangle: float,
    defocus: float,
    step: float | tuple[float, float],
    quanta: float | None = None,
    thickness: float | None = None,
    resolution: float | None = None,
) -> Design:
    """Design of an experiment with a probe of `semiangle` [rad] and `defocus` [Å].

    `step` [Å] of the scan is one number or (y, x), `quanta` those of a pattern, `thickness` [Å]
    that of the specimen; the tilt step is for `resolution` [Å], by default the information limit.
    The probe's radius combines the cone of rays and the Airy disc, r² = (Δf tan α)² +
    (0.61 λ/α)². Areal oversampling and Ronchigram magnification 1/(|Δf| λ dk) as in Gilgenbach,
    Chen & LeBeau, Microsc. Microanal. 30, 703 (2024).
    """
    steps = np.broadcast_to(np.asarray(step, float), 2)
    given = {"semiangle": semiangle, "step": steps.min(), "quanta": quanta, "thickness": thickness}
    for name, value in (given | {"resolution": resolution}).items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} = {value}; an experiment requires more than 0")
    if not semiangle < math.pi / 2 or not math.isfinite(defocus):
        raise ValueError(
            f"semiangle {semiangle} rad and defocus {defocus} Å; give less than π/2 and a finite "
            "number"
        )
    wavelength = grid.wavelength
    dk = max(grid.dk)
    radius = defocused_radius(wavelength, semiangle, defocus)
    limit = 2 * semiangle / wavelength
    k = limit if resolution is None else 1 / resolution
    found = Design(
        information_limit=limit,
        detector_limit=0.5 / max(grid.pixel),
        depth_of_field=wavelength / semiangle**2,
        probe_radius=radius,
        window=1 / dk,
        sampling=1 / (2 * radius * dk),
        overlap=1 - float(steps.max()) / (2 * radius),
        oversampling=math.pi * radius**2 / float(steps.prod()),
        magnification=1 / (abs(defocus) * wavelength * dk) if defocus else math.inf,
        tilt_step=tilt_step(semiangle, wavelength, 1 / k),
        dose=None if quanta is None else quanta / float(steps.prod()),
        warnings=(),
    )
    return found._replace(warnings=tuple(_warnings(found, thickness)))


def defocused_radius(wavelength: float, semiangle: float, defocus: float) -> float:
    """Radius √((Δf tan α)² + (0.61 λ/α)²) [Å] of the cone of rays and the Airy disc combined."""
    return math.hypot(defocus * math.tan(semiangle), 0.61 * wavelength / semiangle)


def area_per_shot(positions: Float[np.ndarray, "shot 2"]) -> float:
    """Area [Å²] of the specimen per position: the square of the median nearest distance."""
    count = min(2, len(positions))
    distances = KDTree(positions).query(positions, k=count)[0].reshape(len(positions), -1)[:, -1]
    return max(float(np.median(distances)), LEAST_STEP) ** 2


def tilt_step(semiangle: float, wavelength: float, resolution: float) -> float:
    """Largest tilt step 2(α + λk/2) [rad] without gaps between cones at k = 1/`resolution` [Å]."""
    return 2 * (semiangle + wavelength / (2 * resolution))


def _warnings(design: Design, thickness: float | None):
    if design.sampling < 1:
        yield (
            f"the probe is {2 * design.probe_radius:.3g} Å wide and its window "
            f"{design.window:.3g} Å; reduce the defocus or the semiangle, or use a longer camera "
            "length"
        )
    if design.overlap < MIN_OVERLAP:
        yield (
            f"neighbouring positions overlap by {100 * design.overlap:.3g} %, less than "
            f"{100 * MIN_OVERLAP:g} %; use smaller steps or more defocus"
        )
    if 2 * design.detector_limit < design.information_limit:
        yield (
            f"the detector ends at {design.detector_limit:.3g} 1/Å, inside the bright field's "
            f"disc of {design.information_limit / 2:.3g} 1/Å; use a shorter camera length"
        )
    if thickness is not None and thickness > design.depth_of_field:
        yield (
            f"the specimen of {thickness:.3g} Å is thicker than the depth of field of "
            f"{design.depth_of_field:.3g} Å; reconstruct it with several slices"
        )
