"""First model of a job."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data import Dataset
from ..model import Model
from ..parts.detector import (
    AbstractDetector,
    Background,
    Blurred,
    Gain,
    Masked,
    ModulationTransfer,
)
from ..parts.probe import AberratedProbe, AbstractProbe, RelaxedProbe
from ..parts.propagator import AbstractPropagator, AngularSpectrum, BandLimited, Fresnel, Tilted
from ..parts.scan import AffineScan, FreeScan
from ..parts.specimen import AbstractSpecimen
from ..physics.camera_curves import CAMERA_CURVES
from ..physics.grids import Grid
from ..physics.modes import make_modes, source_share
from ..runs.references import is_reference, resolve
from ..simulate.microscope import PER_FWHM
from ..start.affine import find_affine, pivot, place_nominal
from ..start.descan import beam_tilt, descan_rows
from ..start.guess import guess_model, model_grid, per_shot
from ..start.position_search import REACH, find_positions, largest_error
from ..start.slicing import fitting_slices
from ..start.vary import copies, varied
from .data_sections import Scan
from .measurement import vacuum_of
from .schema import build_entry
from .sections import Detector, Probe, Propagator, Setup, Specimen, slices_of
from .tilted_beam import margin_of, require_tilted_beam, tilted_beam

SOURCE_SHARE = 0.97  # of the intensity: 1 % in patterns, as measured with random phases


def of_instrument(job: Setup, data: Dataset) -> dict[str, Any]:
    """Probe and detector of a job for `data`, as keywords of `guess_model`."""
    probe = job.probe
    detector = job.detector
    return {
        "modes": probe.modes,
        "probe": probe.start,
        "vacuum": vacuum_of(job, data),
        "semiangle": None if probe.semiangle_mrad is None else 1e-3 * probe.semiangle_mrad,
        "defocus": probe.defocus_angstrom,
        "aberrations": probe.aberrations_angstrom,
        "supersample": detector.supersample,
        "extend": detector.extend,
        "descan": detector.descan,
    }


def build_model(job: Setup, data: Dataset, matrix: np.ndarray | None = None) -> Model:
    """The model that a job starts from; `matrix` is the linear map of an affine scan, by default
    the identity.
    """
    nominal = data
    if matrix is not None:  # the specimen reaches as far as the mapped positions
        data = place_nominal(data, matrix)
    probe = job.probe
    specimen = slices_of(job)
    detector = job.detector
    leans = job.propagator.tilted_beam
    if leans:
        require_tilted_beam(job, data)
    separate = is_reference(specimen.kind)
    require_options_used(specimen, "specimen")
    model = guess_model(
        data,
        slices=specimen.slices,
        thickness=specimen.thicknesses,
        specimen="phase" if separate else specimen.kind,
        start=specimen.start,
        states=specimen.states,
        periodic=specimen.periodic,
        margin=margin_of(job, data) if leans else specimen.margin_angstrom,
        near_field=near_field_distance(job, data),
        **of_instrument(job, data),
    )
    if separate:
        model = replace(model, specimen=build_specimen(specimen, model))
    model = replace(
        model,
        probe=_probe(probe, model, data, detector),
        scan=_scan(job.scan, nominal, matrix),
        propagator=_propagator(job.propagator),
        detector=_detector(detector, model),
    )
    model = varied(model, job.vary, data)
    return tilted_beam(job, model, data) if leans else model


def with_slice_count(job: Setup, data: Dataset) -> Any:
    """The job with the number of slices that a scan of a known thickness requires."""
    section = job.specimen
    if not isinstance(section, Specimen) or section.slices is not None:
        return job
    thickness = section.thickness_angstrom or data.about.get("thickness_angstrom")
    slices = fitting_slices(thickness, model_grid(data.grid, extend=job.detector.extend))
    specimen = section.model_copy(update={"slices": slices})
    return job.model_copy(update={"specimen": specimen})


def build_specimen(section: Specimen, model: Model) -> AbstractSpecimen:
    """Specimen that the job's function returns for the empty one of `model` and its grid."""
    return _made(section, "specimen", AbstractSpecimen, model.specimen, model.grid)


