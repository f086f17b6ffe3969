"""A first model of a dataset: every part a guess that the solver improves or you replace."""

import functools
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..data import Dataset
from ..direct.transfer import Optics
from ..model import Model
from ..parts.detector import (
    AbstractDetector,
    Cropped,
    Descanned,
    Ideal,
    Masked,
    NearField,
    SuperSampled,
)
from ..parts.indexed import PerShot, PerView
from ..parts.mixed_states import mixed_states
from ..parts.probe import AberratedProbe, PixelProbe
from ..parts.propagator import Fresnel, Tilted
from ..parts.scan import FreeScan
from ..parts.specimen import AbstractSpecimen, SliceStack
from ..parts.stacks import PotentialSlices, TransmissionStack, WeakPhaseStack
from ..physics import waves
from ..physics.grids import Grid
from ..physics.modes import make_modes, with_dose
from ..physics.types import Numbers
from .calibrate import Calibration
from .cautions import cautions
from .columns import with_columns
from .descan import beam_tilt, centred, descan_shift, disc_offsets, mean_of
from .direct_object import on_pixels, phase_picture, with_phase
from .positions import with_map
from .slicing import beyond_focus, fitting_slices

SPECIMENS = ("complex", "phase", "weak", "potential")
PROBES = ("auto", "vacuum", "file", "optics", "mean_pattern")
STARTS = ("empty", "direct", "columns")  # of a specimen


def guess_model(
    data: Dataset,
    *,
    modes: int = 1,
    slices: int | None = None,
    thickness: float | Sequence[float] | None = None,
    specimen: str = "complex",
    start: str | None = None,
    states: int = 1,
    periodic: bool = False,
    probe: str = "auto",
    semiangle: float | None = None,
    defocus: float | None = None,
    aberrations: dict[str, float] | None = None,
    margin: float | None = None,
    near_field: float | None = None,
    supersample: int = 1,
    extend: int = 1,
    descan: str = "auto",
    vacuum: Numbers | None = None,
) -> Model:
    """First guess of a model: an empty specimen, and a probe with the measured dose.

    `thickness` [Å] is that of all slices together, or of each, by default that of the file;
    without `slices` there are as many as it requires (`start.slicing`). `specimen` is "complex"
    (a free transmission), "phase", "weak" or "potential"; it starts "empty", with the phase of a
    "direct" retrieval (`start.direct_object`), shared evenly by the slices, or with "columns" of
    atoms (`start.columns`), the default beyond the depth of field, where it is given a tilt, too.
    Several `states` (`MixedStates`), whose patterns add incoherently, start with a little noise.
    `probe` comes from the file, from the optics (`semiangle` [rad], `defocus` [Å] > 0 for
    underfocus, `aberrations` [Å]; by default those in `data.about`), from the pattern `vacuum`
    [y, x] of the beam without a specimen, which gives the amplitude of the aperture and the
    optics its phase, or from the mean pattern in its place; "auto" takes the first of vacuum,
    file, optics and mean pattern that is known. The object reaches `margin` [Å] further than the
    windows. `near_field` [Å] is the effective distance of an in-line hologram. The model may be
    finer than the detector in reciprocal space (`supersample`) or in real space (`extend`), by
    integer factors. A bright-field disc off the middle of the camera is modelled as a shift of
    the pattern (`descan`: see `start.descan`).
    """
    if near_field is not None and descan in ("shared", "plane", "shot"):
        raise ValueError(
            f'descan = "{descan}" shifts patterns of the far field; a hologram takes "auto" or '
            '"none"'
        )
    grid = model_grid(data.grid, supersample, extend)
    about = data.about
    semiangle = about_radians(about, "semiangle_mrad") if semiangle is None else semiangle
    defocus = about.get("defocus_angstrom", 0.0) if defocus is None else defocus
    lens = {"defocus": defocus, **(aberrations or {})}
    thickness = about.get("thickness_angstrom") if thickness is None else thickness
    each = slice_thicknesses(thickness, slices or slice_count(thickness, grid))
    first = first_probe(data, grid, probe, semiangle, lens, near_field, descan, vacuum)
    shift = None if near_field is not None else descan_shift(data, descan)
    dose = float(np.mean(np.concatenate([data.dose(v) for v in range(data.n_views)])))
    content = empty_specimen(data, grid, specimen, each, margin, periodic)
    scanned = near_field is None and data.n_views == 1
    thick = scanned and len(each) > 1 and beyond_focus(sum(each), grid, semiangle)
    start = start or ("columns" if thick else "empty")
    if start not in STARTS:
        raise ValueError(f"a specimen starts {' or '.join(STARTS)}; got {start!r}")
    angle = semiangle or 0.0
    if start != "empty" and not (scanned and angle):
        raise ValueError(
            "a specimen starts from direct phase or columns where the disc of a far field of one "
            'scan has a known semiangle; give it, or start "empty"'
        )
    if start == "direct":
        lens["defocus"] -= float(np.sum(each)) / 2  # a weak phase is in the middle of its thickness
        optics = Optics.of(1e3 * angle, grid.wavelength, max(data.grid.dk), **lens)
        content = _with_direct_phase(content, data, grid, optics)
    model = Model(
        probe=PixelProbe(with_dose(make_modes(first, modes), dose)),
        specimen=content if states == 1 else mixed_states(content, states),
        scan=FreeScan(per_shot(data)),
        grid=grid,
        propagator=Tilted(jnp.zeros(2)) if thick else Fresnel(),
        detector=first_detector(data, near_field, supersample, extend, shift),
        frame=data.frame,
    )
    return with_columns(model, data, angle) if start == "columns" else model


