"""Offset of the bright-field disc from the middle of the camera, as a shift of the pattern.

Cropped frames, a camera off its axis and an imperfect descan move the whole pattern. None of them
tilts the beam, which in a thick specimen would move from slice to slice by θ·Δz, and none displaces
the probe. So the pattern is shifted (`parts.detector.Descanned`) and the probe stays centred.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data import Dataset
from ..parts.indexed import PerShot, PerView
from ..physics import waves
from ..physics.grids import Grid
from .calibration import bright_field_centre
from .camera import measure_camera
from .disc import rim_of

DESCANS = ("auto", "none", "shared", "plane", "shot")
SMALL = 1e-6  # of the brightest power of a spectrum, the unit of its noise
VIEWS_DIFFER = 1.0  # pixels between the discs of views, from which each view has a separate shift


def descan_shift(data: Dataset, descan: str = "auto") -> Any:
    """Shift of the pattern (y, x) [1/Å] for the measured offset of the disc, or None for none.

    "auto": of electrons its nearest whole pixels, if any, the same for all shots, or `PerView`
    if those of views differ by more than a pixel. The remainder, at most half a pixel, is a tilt of
    the beam of the first probe (`beam_tilt`): only integer pixels leave a probe that fills its
    window without a step at the edges. "shared": all of the offset; "shot": the same for each shot,
    to be refined as `detector.shift`; "plane": that of each shot by the robust plane of
    `measure_camera`; "none": all is a tilt of the beam.
    """
    pixels = _shift_pixels(data, descan)
    if pixels is None:
        return None
    shifts = pixels * data.grid.dk
    if descan in ("plane", "shot"):
        shots = np.broadcast_to(shifts[:, None], (data.n_views, max(data.n_shots), 2)).copy()
        if descan == "plane":
            for view, n in enumerate(data.n_shots):
                shots[view, :n] += measure_camera(data, view).shifts * data.grid.dk
        each = PerShot(jnp.asarray(shots if data.n_views > 1 else shots[0], float))
        return PerView(each) if data.n_views > 1 else each
    return PerView(jnp.asarray(shifts, float)) if len(shifts) > 1 else jnp.asarray(shifts[0], float)


def beam_tilt(data: Dataset, descan: str = "auto") -> np.ndarray:
    """Tilt of the beam (y, x) [rad] that a first probe has: what a shift of the pattern leaves of
    the offset.
    """
    pixels = disc_offsets(data)
    shift = _shift_pixels(data, descan)
    left = (pixels if shift is None else pixels - shift).mean(0)
    return left * data.grid.dk * data.grid.wavelength


def _shift_pixels(data: Dataset, descan: str) -> np.ndarray | None:
    """The shift of the pattern (y, x) [pixels], in rows as those of `disc_offsets`."""
    if descan not in DESCANS:
        raise ValueError(f"descan is one of {', '.join(DESCANS)}; got {descan!r}")
    if descan in ("shared", "plane", "shot"):
        return disc_offsets(data)
    if (
        data.grid.voltage_kv is None
    ):  # photons: patterns of pinholes and zone plates have no such disc
        return None
    pixels = np.rint(disc_offsets(data))
    return pixels if descan == "auto" and pixels.any() else None


def disc_offsets(data: Dataset) -> np.ndarray:
    """Middle of the bright-field disc (y, x) [pixels off the camera's middle]: one row for all
    views, or one for each where they differ by more than a pixel.
    """
    if data.n_views > 1:
        views = np.array([bright_field_centre(data.view(view)) for view in range(data.n_views)])
        if np.ptp(views, axis=0).max() > VIEWS_DIFFER:
            return views
    return np.array([bright_field_centre(data)])


def descan_rows(data: Dataset, descan: str = "auto") -> dict[str, str]:
    """The offset of the disc in words, where the pattern is shifted by it."""
    if _shift_pixels(data, descan) is None:
        return {}
    pixels = disc_offsets(data)
    rounded = np.round(pixels, 1) + 0.0  # no negative zero
    ends = zip(rounded.min(0), rounded.max(0), strict=True)
    y, x = (" to ".join(dict.fromkeys((f"{low:.1f}", f"{high:.1f}"))) for low, high in ends)
    each = "one for each view" if len(pixels) > 1 else ""
    if descan in ("plane", "shot"):
        each = "one for each shot"
    words = f"{y}, {x} pixels (y, x) off the middle: modelled as a pattern shift"
    return {"bright-field disc": f"{words}, {each}" if each else words}


def centred(guess: jax.Array, grid: Grid, shift: Any) -> jax.Array:
    """Waves [y, x] or [mode, y, x] without the tilt of the beam by `shift` [1/Å], where they have
    it: where their spectrum is nearer to it than to the middle.
    """
    modes = jnp.reshape(guess, (-1, *guess.shape[-2:]))
    power = np.fft.fftshift(np.asarray(waves.intensity(waves.fourier(modes))))
    rim = rim_of(power, per_quantum=SMALL * float(power.max()))
    own = np.zeros(2) if rim is None else np.array(rim.centre) * grid.dk
    measured = mean_of(shift)
    has_tilt = np.linalg.norm(own - measured) < np.linalg.norm(own)
    return (
        waves.tilted(modes, grid, (-measured[0], -measured[1])).reshape(guess.shape)
        if has_tilt
        else guess
    )


def mean_of(shift: Any) -> np.ndarray:
    """The mean (y, x) of a shift that may vary from shot to shot and view to view."""
    return np.concatenate([np.reshape(leaf, (-1, 2)) for leaf in jax.tree.leaves(shift)]).mean(0)