def _made(
    section: Specimen | Probe | Detector, name: str, required: type, guess: Any, grid: Grid
) -> Any:
    """Part that the `module:function` of a section returns for the first guess of it."""
    make = resolve(section.kind)
    try:
        part = make(guess, grid, **section.options)
    except TypeError as error:
        raise ValueError(
            f"{name}.kind = {section.kind!r} was called with the first guess of a {name}, the "
            f"grid and {name}.options, and refused: {error}"
        ) from error
    if not isinstance(part, required):
        raise ValueError(
            f"{name}.kind = {section.kind!r} returned a {type(part).__name__}; it must return a "
            f"{name} (jaxptycho.{required.__name__})"
        )
    return part


def require_options_used(section: Specimen | Probe | Detector, name: str) -> None:
    """Raise ValueError for options of a registered kind, which has separate keys."""
    if section.options and not is_reference(section.kind):
        raise ValueError(
            f"{name}.options are keywords of a module:function, and {name}.kind is "
            f"{section.kind!r}; leave them out"
        )


def with_probe(job: Setup, model: Model, data: Dataset) -> Model:
    """Model with a probe of the kind that the job specifies."""
    return replace(model, probe=_probe(job.probe, model, data, job.detector))


def with_camera(section: Detector, model: Model) -> Model:
    """Model with the detector that the job specifies."""
    return replace(model, detector=_detector(section, model))


def near_field_distance(job: Setup, data: Dataset) -> float | None:
    """Effective distance of an in-line hologram [Å], None in the far field."""
    return job.detector.effective_distance_angstrom or data.about.get("effective_distance_angstrom")


def descan_statement(job: Setup, data: Dataset) -> dict[str, str]:
    """Row of the shift of the patterns that a job models; empty without a shift."""
    near = near_field_distance(job, data) is not None
    return {} if near else descan_rows(data, job.detector.descan)


def _probe(section: Probe, model: Model, data: Dataset, camera: Detector) -> AbstractProbe:
    require_options_used(section, "probe")
    probe: Any = model.probe
    if is_reference(section.kind):
        return _made(section, "probe", AbstractProbe, probe, model.grid)
    if section.kind == "pixel":
        return probe
    if section.kind == "relaxed":
        basis = jnp.stack([make_modes(wave, section.basis) for wave in probe.waves], 1)
        return RelaxedProbe(basis, copies(jnp.zeros(section.basis).at[0].set(1.0), "shot", data))
    about = data.about
    semiangle = section.semiangle_mrad or about.get("semiangle_mrad")
    if semiangle is None:
        raise ValueError(
            "an aberrated probe requires probe.semiangle_mrad; neither the job nor the file gives "
            "it"
        )
    defocus = section.defocus_angstrom
    defocus = about.get("defocus_angstrom", 0.0) if defocus is None else defocus
    source = PER_FWHM * (section.source_angstrom or 0.0)
    tilt = beam_tilt(data, camera.descan)
    if section.modes > 1:
        _warn_of_few_modes(section.modes, source, 1e-3 * semiangle, tilt, model.grid)
    return AberratedProbe(
        1e-3 * semiangle,
        {"defocus": defocus} | section.aberrations_angstrom,
        dose=float(jnp.sum(jnp.abs(probe.waves) ** 2)),
        centre=tilt,
        source=source,
        modes=section.modes,
    )


def _warn_of_few_modes(
    modes: int, source: float, semiangle: float, tilt: np.ndarray, grid: Grid
) -> None:
    """Warn of a source that is larger than so few modes describe."""
    middle = jnp.asarray(tilt / grid.wavelength, float)
    share = float(source_share(grid, source, semiangle / grid.wavelength, middle, modes))
    if share < SOURCE_SHARE:
        warnings.warn(
            f"probe.modes = {modes} describe {100 * share:.1f} % of a beam from the source of "
            "probe.source_angstrom; give more modes (3, 6, 10 or 15 are complete orders)",
            stacklevel=2,
        )


def _scan(section: Scan, data: Dataset, matrix: np.ndarray | None):
    positions = per_shot(data)
    if section.kind == "free":
        return FreeScan(positions)
    residual = jax.tree.map(jnp.zeros_like, positions)
    matrix = np.eye(2) if matrix is None else matrix
    return AffineScan(
        positions,
        jnp.asarray(matrix, float),
        jnp.zeros(2),
        residual,
        jnp.asarray(pivot(data), float),
    )


