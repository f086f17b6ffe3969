"""Removal of ambiguities that the data cannot resolve, before two results are compared.

A constant factor, a linear phase ramp (a tilt of the illumination), a shift and, if positions
are refined, an affine map of the scan do not change any pattern. `volumes` treats three
dimensions.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy.ndimage import fourier_shift, gaussian_filter

from ..physics.types import Numbers
from .maxima import highest_lag
from .warps import Fit, PhaseTone, Sampled, Warp, WaveTone, applied, eroded, fit, sampled, smoothed

Image = Float[np.ndarray, "_ _"]
Wave = Complex[np.ndarray, "_ _"]
Mask = Bool[np.ndarray, "_ _"]
ALL_MAPS = tuple(np.eye(4).reshape(4, 2, 2))  # generators of every 2×2 matrix


class RegisteredImage(NamedTuple):
    """An image without its gauge, and the gauge; positions r from pixel [Ny//2, Nx//2] [Å].

    image(matrix·r + shift) = scale·reference(r) + offset + ramp·r of a phase, and
    image(matrix·r + shift) = scale·e^{i(offset + ramp·r)}·reference(r) of a wave.
    """

    image: np.ndarray  # on the pixels of the reference, 0 where `inside` is False
    inside: np.ndarray  # area that the image covers
    shift: np.ndarray  # (y, x) [Å]
    matrix: np.ndarray  # on (y, x)
    scale: float
    offset: float  # rad
    ramp: np.ndarray  # (y, x) [rad/Å]


def align_phase(
    image: Image,
    reference: Image,
    pixel: Numbers = 1.0,
    where: Mask | None = None,
    affine: bool = False,
    scale: bool = False,
) -> RegisteredImage:
    """Phase [rad] without offset, ramp and shift against a reference of equal shape.

    Optionally also without an affine map (of some per cent and degrees) and a factor. `pixel` in
    Å; only pixels of the reference `where` are used.
    """
    where = same_shape(image, reference, where)
    target = sampled(reference, pixel)
    other = sampled(image, pixel)
    fixed = hann_windowed(without_ramp(reference, where) * where)
    shift = -register(fixed, hann_windowed(without_ramp(image))).shift * target.pixel
    begin = Fit(Warp(np.eye(2), shift), PhaseTone(1.0, 0.0, np.zeros(2)))
    tones = (0, 1, 2, 3) if scale else (1, 2, 3)
    state = _by_scales(target, other, begin, where, affine, tones)
    return RegisteredImage(
        *applied(state, target, other), state.warp.shift, state.warp.matrix, *state.tone
    )


def align_wave(
    image: Wave,
    reference: Wave,
    pixel: Numbers = 1.0,
    where: Mask | None = None,
    affine: bool = False,
) -> RegisteredImage:
    """Complex image without constant factor, phase ramp and shift against a reference.

    Arguments as for `align_phase`; ramps of many cycles over the field are allowed.
    """
    where = same_shape(image, reference, where)
    target = sampled(reference, pixel)
    other = sampled(image, pixel)
    ramp, shift = _coarse(reference, image, where, target.pixel)
    phases = (ramp @ other.places(np.arange(image.size))).reshape(image.shape)
    level = other._replace(values=image * np.exp(-1j * phases))
    warp = Warp(np.eye(2), shift)
    plain = WaveTone(1.0, 0.0, np.zeros(2))
    seen = reference * where
    constant = np.vdot(seen, applied(Fit(warp, plain), target, level)[0]) / np.vdot(seen, seen)
    begin = Fit(warp, WaveTone(float(abs(constant)), float(np.angle(constant)), np.zeros(2)))
    state = _by_scales(target, level, begin, where, affine, (0, 1, 2, 3))
    (matrix, shift), tone = state
    # ramp·(matrix·r + shift) was removed first
    offset = float(np.angle(np.exp(1j * (tone.offset + ramp @ shift))))
    return RegisteredImage(
        *applied(state, target, level),
        shift,
        matrix,
        tone.scale,
        offset,
        tone.ramp + matrix.T @ ramp,
    )


def same_shape(image: np.ndarray, reference: np.ndarray, where: np.ndarray | None) -> np.ndarray:
    """Mask `where`, by default everywhere; ValueError unless all have one shape."""
    where = np.ones(reference.shape, bool) if where is None else where
    if image.shape != reference.shape or where.shape != reference.shape:
        raise ValueError(
            f"an image of shape {image.shape} came with a reference of {reference.shape} and a "
            f"mask of {where.shape}; cut or resample them to one shape"
        )
    if not (np.isfinite(image).all() and np.isfinite(reference).all()):
        raise ValueError(
            "an image or its reference holds values that are not finite; fill them and leave them "
            "out by a mask"
        )
    if not where.any():
        raise ValueError("no pixel is left to compare; give a mask that is somewhere True")
    return where


def _by_scales(target: Sampled, other: Sampled, begin: Fit, where, affine, tones) -> Fit:
    """Fit; for an affine map in steps from blurred images to sharp ones."""
    if not affine:
        return fit(target, other, begin, (), tones, where)
    for width in np.array([6.0, 3.0, 1.5]) * target.pixel.min():
        a, b = smoothed(target, width), smoothed(other, width)
        begin = fit(a, b, begin, ALL_MAPS, tones, eroded(where, target, width))
    return fit(target, other, begin, ALL_MAPS, tones, where)


def _coarse(reference, image, where, pixel) -> tuple[np.ndarray, np.ndarray]:
    """Ramp [rad/Å] and shift [Å] to a fraction of a fringe and of a pixel.

    A ramp displaces the power spectrum for any shift; then both are refined alternately.
    """
    powers = [
        np.abs(np.fft.fft2(hann_windowed(a), [2 * n for n in a.shape])) ** 2
        for a in (reference * where, image)
    ]
    own, other = (np.fft.fftshift(np.fft.ifft2(power)) for power in powers)
    cycles = frequency(other * own.conj())
    shift = np.zeros(2)
    places = np.moveaxis(np.indices(image.shape), 0, -1)
    fixed = hann_windowed(_detail(reference) * where)
    for _ in range(2):
        level = image * np.exp(-2j * np.pi * places @ cycles)
        shift = -register(fixed, hann_windowed(_detail(level))).shift
        moved = np.fft.ifft2(fourier_shift(np.fft.fft2(hann_windowed(level)), -shift))
        cycles = cycles + frequency(moved * (reference * where).conj())
    return 2 * np.pi * cycles / pixel, shift * pixel


def _detail(image):
    """The image without broad features, such as the remainder of a ramp."""
    return image - gaussian_filter(image, min(image.shape) / 16)


def frequency(product: Wave) -> Float[np.ndarray, "2"]:
    """Strongest frequency (y, x) [cycles/pixel] of a complex image, to a quarter of 1/N."""
    shape = [2 * n for n in product.shape]
    strength = np.abs(np.fft.fft2(product, shape))
    return highest_lag(strength) / np.array(shape)


def without_ramp(phase: Image, where: Mask | None = None) -> np.ndarray:
    """Phase without the plane that fits it best inside `where` (least squares)."""
    y, x = np.indices(phase.shape)
    plane = np.stack([y, x, np.ones_like(y)], -1).astype(float)
    where = np.ones(phase.shape, bool) if where is None else where
    coefficients = np.linalg.lstsq(plane[where], phase[where], rcond=None)[0]
    return phase - plane @ coefficients


def hann_windowed(image: np.ndarray) -> np.ndarray:
    """Image under a Hann window that reaches zero just outside."""
    return image * np.outer(*(np.hanning(n + 2)[1:-1] for n in image.shape))


class Registration(NamedTuple):
    """Shift (y, x) [pixels] that registers a moving image on a fixed one, and the result."""

    shift: np.ndarray
    image: np.ndarray


def register(fixed: np.ndarray, moving: np.ndarray, digits: int = 2) -> Registration:
    """Moving image shifted onto the fixed one, and the shift [pixels].

    To `digits` decimals of a pixel: the peak of the cross-correlation, refined by a matrix-product
    DFT around it (Guizar-Sicairos et al., Opt. Lett. 33, 156 (2008)). The constant phase between
    complex images is free; the sign of real ones is fixed, otherwise a lattice could match its
    gaps.
    """
    product = np.fft.fft2(fixed) * np.conj(np.fft.fft2(moving))
    size_of = np.abs if np.iscomplexobj(fixed) or np.iscomplexobj(moving) else np.real
    correlation = size_of(np.fft.ifft2(product))
    peak = highest_lag(correlation).astype(float)
    for digit in range(1, digits + 1):
        step = 10.0**-digit
        offsets = np.arange(-10, 11) * step
        ky, kx = (np.fft.fftfreq(n) for n in fixed.shape)
        rows = np.exp(2j * np.pi * np.outer(peak[0] + offsets, ky))
        columns = np.exp(2j * np.pi * np.outer(kx, peak[1] + offsets))
        fine = size_of(rows @ product @ columns)
        best = np.unravel_index(np.argmax(fine), fine.shape)
        peak = peak + offsets[np.array(best)]
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(moving), peak))
    return Registration(peak, moved if np.iscomplexobj(moving) else moved.real)


def correlation(first: Any, second: Any, where: np.ndarray | None = None) -> float:
    """Pearson's correlation of two images inside `where`."""
    where = np.ones(np.shape(first), bool) if where is None else where
    return float(np.corrcoef(np.ravel(first[where]), np.ravel(second[where]))[0, 1])


def slope(first: Any, second: Any, where: np.ndarray | None = None) -> float:
    """Factor a of the best fit second ≈ a·first + b inside `where`."""
    where = np.ones(np.shape(first), bool) if where is None else where
    return float(np.polyfit(np.ravel(first[where]), np.ravel(second[where]), 1)[0])
