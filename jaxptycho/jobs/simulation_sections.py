"""Sections of a simulation: atoms, microscope, scan, camera, tilt series, sampling."""

from typing import Any

from pydantic import model_validator

from ..physics.potentials import PROJECTIONS
from ..physics.scattering import TABLES
from ..simulate.phantoms import PHANTOMS
from .schema import Aberrations, Pair, Section, Semiangle, key, one_of

Zone = list[int]


class AtomSource(Section):
    """Atoms: a phantom, or a file."""

    phantom: one_of(PHANTOMS, "phantom") | None = key(
        f"one of {', '.join(PHANTOMS)}", None, "strontium_titanate"
    )
    options: dict[str, Any] = key("options of the phantom, such as width, thickness, seed", {})
    file: str | None = key(
        "xyz, cif or POSCAR instead, relative to this job; z along the beam",
        None,
        "cell.cif",
        role="input",
    )
    width_angstrom: float | None = key("cut a periodic cell to this width …", None, 40.0, gt=0)
    thickness_angstrom: float | None = key("… and thickness", None, 200.0, gt=0)
    zone_axis: Zone | None = key(
        "… along this direction", None, [0, 0, 1], min_length=3, max_length=3
    )
    support_angstrom: float | None = key(
        "amorphous carbon of this thickness behind it", None, 20.0, gt=0
    )
    vibration_angstrom: float | dict[str, float] = key(
        "rms displacement in each direction, one number or one for each element", 0.0
    )
    parametrisation: one_of(TABLES, "parametrisation") = key(
        f"scattering factors: {', '.join(TABLES)}", "lobato"
    )
    projection: one_of(PROJECTIONS, "projection") = key(
        f"into slices: {', '.join(PROJECTIONS)}", "finite"
    )

    @model_validator(mode="after")
    def _one_source(self):
        if (self.phantom is None) == (self.file is None):
            raise ValueError(
                "the specimen requires either a phantom or a file, and exactly one of them"
            )
        return self


class Lens(Section):
    """The microscope before the specimen."""

    voltage_kv: float = key("acceleration voltage", gt=0.1, le=5000)
    semiangle_mrad: Semiangle = key("convergence semiangle")
    defocus_angstrom: float = key(
        "defocus where the box begins, > 0 is underfocus; the file of a series gives it at the "
        "axis",
        0.0,
    )
    aberrations_angstrom: Aberrations = key("further aberrations by name: C12a, C12b, C30 …", {})
    source_fwhm_angstrom: float = key("size of the source's image on the specimen", 0.0, ge=0)
    chromatic_mm: float = key("coefficient of chromatic aberration", 0.0, ge=0)
    energy_fwhm_ev: float = key("energy width of the beam", 0.0, ge=0)


class Raster(Section):
    """Positions of the probe, dose, and their errors."""

    shape: list[int] = key("points (y, x)", [32, 32], min_length=2, max_length=2)
    step_angstrom: float = key("between points", gt=0)
    dose_per_square_angstrom: float = key("electrons of each view", gt=0)
    rotation_deg: float = key("rotation of the raster", 0.0)
    jitter_angstrom: float = key("rms error of every position", 0.0, ge=0)
    drift_angstrom: Pair = key("(y, x) from the first to the last position", [0.0, 0.0])
    shear: float = key("x moves by this times y", 0.0)
    scale: Pair = key("true over nominal step (y, x)", [1.0, 1.0])
    descan_mrad: Pair = key(
        "by which the pattern moves from side to side of the scan (y, x)", [0.0, 0.0]
    )


class Screen(Section):
    """The camera; it counts electrons unless it has a gain."""

    pixels: int = key("width and height of the detector, in pixels", 128, ge=4)
    pixel_angstrom: float = key("pixel of the object: the camera reaches to λ/2 over this", gt=0)
    mtf_file: str | None = key(
        "text file: transfer function from zero to Nyquist in its last column",
        None,
        "mtf.txt",
        role="input",
    )
    gain: float | None = key("counts of one electron, Poisson distributed", None, 4.5, gt=0)
    spread_pixels: float = key("Gaussian over which they spread, sigma", 0.0, ge=0)
    flatfield: float = key("rms error of the gain from pixel to pixel", 0.0, ge=0)
    readout: float = key("rms counts of noise in every pixel", 0.0, ge=0)
    noise: bool = key("false: the expected counts", True)


class TiltErrors(Section):
    """Views of the specimen rotated about the y axis through its origin."""

    tilts_deg: list[float] | None = key(
        "nominal tilt of every view", None, [-30.0, 0.0, 30.0], min_length=1
    )
    angle_error_deg: float = key("rms error of each of three angles", 0.0, ge=0)
    shift_angstrom: float = key("the greatest shift of a view in y and in x", 0.0, ge=0)
    defocus_error_angstrom: float = key("rms error of the defocus", 0.0, ge=0)


class Fineness(Section):
    """Sampling of the simulation."""

    pixel_angstrom: float = key("largest pixel of the wave", 0.1, gt=0)
    slice_angstrom: float = key("thickness of a slice", 1.0, gt=0)
    finer: int = key(
        "samples for each detector pixel and direction; the window grows likewise", 1, ge=1
    )
    configurations: int = key(
        "number of configurations of vibrations, source and energy that are averaged", 1, ge=1
    )


class Simulation(Section):
    """Simulate a measurement from atoms to counts, with everything true of it under /truth."""

    specimen: AtomSource
    microscope: Lens
    scan: Raster
    detector: Screen
    tilt_series: TiltErrors = TiltErrors()
    sampling: Fineness = Fineness()
    file: str | None = key(
        "native file, never overwritten; default: data.h5 in the folder of the step",
        None,
        "scan.h5",
        role="output",
    )
    slab_angstrom: float = key("thickness of the slabs of the true potential", 4.0, gt=0)
    seed: int = key("random seed", 0, ge=0)