@functools.wraps(guess_model)
def first_model(data: Dataset, look: Calibration | None = None, **parts: Any) -> Model:
    """`guess_model`, with a warning of everything that the data contradict.

    A calibration `look` gives positions, semiangle and aberrations; the specimen then starts from
    its direct phase. `parts` replace what it gives.
    """
    if look is not None and look.orientation is not None:
        data = with_map(data, look.orientation.matrix)
        total = float(np.sum(parts.get("thickness") or data.about.get("thickness_angstrom") or 0.0))
        parts = _measured_parts(look, total) | parts
    semiangle, thickness = (parts.get(name) for name in ("semiangle", "thickness"))
    said = {
        "semiangle_mrad": None if semiangle is None else 1e3 * semiangle,
        "defocus_angstrom": parts.get("defocus"),
        "thickness_angstrom": None if thickness is None else float(np.sum(thickness)),
        "effective_distance_angstrom": parts.get("near_field"),
        "slices": parts.get("slices"),
    }
    for caution in cautions(data, said):
        warnings.warn(str(caution), stacklevel=2)
    return guess_model(data, **parts)


def _measured_parts(look: Calibration, thickness: float) -> dict[str, Any]:
    """Keywords of `guess_model` that a calibration gives; `thickness` [Å] is the specimen's."""
    if look.optics is None:
        return {}
    further = dict(look.optics.aberrations)
    defocus = thickness / 2 - further.pop("C10")  # at the entrance: measured is that of the middle
    lens = {"semiangle": look.semiangle, "defocus": defocus, "aberrations": further}
    thick = beyond_focus(thickness, look.data.grid, look.semiangle)
    return lens | {"start": "columns" if thick else "direct"}


def about_radians(about: dict, key: str) -> float | None:
    """An angle of a file [rad] by its name in mrad, None where the file is silent."""
    return 1e-3 * about[key] if key in about else None


def model_grid(grid: Grid, supersample: int = 1, extend: int = 1) -> Grid:
    """The model's grid for a detector's: `supersample` divides dk, `extend` divides the pixel."""
    shape = tuple(n * supersample * extend for n in grid.shape)
    pixel = tuple(p / extend for p in grid.pixel)
    return Grid(shape, pixel, grid.voltage_kv, None if grid.voltage_kv else grid.wavelength)


def first_detector(
    data: Dataset, near_field: float | None, supersample: int, extend: int, shift: Any = None
) -> AbstractDetector:
    """The detector that brings the model's grid to the camera's pixels, mask included, patterns
    moved by `shift` [1/Å].
    """
    detector = Ideal() if near_field is None else NearField(jnp.asarray(near_field, float))
    if shift is not None:
        detector = Descanned(shift, detector)
    if extend > 1:
        ny, nx = data.grid.shape
        detector = Cropped((ny * supersample, nx * supersample), detector)
    if supersample > 1:
        detector = SuperSampled(detector, supersample)
    if data.mask is not None:
        detector = Masked(jnp.asarray(np.fft.ifftshift(data.mask)), detector)
    return detector


