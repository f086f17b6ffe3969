"""A first model of a dataset: every part a guess that the solver improves or you replace."""

import jax
import jax.numpy as jnp
import numpy as np

from ..data import Dataset
from ..model import Model
from ..parts.detector import AbstractDetector, Cropped, Ideal, Masked, NearField, SuperSampled
from ..parts.indexed import PerShot, PerView
from ..parts.probe import AberratedProbe, PixelProbe
from ..parts.scan import FreeScan
from ..parts.specimen import AbstractSpecimen, SliceStack
from ..parts.stacks import PotentialSlices, WeakPhaseStack
from ..physics import waves
from ..physics.grids import Grid
from ..physics.modes import make_modes, with_dose
from .calibration import bright_field_centre

SPECIMENS = ("complex", "phase", "weak", "potential")
PROBES = ("auto", "file", "optics", "mean_pattern")


def first_model(
    data: Dataset,
    *,
    modes: int = 1,
    slices: int = 1,
    thickness: float | None = None,
    specimen: str = "complex",
    periodic: bool = False,
    probe: str = "auto",
    semiangle: float | None = None,
    defocus: float | None = None,
    aberrations: dict[str, float] | None = None,
    margin: float | None = None,
    near_field: float | None = None,
    supersample: int = 1,
    extend: int = 1,
) -> Model:
    """A first guess of everything: an empty specimen, and a probe with the measured dose.

    `thickness` [Å] is that of all slices together. `specimen` is "complex" (phase and
    absorption), "phase", "weak" or "potential". `probe` comes from the file, from the optics
    (`semiangle` [rad], `defocus` [Å] > 0 for underfocus, `aberrations` [Å]; by default those in
    `data.about`) or from the mean pattern; "auto" takes the first of these that is known.
    The object reaches `margin` [Å] further than the windows. `near_field` [Å] is the effective
    distance of an in-line hologram. The model may be finer than the detector in reciprocal
    space (`supersample`) or in real space (`extend`), by whole factors.
    """
    grid = model_grid(data.grid, supersample, extend)
    about = data.about
    semiangle = about_radians(about, "semiangle_mrad") if semiangle is None else semiangle
    defocus = about.get("defocus_angstrom", 0.0) if defocus is None else defocus
    first = first_probe(data, grid, probe, semiangle, {"defocus": defocus, **(aberrations or {})}, near_field)
    dose = float(np.mean(np.concatenate([data.dose(v) for v in range(data.n_views)])))
    return Model(
        probe=PixelProbe(with_dose(make_modes(first, modes), dose)),
        specimen=empty_specimen(data, grid, specimen, slices, thickness, margin, periodic),
        scan=FreeScan(per_shot(data)),
        grid=grid,
        detector=first_detector(data, near_field, supersample, extend),
    )


def about_radians(about: dict, key: str) -> float | None:
    """An angle of a file [rad] by its name in mrad, None where the file is silent."""
    return 1e-3 * about[key] if key in about else None


def model_grid(grid: Grid, supersample: int = 1, extend: int = 1) -> Grid:
    """The model's grid for a detector's: `supersample` divides dk, `extend` divides the pixel."""
    shape = tuple(n * supersample * extend for n in grid.shape)
    pixel = tuple(p / extend for p in grid.pixel)
    return Grid(shape, pixel, grid.voltage_kv, None if grid.voltage_kv else grid.wavelength)


def first_detector(data: Dataset, near_field: float | None, supersample: int, extend: int) -> AbstractDetector:
    """The detector that brings the model's grid to the camera's pixels, mask included."""
    detector = Ideal() if near_field is None else NearField(jnp.asarray(near_field, float))
    if extend > 1:
        ny, nx = data.grid.shape
        detector = Cropped((ny * supersample, nx * supersample), detector)
    if supersample > 1:
        detector = SuperSampled(detector, supersample)
    if data.mask is not None:
        detector = Masked(jnp.asarray(np.fft.ifftshift(data.mask)), detector)
    return detector


