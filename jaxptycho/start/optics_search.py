"""Search for the optics and the orientation of a scan, from nothing: `candidates`.

Shifts of the bright-field images give starts, and the centre of mass, which is free of curl in the
true orientation, others of small defoci. The likelihood of a weak object chooses among them.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data.orientation import SCAN_TRANSFORMS, orientation_matrix
from . import optics_fit
from .aliases import AliasedSidebands, aliased_sidebands
from .image_shifts import linear_shifts
from .optics_fit import BASE, Free, OpticsFit
from .sidebands import Sidebands, ring_power, sidebands_of, some_frequencies
from .superpixels import SuperpixelImages
from .weak_object_likelihood import NAMES, evidence_along

STRETCHES = np.linspace(0.6, 1.4, 16)  # of the aberrations of a start
NEAR_FOCUS = 20.0  # rad at the rim of the aperture, the range of defocus without shifts
NEAR_FOCUS_STEPS = 64
STARTS = 2  # of each handedness, that are improved
FIRST_STEPS = 5  # of every start
SAME_DEFOCUS = 0.5  # rad at the rim, within which optics are the same
SAME_ROTATION = 0.1  # rad
PLAIN = np.eye(2)
FLIPPED = np.diag([1.0, -1.0])
MIRRORS = (PLAIN, FLIPPED)


class Knowledge:
    """What the user knows, checked."""

    def __init__(self, sign: int | None, transform: str | None, rotation: float | None) -> None:
        if sign not in (None, -1, 1):
            raise ValueError(f"defocus_sign = {sign}; 1 (underfocus), -1 or None is required")
        if rotation is not None and transform is None:
            raise ValueError(
                "a rotation came without the transform that it follows; give transform, one of "
                f"{', '.join(SCAN_TRANSFORMS)}"
            )
        self.sign = sign
        self.transform = transform
        self.matrix = None if transform is None else orientation_matrix(transform, rotation or 0.0)
        self.fixed = rotation is not None

    @property
    def mirrors(self) -> tuple[Float[np.ndarray, "2 2"], ...]:
        """Handednesses that are possible."""
        if self.matrix is None:
            return MIRRORS
        return (PLAIN,) if np.linalg.det(self.matrix) > 0 else (FLIPPED,)


@dataclass(frozen=True)
class Problem:
    """Images of a scan, semiangle [rad], wavelength [Å], and what the user knows."""

    images: SuperpixelImages
    semiangle: float
    wavelength: float
    known: Knowledge

    @property
    def units(self) -> Float[np.ndarray, " p"]:
        """Change of every parameter by one radian at the rim."""
        return optics_fit.parameter_units(self.semiangle, self.wavelength)

    def bands(self, fit: OpticsFit | None = None) -> Sidebands:
        """Transforms of the images, in windows that move as the images do in a `fit`."""
        radius = self.semiangle / self.wavelength
        shifts = None if fit is None else _image_shifts(fit, self.images.k, self.wavelength)
        return sidebands_of(self.images, radius, self.wavelength, shifts)

    def aliased(self, fit: OpticsFit) -> AliasedSidebands:
        """Transforms by frequencies of the scan, in windows that move as the images do in `fit`."""
        radius = self.semiangle / self.wavelength
        shifts = _image_shifts(fit, self.images.k, self.wavelength)
        return aliased_sidebands(self.images, radius, self.wavelength, shifts)

    def free(self, free: Free) -> Free:
        """Those of the parameters that are unknown."""
        return free & (np.arange(len(free)) < len(free) - self.known.fixed)


def candidates(problem: Problem) -> list[OpticsFit]:
    """Fits of the best starts of each handedness, the best one first, all with defocus ≥ 0.

    Starts are compared and improved by some of the frequencies, and then by all.
    """
    bands = problem.bands()
    some = some_frequencies(bands)
    variance = ring_power(bands)
    starts = []
    for theta, mirror in _starts(problem, bands):
        values = evidence_along(theta, mirror, some, variance)
        starts.append((float(values.max()), theta[int(np.argmax(values))], mirror))
    free = problem.free(BASE)
    fits = []
    for mirror in problem.known.mirrors:
        chosen: list[Any] = []
        for _, theta, _ in sorted((s for s in starts if s[2] is mirror), key=lambda s: -s[0]):
            theta = _canonical(theta)
            new = not any(same_optics(theta, c, problem.units) for c in chosen)
            if len(chosen) < STARTS and new:
                chosen.append(theta)
        for theta in chosen:
            first = optics_fit.evaluated(theta, mirror, free, problem.units, some, variance)
            near = optics_fit.maximised(first, FIRST_STEPS).theta
            fits.append(optics_fit.evaluated(near, mirror, free, problem.units, bands, variance))
    best = max(fits, key=lambda f: f.value)
    fits = [
        f if optics_fit.excludes(best, f, optics_fit.FAR_BEHIND) else optics_fit.maximised(f)
        for f in fits
    ]
    fits = [f if f.theta[0] <= 0 else optics_fit.conjugate(f) for f in fits]
    return sorted(fits, key=lambda f: -f.value)


def _starts(problem, bands):
    """Lines of optics [n, p] to begin from, with their mirrors."""
    n = len(NAMES) + 1
    for found in linear_shifts(problem.images):
        theta, mirror = _decomposed(found.matrix / problem.images.width, problem.wavelength)
        line = np.repeat(theta[None], len(STRETCHES), 0)
        line[:, :3] *= STRETCHES[:, None]
        if problem.known.fixed:
            line[:, -1] = _given_rotation(problem.known, theta[-1])
        if any(mirror is m for m in problem.known.mirrors):
            yield line, mirror
    for mirror in problem.known.mirrors:
        line = np.zeros((NEAR_FOCUS_STEPS, n))
        angle = curl_free_rotation(bands, mirror)
        line[:, -1] = _given_rotation(problem.known, angle) if problem.known.fixed else angle
        line[:, 0] = problem.units[0] * np.linspace(-NEAR_FOCUS, NEAR_FOCUS, NEAR_FOCUS_STEPS)
        yield line, mirror


def _decomposed(matrix, wavelength):
    """Optics and mirror of a map from k [1/Å] to the shifts of images [Å], for defocus > 0."""
    left, values, right = np.linalg.svd(matrix)
    orientation = (left @ right).T
    mirror = PLAIN if np.linalg.det(orientation) > 0 else FLIPPED
    turn = orientation @ mirror
    # shifts are −∇χ/2π = −λ C k with C = [[C10 − C12a, C12b], [C12b, C10 + C12a]]
    lens = -(right.T * values) @ right / wavelength
    theta = np.zeros(len(NAMES) + 1)
    theta[0] = (lens[0, 0] + lens[1, 1]) / 2
    theta[1:3] = (lens[1, 1] - lens[0, 0]) / 2, lens[0, 1]
    theta[-1] = math.atan2(turn[1, 0], turn[0, 0])
    return theta, mirror


def _image_shifts(fit, k, wavelength):
    """Shifts (y, x) [Å] of the images of k [1/Å] in the frame of the positions."""
    c10, c12a, c12b = fit.theta[:3]
    lens = np.array([[c10 - c12a, c12b], [c12b, c10 + c12a]])
    return -wavelength * k @ lens @ orientation_matrix("none", fit.theta[-1]) @ fit.mirror


def curl_free_rotation(bands: Sidebands, mirror: Float[np.ndarray, "2 2"]) -> float:
    """Rotation [rad] of the scan after `mirror` for which the centre of mass has the least curl.

    That of a thin phase is its gradient, blurred: parallel to Q. Rotations by 180° are equal.
    """
    used = np.asarray(bands.used) > 0
    moments = np.asarray(bands.root)[:, None] * np.asarray(bands.k)
    centre = np.asarray(bands.g)[:, used].T @ moments
    q = np.asarray(bands.q)[used]
    along = q / np.hypot(*q.T)[:, None] @ mirror.T
    across = np.stack([-along[:, 1], along[:, 0]], -1)
    first, second = np.sum(along * centre, 1), np.sum(across * centre, 1)
    mixed = 2 * np.sum(first * second.conj()).real
    return 0.5 * math.atan2(mixed, np.sum(abs(first) ** 2) - np.sum(abs(second) ** 2))


def _given_rotation(known, near):
    """Known rotation of the scan after its mirror, of the two signs of defocus that near `near`."""
    turn = known.matrix @ known.mirrors[0]
    angle = math.atan2(turn[1, 0], turn[0, 0])
    return angle if math.cos(angle - near) > 0 else angle + math.pi


def _canonical(theta):
    """Of the two equal optics, that of defocus ≥ 0."""
    return theta if theta[0] <= 0 else np.append(-theta[:-1], theta[-1] + np.pi)


def same_optics(
    first: Float[np.ndarray, " p"],
    second: Float[np.ndarray, " p"],
    units: Float[np.ndarray, " p"],
) -> bool:
    """Whether optics hardly differ in defocus and rotation."""
    turn = abs((first[-1] - second[-1] + np.pi) % (2 * np.pi) - np.pi)
    return bool(abs(first[0] - second[0]) < SAME_DEFOCUS * units[0] and turn < SAME_ROTATION)
