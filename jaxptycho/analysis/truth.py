"""Comparison of a reconstruction with a ground truth."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..model import Model
from ..physics.types import Numbers
from .depth import slice_correlation
from .gauge import correlation, hann_windowed, register, without_ramp
from .scanned import origin, scanned
from .warps import Fit, PhaseTone, Sampled, Warp, applied, fit

MIN_PIXELS = 64  # pixels on which two images are compared
NYQUIST_MARGIN = 1.5  # Nyquist frequency over cutoff, at which exp(−1.5⁴) = 0.6 % remains to alias


class Agreement(NamedTuple):
    """Comparison of a phase with the true one, on the scanned area and without their gauge."""

    correlation: float
    slope: float  # reconstructed per true radian
    shift: np.ndarray  # Å (y, x), removed before comparing
    phase: np.ndarray  # rad, ramp and offset removed
    truth: np.ndarray  # rad
    inside: np.ndarray  # where the truth is known


def phases(model: Model) -> Float[np.ndarray, "z Y X"]:
    """Phase of every slice [rad]."""
    return np.asarray(model.specimen.phase_per_slice(model.grid), float)


def low_passed(image: np.ndarray, pixel: Numbers, cutoff: float) -> np.ndarray:
    """The image times exp(−(k/cutoff)⁴) in Fourier space; `pixel` in Å, `cutoff` in 1/Å."""
    steps = np.broadcast_to(pixel, 2)
    ky, kx = (np.fft.fftfreq(n, p) for n, p in zip(image.shape, steps, strict=True))
    k2 = ky[:, None] ** 2 + kx**2
    return np.fft.ifft2(np.fft.fft2(image) * np.exp(-((k2 / cutoff**2) ** 2))).real


def comparable(cutoff: float, *pixels: Numbers) -> float:
    """Cutoff [1/Å], limited to the smallest Nyquist frequency of all `pixels` [Å] over 1.5."""
    return min(cutoff, 1 / (2 * NYQUIST_MARGIN * max(np.max(pixel) for pixel in pixels)))


def compare_phase(
    phase: Float[np.ndarray, "Y X"],
    model: Model,
    truth: np.ndarray,
    truth_pixel: Numbers,
    cutoff: float = 1.6,
    truth_origin: Numbers | None = None,
) -> Agreement:
    """A phase [rad] on the model's grid against a true one [rad] with pixels of `truth_pixel` Å.

    The truth's pixel [0, 0] is at `truth_origin` (y, x) [Å] in the frame of the measurement, and
    only the area inside its edges is compared; without an origin it is at (0, 0) and the truth
    is periodic. Both are low-passed by exp(−(k/cutoff)⁴), with at most `comparable` of both
    pixels to avoid aliasing; the phase is registered, offset and ramp are removed, and only the
    scanned area is used.
    """
    area = scanned(model)
    pixel = np.array(model.grid.pixel)
    cutoff = comparable(cutoff, model.grid.pixel, truth_pixel)
    begin = np.array([part.start for part in area])
    found = low_passed(without_ramp(phase, _inside(phase.shape, area)), pixel, cutoff)[area]
    seen = Sampled(found, pixel, origin(model) + begin * pixel)
    steps = np.broadcast_to(np.asarray(truth_pixel, float), 2)
    known = _known(np.asarray(truth, float), steps, cutoff, truth_origin, model.frame)
    state = Fit(Warp(np.eye(2), np.zeros(2)), PhaseTone(1.0, 0.0, np.zeros(2)))
    for _ in range(2):  # the truth is cut again at each shift, to exclude its edges
        expected, inside = applied(state, seen, known)
        _require_overlap(inside, seen, known)
        fixed, moving = (
            hann_windowed((a - a[inside].mean()) * inside) for a in (expected, without_ramp(found))
        )
        shift = state.warp.shift + pixel * register(fixed, moving).shift
        state = state._replace(warp=Warp(np.eye(2), shift))
    shift = fit(seen, known, state).warp.shift
    expected, inside = applied(state._replace(warp=Warp(np.eye(2), shift)), seen, known)
    _require_overlap(inside, seen, known)
    slope, *plane = np.linalg.lstsq(_columns(expected)[inside], found[inside], rcond=None)[0]
    plain = found - _columns(expected)[..., 1:] @ plane
    return Agreement(
        correlation(expected, plain, inside), float(slope), shift, plain, expected, inside
    )


def compare_slices(
    stack: Float[np.ndarray, "z Y X"],
    model: Model,
    truth: Float[np.ndarray, "Z v u"],
    truth_pixel: Numbers,
    agreement: Agreement,
    cutoff: float = 1.6,
    truth_origin: Numbers | None = None,
) -> Float[np.ndarray, "z Z"]:
    """Correlation of every slice [rad] with every slab of a truth, at the shift of their sums.

    Other arguments as for `compare_phase`.
    """
    area = scanned(model)
    pixel = np.array(model.grid.pixel)
    cutoff = comparable(cutoff, model.grid.pixel, truth_pixel)
    own = _inside(stack.shape[1:], area)
    found = np.stack([low_passed(without_ramp(phase, own), pixel, cutoff)[area] for phase in stack])
    seen = Sampled(found[0], pixel, origin(model) + np.array([part.start for part in area]) * pixel)
    state = Fit(Warp(np.eye(2), agreement.shift), PhaseTone(1.0, 0.0, np.zeros(2)))
    steps = np.broadcast_to(np.asarray(truth_pixel, float), 2)
    slabs = [
        applied(state, seen, _known(slab, steps, cutoff, truth_origin, model.frame))[0]
        for slab in np.asarray(truth, float)
    ]
    return slice_correlation(found, np.stack(slabs), agreement.inside)


def _known(truth, pixel, cutoff, corner, frame) -> Sampled:
    """Low-passed truth, relative to `frame` (y, x) [Å].

    Periodic, or mirrored at its edges so that opposite edges do not mix.
    """
    if corner is None:
        nearest = np.mod(np.negative(frame), truth.shape * pixel)
        return Sampled(low_passed(truth, pixel, cutoff), pixel, nearest, periodic=True)
    mirrored = np.pad(truth, [(0, n) for n in truth.shape], "symmetric")
    smooth = low_passed(mirrored, pixel, cutoff)[: truth.shape[0], : truth.shape[1]]
    return Sampled(smooth, pixel, np.subtract(corner, frame))


def _columns(expected):
    """Regressors of a phase: the true one, a constant, and a plane."""
    y, x = np.indices(expected.shape)
    return np.stack([expected, np.ones_like(expected), y, x], -1)


def _require_overlap(inside, seen: Sampled, known: Sampled) -> None:
    if inside.sum() < MIN_PIXELS:
        ranges = [
            " and ".join(
                f"{axis} = {c:.5g} to {c + p * (n - 1):.5g} Å"
                for axis, c, p, n in zip(
                    "yx", image.corner, image.pixel, image.values.shape, strict=True
                )
            )
            for image in (known, seen)
        ]
        raise ValueError(
            f"the truth, at {ranges[0]}, does not overlap the result, scanned at {ranges[1]}; "
            "give the truth's origin in the frame of the positions"
        )


def _inside(shape, area):
    inside = np.zeros(shape, bool)
    inside[area] = True
    return inside