def first_probe(data, grid: Grid, source: str, semiangle, aberrations: dict, near_field) -> jax.Array:
    """One wave [y, x] of arbitrary power, centre at [N//2, N//2], from the chosen source."""
    if source not in PROBES:
        raise ValueError(f"a probe starts from one of {', '.join(PROBES)}; got {source!r}")
    if source == "auto":
        known = data.probe_guess is not None, semiangle is not None and near_field is None, True
        source = PROBES[1 + known.index(True)]
    if source == "file":
        if data.probe_guess is None:
            raise ValueError("the dataset holds no probe_guess; start the probe from 'optics' or 'mean_pattern'")
        return jnp.asarray(data.probe_guess).astype(complex)
    if source == "mean_pattern":
        return _from_mean_pattern(data, grid, aberrations, near_field)
    if semiangle is None:
        raise ValueError("a probe from its optics wants the semiangle; give it, or start from 'mean_pattern'")
    centre = bright_field_centre(data)
    shift = tuple(c * dk * grid.wavelength for c, dk in zip(centre, data.grid.dk, strict=True))
    spectrum = AberratedProbe(semiangle, aberrations, centre=shift).spectrum(grid)[0]
    return jnp.fft.fftshift(waves.inverse_fourier(spectrum))


def _from_mean_pattern(data, grid, aberrations, near_field):
    pattern = jnp.asarray(np.sqrt(np.fft.ifftshift(data.mean_pattern())), float)
    if near_field is not None:
        hologram = jnp.fft.fftshift(pattern).astype(complex)
        return waves.propagate(hologram[None], jnp.conj(waves.fresnel(data.grid, near_field)))[0]
    lens = AberratedProbe(1.0, aberrations).spectrum(data.grid)[0]
    wave = jnp.fft.fftshift(waves.inverse_fourier(pattern * jnp.exp(1j * jnp.angle(lens))))
    padding = [((m - n) // 2, m - n - (m - n) // 2) for n, m in zip(data.grid.shape, grid.shape, strict=True)]
    return jnp.pad(wave, padding)


def empty_specimen(data, grid: Grid, kind, slices, thickness, margin, periodic) -> AbstractSpecimen:
    """Vacuum under all windows of the scan and `margin` [Å] around them."""
    if kind not in SPECIMENS:
        raise ValueError(f"a specimen is one of {', '.join(SPECIMENS)}; got {kind!r}")
    if slices > 1 and not thickness:
        raise ValueError(f"{slices} slices want the specimen's thickness in Å")
    positions, pixel = np.concatenate(data.positions), np.asarray(grid.pixel)
    window = np.asarray(grid.shape)
    reach = np.maximum(4.0, window / 32) * pixel if margin is None else np.broadcast_to(margin, 2)
    low = positions.min(0) - window // 2 * pixel - reach
    shape = np.ceil((positions.max(0) - positions.min(0) + 2 * reach) / pixel).astype(int) + window + 1
    values, each = jnp.zeros((slices, *map(int, shape))), jnp.asarray((thickness or 0.0) / slices, float)
    origin = jnp.asarray(low, float)
    if kind == "potential":
        return PotentialSlices(values, None, jnp.asarray((thickness or 1.0) / slices, float), origin, periodic)
    loss = jnp.zeros_like(values) if kind == "complex" else None
    return (WeakPhaseStack if kind == "weak" else SliceStack)(values, loss, each, origin, periodic)


def per_shot(data: Dataset):
    """Nominal positions [Å] of every shot, of every view; those of shorter views are repeated at their end."""
    if data.n_views == 1:
        return PerShot(jnp.asarray(data.positions[0], float))
    longest = max(data.n_shots)
    padded = [np.pad(p, ((0, longest - len(p)), (0, 0)), mode="edge") for p in data.positions]
    return PerView(PerShot(jnp.asarray(np.stack(padded), float)))