def first_probe(
    data: Dataset,
    grid: Grid,
    source: str,
    semiangle: float | None,
    aberrations: dict,
    near_field: float | None,
    descan: str = "auto",
    vacuum: Numbers | None = None,
) -> jax.Array:
    """One wave [y, x] of arbitrary power, centre at [N//2, N//2], from the chosen source."""
    if source not in PROBES:
        raise ValueError(f"a probe starts from one of {', '.join(PROBES)}; got {source!r}")
    if source == "auto":
        optics = semiangle is not None and near_field is None
        known = vacuum is not None, data.probe_guess is not None, optics, True
        source = PROBES[1 + known.index(True)]
    if source == "file":
        if data.probe_guess is None:
            raise ValueError(
                "the dataset holds no probe_guess; start the probe from 'optics' or 'mean_pattern'"
            )
        guess = jnp.asarray(data.probe_guess).astype(complex)
        shift = None if near_field is not None else descan_shift(data, descan)
        guess = guess if shift is None else centred(guess, data.grid, shift)
        return _on_grid(guess, data.grid, grid)
    if source == "vacuum":
        if vacuum is None:
            raise ValueError(
                "a probe from vacuum requires the pattern of the beam without a specimen; give "
                "it, in a job data.vacuum_file, or start from 'optics' or 'mean_pattern'"
            )
        return _from_mean_pattern(
            _single_pattern(vacuum, data), grid, aberrations, near_field, descan
        )
    if source == "mean_pattern":
        return _from_mean_pattern(data, grid, aberrations, near_field, descan)
    if semiangle is None:
        raise ValueError(
            "a probe from its optics requires the semiangle; give it, or start from 'mean_pattern'"
        )
    tilt = np.zeros(2) if near_field is not None else beam_tilt(data, descan)
    probe = AberratedProbe(semiangle, aberrations, centre=tilt)
    spectrum = eqx.filter_jit(AberratedProbe.spectrum)(probe, grid)[0]  # one program, not forty
    return jnp.fft.fftshift(waves.inverse_fourier(spectrum))


def _from_mean_pattern(data, grid, aberrations, near_field, descan):
    pattern = jnp.asarray(np.sqrt(np.fft.ifftshift(data.mean_pattern())), float)
    if near_field is not None:
        hologram = jnp.fft.fftshift(pattern).astype(complex)
        return waves.propagate(hologram[None], jnp.conj(waves.fresnel(data.grid, near_field)))[0]
    shift = descan_shift(data, descan)
    tilt = beam_tilt(data, "none")  # of the pattern as it is
    lens = AberratedProbe(1.0, aberrations, centre=tilt).spectrum(data.grid)[0]
    wave = jnp.fft.fftshift(waves.inverse_fourier(pattern * jnp.exp(1j * jnp.angle(lens))))
    if shift is not None:
        y, x = mean_of(shift)
        wave = waves.tilted(wave[None], data.grid, (-y, -x))[0]
    return _on_grid(wave, data.grid, grid)


def _on_grid(waves_: jax.Array, before: Grid, after: Grid) -> jax.Array:
    """Waves [..., y, x] in the middle of a grid of finer pixels, then of a larger window."""
    factors = [round(p / q) for p, q in zip(before.pixel, after.pixel, strict=True)]
    if factors != [1, 1]:
        shape = [n * factor for n, factor in zip(before.shape, factors, strict=True)]
        spectrum = jnp.fft.fftshift(waves.fourier(jnp.fft.ifftshift(waves_, (-2, -1))), (-2, -1))
        padded = jnp.fft.ifftshift(_padded(spectrum, shape), (-2, -1))
        waves_ = jnp.fft.fftshift(waves.inverse_fourier(padded), (-2, -1))
    return _padded(waves_, after.shape)