def found_map(job: Setup, data: Dataset, say: Callable[[str], None]) -> np.ndarray:
    """Linear map of an affine scan, from the patterns (`start.affine`)."""
    free = _of_scan(job, data)
    return find_affine(data, lambda some: build_model(free, some), say, _may_be_binned(job, data))


def found_positions(job: Setup, data: Dataset, say: Callable[[str], None]) -> np.ndarray | None:
    """Positions of a scan (y, x) [Å], from the patterns (`start.position_search`).

    Where the job gives no error of those recorded it is measured, and None comes back if no other
    positions fit better.
    """
    free = _of_scan(job, data)
    probe = free.probe.model_copy(update={"modes": 1})
    free = free.model_copy(update={"probe": probe})
    given = job.scan.error_angstrom
    error = largest_error(build_model(free, data)) if given is None else given
    specimen = free.specimen.model_copy(update={"margin_angstrom": REACH * error})
    free = free.model_copy(update={"specimen": specimen})
    first = partial(build_model, free)
    return find_positions(data, first, error, say, measured=given is None)


def _of_scan(job: Setup, data: Dataset) -> Setup:
    """The job with an empty specimen and free positions, for what the patterns tell of a scan."""
    empty = {"start": "empty"}
    if data.grid.voltage_kv is not None and not is_reference(job.specimen.kind):
        empty["kind"] = "phase"  # few unknowns, and next to no electrons are absorbed
    specimen = job.specimen.model_copy(update=empty)
    return job.model_copy(update={"scan": Scan(), "specimen": specimen})


def _may_be_binned(job: Setup, data: Dataset) -> bool:
    """True if no part of the model depends on the size of the camera and its pixels."""
    camera = job.detector
    by_pixels = (camera.blur_pixels, camera.mtf_file, job.data.vacuum_file)
    made = map(is_reference, (camera.kind, job.probe.kind, job.specimen.kind))
    near = near_field_distance(job, data) is not None
    return not (near or any(made) or any(value is not None for value in by_pixels))


def _propagator(section: Propagator) -> AbstractPropagator:
    result = {"fresnel": Fresnel, "angular_spectrum": AngularSpectrum}[section.kind]()
    if section.tilt_mrad is not None:
        result = Tilted(1e-3 * jnp.asarray(section.tilt_mrad, float), result)
    return result if section.band_limit is None else BandLimited(result, section.band_limit)


def _detector(section: Detector, model: Model) -> AbstractDetector:
    """The detector with what the job adds, in the order of the light's way; the mask comes last."""
    require_options_used(section, "detector")
    detector = model.detector
    masked = isinstance(detector, Masked)
    mask, result = (detector.mask, detector.detector) if masked else (None, detector)
    if section.gain is not None:
        result = Gain(jnp.asarray(section.gain, float), result)
    if section.blur_pixels is not None:
        result = Blurred(jnp.asarray(section.blur_pixels, float), result)
    if section.mtf_file is not None:
        result = ModulationTransfer(jnp.asarray(read_mtf(section.mtf_file), float), result)
    if section.mtf is not None:
        curve = build_entry(section.mtf, CAMERA_CURVES)
        result = ModulationTransfer(jnp.asarray(curve, float), result)
    if section.background is not None:
        result = Background(jnp.asarray(section.background, float), result)
    if is_reference(section.kind):
        result = _made(section, "detector", AbstractDetector, result, model.grid)
    return result if mask is None else Masked(mask, result)


def read_mtf(file: str) -> tuple[float, ...]:
    """The transfer function in the last column of a text file, from zero to Nyquist."""
    if not Path(file).is_file():
        raise ValueError(
            f"detector.mtf_file = {file}: there is no such file; give a text file of numbers"
        )
    try:
        return tuple(map(float, np.loadtxt(file, ndmin=2)[:, -1]))
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"detector.mtf_file = {file} is no table of numbers ({error}); the transfer function "
            "from zero to Nyquist is required in its last column"
        ) from None