def _padded(images: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Images [..., y, x] with zeros around them, their pixel [n//2, n//2] in the middle."""
    starts = [m // 2 - n // 2 for n, m in zip(images.shape[-2:], shape, strict=True)]
    ends = [m - n - a for n, m, a in zip(images.shape[-2:], shape, starts, strict=True)]
    before = [(0, 0)] * (images.ndim - 2)
    return jnp.pad(images, [*before, *zip(starts, ends, strict=True)])


def _single_pattern(pattern: Numbers, data: Dataset) -> Dataset:
    """A measurement of one pattern [y, x] on the camera of `data`."""
    counts = np.asarray(pattern, float)
    if counts.shape != data.grid.shape:
        raise ValueError(
            f"the vacuum pattern has shape {counts.shape}; one of {data.grid.shape} pixels, as the "
            "patterns have, is required"
        )
    return Dataset(counts[None], np.zeros((1, 2)), data.grid, data.mask, bad_data="keep")


def empty_specimen(
    data: Dataset,
    grid: Grid,
    kind: str,
    thicknesses: Sequence[float],
    margin: Numbers | None,
    periodic: bool,
) -> AbstractSpecimen:
    """Vacuum of slices [Å] under all windows of the scan and `margin` [Å] around them."""
    if kind not in SPECIMENS:
        raise ValueError(f"a specimen is one of {', '.join(SPECIMENS)}; got {kind!r}")
    slices = len(thicknesses)
    positions = np.concatenate(data.positions)
    pixel = np.asarray(grid.pixel)
    window = np.asarray(grid.shape)
    reach = np.maximum(4.0, window / 32) * pixel if margin is None else np.broadcast_to(margin, 2)
    low = positions.min(0) - window // 2 * pixel - reach
    extent = (np.ptp(positions, axis=0) + 2 * reach) / pixel
    shape = np.ceil(extent - 1e-6) + window + 1  # the same for a scan far from zero, less rounding
    require_room((slices, *shape), 2 if kind == "complex" else 1, data)
    values = jnp.zeros((slices, *map(int, shape)))
    equal = len(set(thicknesses)) == 1
    each = jnp.asarray(thicknesses[0] if equal else list(thicknesses), float)
    origin = jnp.asarray(low, float)
    if kind == "potential":
        depth = jnp.where(each > 0, each, 1 / slices)  # of one slice that is given none
        return PotentialSlices(values, None, depth, origin, periodic)
    if kind == "complex":
        return TransmissionStack(1 + 0j * values, each, origin, periodic)
    stack = WeakPhaseStack if kind == "weak" else SliceStack
    return stack(values, None, each, origin, periodic)


def _with_direct_phase(
    specimen: AbstractSpecimen, data: Dataset, grid: Grid, optics: Optics
) -> AbstractSpecimen:
    """The empty specimen with the phase that the matched filter gives."""
    y, x = disc_offsets(data).mean(0) * data.grid.dk * grid.wavelength
    picture = phase_picture(data, optics, (float(y), float(x)))
    corner = np.asarray(specimen.slices_origin(grid))
    shape = specimen.shapes(grid).plane
    phase = on_pixels(picture, data.positions[0], grid.pixel, (corner[0], corner[1]), shape)
    return with_phase(specimen, grid, phase)


def slice_count(thickness: float | Sequence[float] | None, grid: Grid) -> int:
    """Number of slices of a `thickness` [Å] of all together, or of each."""
    return len(thickness) if isinstance(thickness, Sequence) else fitting_slices(thickness, grid)


def slice_thicknesses(thickness: float | Sequence[float] | None, slices: int) -> list[float]:
    """Thickness [Å] of every slice, of that of all together, or of each.

    Raises ValueError for several slices without a thickness, and for another number of them.
    """
    if isinstance(thickness, Sequence):
        if len(thickness) != slices:
            raise ValueError(
                f"{len(thickness)} thicknesses came for {slices} slices; give one for each, or "
                "that of all together"
            )
        return [float(each) for each in thickness]
    if slices > 1 and not thickness:
        raise ValueError(
            f"{slices} slices require the specimen's thickness in Å; in a job it is "
            "specimen.thickness_angstrom"
        )
    return [(thickness or 0.0) / slices] * slices


def require_room(shape: Sequence[float | int], stacks: int, data: Dataset) -> None:
    """Raise ValueError if arrays of an object of `shape` (z, y, x) exceed the memory.

    A copy of them is included.
    """
    size = 2 * 4 * stacks * math.prod(map(float, shape))  # float32; a step works on a copy
    if size <= memory_bytes():
        return
    positions = np.concatenate(data.positions)
    distance = np.abs(positions - np.median(positions, axis=0)).max(1)
    shot = int(np.argmax(distance))
    y, x = positions[shot]
    height, width = np.ptp(positions, axis=0)
    raise ValueError(
        f"an object of {' × '.join(f'{n:.6g}' for n in shape)} voxels takes {size / 2**30:.4g} "
        f"GiB, and this machine has {memory_bytes() / 2**30:.4g}: the positions extend over "
        f"{height:.5g} × {width:.5g} Å (y, x; the farthest from the others is number {shot}, at "
        f"{y:.5g}, {x:.5g} Å); check their unit (Å) and drop those that are wrong, or use fewer "
        "slices, a smaller margin or a coarser pixel"
    )


def memory_bytes() -> float:
    """Memory of this machine [bytes], infinite where the system does not report it."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def per_shot(data: Dataset):
    """Nominal positions [Å] of every shot, of every view; those of shorter views are repeated at
    their end.
    """
    if data.n_views == 1:
        return PerShot(jnp.asarray(data.positions[0], float))
    longest = max(data.n_shots)
    padded = [np.pad(p, ((0, longest - len(p)), (0, 0)), mode="edge") for p in data.positions]
    return PerView(PerShot(jnp.asarray(np.stack(padded), float)))
