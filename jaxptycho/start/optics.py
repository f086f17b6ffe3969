"""Optics and orientation of a scan from its bright field: `measure_optics`.

Shifts of the bright-field images give a start from nothing (`image_shifts`), the centre of mass,
which is free of curl in the true orientation, another one for small defoci. Both are refined by the
likelihood of a weak object (`weak_object_likelihood`), whose curvature and scores give errors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..data import Dataset
from ..data.orientation import SCAN_TRANSFORMS, nearest_transform, orientation_matrix
from ..direct.processor import over
from . import optics_fit
from .camera import MeasuredCamera, measure_camera
from .image_shifts import linear_shifts
from .optics_fit import ALL, BASE
from .optics_table import SIGNIFICANT, DefocusCurve, MeasuredOptics, optics_rows
from .phase_sign import phase_skewness
from .sidebands import Sidebands, ring_power, sidebands_of
from .superpixels import SuperpixelImages, superpixels_of
from .weak_object_likelihood import NAMES, evidence_along, explained_along

BATCH = 16  # optics evaluated together
STRETCHES = np.linspace(0.6, 1.4, BATCH)  # of the aberrations of a start
NEAR_FOCUS = 20.0  # rad at the rim of the aperture, the range of defocus without shifts
NEAR_FOCUS_STEPS = 4 * BATCH
CURVE_STEPS = 4 * BATCH
CURVE_RANGE = 2.5  # of the measured defocus, or
CURVE_RADIANS = 10.0  # at the rim, the larger one
ROUNDS = 2  # of fit and noise
HIGHER_ORDERS = 100.0  # χ² of five coefficients, from which they are kept
HIGHER_SHOTS = 400  # of a scan; fewer have too few frequencies to tell them from a strong phase
DETECTED = 20.0  # ln L, below which no object is seen
SAME_DEFOCUS = 0.5  # rad at the rim, within which optics are the same
SAME_ROTATION = 0.1  # rad
STEP_MISMATCH = 0.01  # of disc radius × detector step against a given semiangle
STRONG = 0.3  # relative variation of the images, beyond which an object is not weak
PLAIN = np.eye(2)
FLIPPED = np.diag([1.0, -1.0])
MIRRORS = (PLAIN, FLIPPED)


def measure_optics(
    data: Dataset,
    *,
    camera: MeasuredCamera | None = None,
    semiangle: float | None = None,
    defocus_sign: int | None = None,
    transform: str | None = None,
    rotation: float | None = None,
    view: int = 0,
) -> MeasuredOptics:
    """Defocus, astigmatism, coma, spherical aberration and orientation of a scan, with errors.

    Reads the patterns once, and again to measure the `camera` if that is not given. `semiangle`
    [rad], if given, is trusted more than the detector's step. What is known
    restricts the answer: the sign of the defocus (1 is underfocus), the `transform` of the scan's
    axes (up to a rotation by 45°), and the `rotation` [rad] after it, which is then not fitted.
    Raises ValueError without a bright-field disc, as in a near field.
    """
    if data.n_views > 1:
        data = data.view(view)
    known = _Knowledge(defocus_sign, transform, rotation)
    camera = measure_camera(data) if camera is None else camera
    images, angle, spread, cautions = _images(data, camera, semiangle)
    wavelength = data.grid.wavelength
    problem = _Problem(images, angle, wavelength, known)
    fits = _candidates(problem)
    rivals = _rivals(fits)
    best = _refined(problem, fits[0])
    skewness = phase_skewness(best, images.positions)
    swapped, settled = _pair(best, skewness, known)
    if swapped:
        best = optics_fit.conjugate(best)
    return _measured(problem, best, fits, rivals, settled, skewness, spread, cautions)


class _Knowledge:
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
    def mirrors(self):
        """Handednesses that are possible."""
        if self.matrix is None:
            return MIRRORS
        return (PLAIN,) if np.linalg.det(self.matrix) > 0 else (FLIPPED,)


@dataclass(frozen=True)
class _Problem:
    images: SuperpixelImages
    semiangle: float
    wavelength: float
    known: _Knowledge

    @property
    def units(self):
        return optics_fit.parameter_units(self.semiangle, self.wavelength)

    def bands(self) -> Sidebands:
        return sidebands_of(self.images, self.semiangle / self.wavelength, self.wavelength)

    def free(self, free: Any) -> Any:
        return free & (np.arange(len(free)) < len(free) - self.known.fixed)


def _images(data, camera, semiangle):
    """Superpixel images, semiangle [rad], relative error of the detector's step, and cautions."""
    disc = camera.disc
    if disc is None:
        raise ValueError(
            "the mean pattern has no bright-field disc, from which defocus and orientation are "
            "measured; in-line holograms of a near field are not supported, and patterns of "
            "another arrangement require data.zero_frequency"
        )
    shown = camera.rows()["semiangle_mrad"]
    stated = data.about.get("semiangle_mrad") if semiangle is None else 1e3 * semiangle
    if stated is not None and not stated > 0:
        raise ValueError(f"a semiangle of {stated} mrad; a positive angle is required")
    error = shown.error / shown.value
    ratio = 1.0 if stated is None else float(stated) / shown.value
    differ = abs(ratio - 1) > max(STEP_MISMATCH, SIGNIFICANT * error)
    scale = ratio if differ and semiangle is not None else 1.0
    cautions = []
    if differ:
        trusted = "the detector's step" if semiangle is None else "the semiangle"
        cautions.append(
            f"the semiangle of {stated:.4g} mrad differs from that of the disc, {shown.value:.4g} "
            f"mrad by the detector's step, by {100 * (ratio - 1):+.1f} %; {trusted} was trusted"
        )
    trusted_angle = 1e-3 * scale * shown.value
    mask = np.ones(data.grid.shape, bool) if data.mask is None else np.asarray(data.mask, bool)
    for bad in camera.bad_pixels.values():
        mask = mask & ~bad
    centres = np.asarray(disc.centre) + camera.shifts
    (images,) = over(data, superpixels_of(data.grid, mask, disc.radius, centres, scale))
    spread = error if scale != 1.0 else 0.0
    return images, trusted_angle, spread, cautions


def _candidates(problem):
    """Fits of the best starts of each handedness, the best one first, all with defocus > 0."""
    bands = problem.bands()
    variance = ring_power(bands)
    starts = []
    for theta, mirror in _starts(problem, bands):
        values = _batched(evidence_along, theta, mirror, bands, jnp.asarray(variance))
        starts.append((float(values.max()), theta[int(np.argmax(values))], mirror))
    fits = []
    for mirror in problem.known.mirrors:
        chosen: list[Any] = []
        for _, theta, _ in sorted((s for s in starts if s[2] is mirror), key=lambda s: -s[0]):
            theta = _canonical(theta)
            if len(chosen) < 2 and not any(_same(theta, c, problem.units) for c in chosen):
                chosen.append(theta)
        free = problem.free(BASE)
        for theta in chosen:
            first = optics_fit.evaluated(theta, mirror, free, problem.units, bands, variance)
            fits.append(optics_fit.maximised(first, 3))
    fits = [f if f.theta[0] <= 0 else optics_fit.conjugate(f) for f in fits]
    return sorted(fits, key=lambda f: -f.value)


def _starts(problem, bands):
    """Lines of optics [n, p] to begin from, with their mirrors."""
    n = len(NAMES) + 1
    for found in linear_shifts(problem.images):
        theta, mirror = _decomposed(found.matrix / problem.images.width, problem.wavelength)
        line = np.repeat(theta[None], BATCH, 0)
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


def _batched(function: Callable, thetas, mirror, bands, *more):
    """`function` of optics [n, p], as many at once as it was compiled for."""
    values = []
    for i in range(0, len(thetas), BATCH):
        rows = np.resize(thetas[i : i + BATCH], (BATCH, thetas.shape[1]))
        arrays = jnp.asarray(rows, jnp.float32), jnp.asarray(mirror, jnp.float32)
        values.append(np.asarray(function(*arrays, bands, *more), float))
    return np.concatenate(values)[: len(thetas)]


def _canonical(theta):
    """Of the two equal optics, that of defocus ≥ 0."""
    return theta if theta[0] <= 0 else np.append(-theta[:-1], theta[-1] + np.pi)


def _same(first, second, units):
    turn = abs((first[-1] - second[-1] + np.pi) % (2 * np.pi) - np.pi)
    return abs(first[0] - second[0]) < SAME_DEFOCUS * units[0] and turn < SAME_ROTATION


def _rivals(fits):
    """Other fits that the data do not exclude."""
    best, *others = fits
    return [
        other
        for other in others
        if not (other.mirror is best.mirror and _same(other.theta, best.theta, best.units))
        and optics_fit.significance(best, other) < SIGNIFICANT
    ]


def _orientation(fit):
    return orientation_matrix("none", fit.theta[-1]) @ fit.mirror


def _refined(problem, fit):
    """Fit with the noise that it leaves, and with higher aberrations where they count."""
    for _ in range(ROUNDS):
        again = fit.theta, fit.mirror, fit.free, fit.units, fit.bands
        fit = optics_fit.maximised(optics_fit.evaluated(*again))
    if len(problem.images.positions) < HIGHER_SHOTS:
        return fit
    free = problem.free(ALL)
    first = optics_fit.evaluated(fit.theta, fit.mirror, free, fit.units, fit.bands, fit.variance)
    higher = optics_fit.maximised(first, 4)
    added = (~BASE)[free]
    values = higher.theta[free][added]
    found = optics_fit.covariance(higher)[np.ix_(added, added)]
    chi2 = values @ np.linalg.pinv(found) @ values
    return higher if chi2 > HIGHER_ORDERS else fit


def _pair(best, skewness, known):
    """Whether the conjugate optics are the answer, and whether anything decides that."""
    if known.sign is not None:
        return known.sign * best.theta[0] > 0, True
    if known.matrix is not None:
        return np.trace(_orientation(best) @ known.matrix.T) < 0, True
    return skewness.value < 0, abs(skewness.value) > SIGNIFICANT * skewness.error


def _measured(problem, best, fits, rivals, settled, skewness, spread, cautions):
    transform, rotation = nearest_transform(_orientation(best))
    other = optics_fit.conjugate(best)
    alternatives = [] if settled else [_described(other)]
    for rival in rivals:
        alternatives += [_described(rival), _described(optics_fit.conjugate(rival))]
    warnings = list(cautions)
    if best.value < DETECTED:
        warnings.append(
            "the bright field shows no object above its noise: nothing here is determined"
        )
    if not settled:
        warnings.append(
            f"a rotation by 180° with the opposite defocus gives the same patterns "
            f"({_described(best)}, or {_described(other)}), and the skewness of the phase, "
            f"{skewness.amount}, does not decide; give defocus_sign or transform"
        )
    if rivals:
        warnings.append(
            "the data do not exclude other optics: " + "; ".join(map(_described, rivals))
        )
    warnings += _strength(problem)
    aberrations = {
        name: float(value)
        for name, value, free in zip(NAMES, best.theta[:-1], best.free[:-1], strict=True)
        if free
    }
    return MeasuredOptics(
        transform,
        rotation,
        aberrations,
        problem.semiangle,
        _evidence(best, fits),
        bool(alternatives),
        tuple(alternatives),
        skewness,
        _curve(best, fits),
        tuple(warnings),
        optics_rows(best, transform, rotation, spread),
    )


def _described(fit):
    transform, rotation = nearest_transform(_orientation(fit))
    return f"{transform} and {np.rad2deg(rotation):+.1f}° with defocus {-fit.theta[0]:.4g} Å"


def _strength(problem):
    """Caution for images that vary more than a weak object lets them."""
    counts = problem.images.counts
    mean = counts.mean(0)
    relative = counts.sum(1, keepdims=True) / mean.sum()
    change = counts - relative * mean
    covariance = np.mean(np.sum(change[1:] * change[:-1], 1)) / np.sum(mean**2)
    rms = math.sqrt(max(float(covariance), 0.0))
    if rms < STRONG:
        return []
    return [
        f"the bright-field images vary by {rms:.2f} of their mean: the specimen is thick or its "
        "phase strong, where the picture of a weak object is qualitative"
    ]


def _evidence(best, fits):
    """J of every transform with the rotation and aberrations of the best fit, or better ones."""
    _, rotation = nearest_transform(_orientation(best))
    found = {}
    for mirror in MIRRORS:
        names = [n for n, m in SCAN_TRANSFORMS.items() if np.linalg.det(m) == np.linalg.det(mirror)]
        turns = [orientation_matrix(name, rotation) @ mirror for name in names]
        angles = np.array([math.atan2(turn[1, 0], turn[0, 0]) for turn in turns])
        lens = np.repeat(best.theta[None, :-1], 2 * len(names), 0)
        lens[len(names) :] *= -1
        thetas = np.c_[lens, np.tile(angles, 2)]
        values = _batched(explained_along, thetas, mirror, best.bands)
        found |= dict(zip(names, np.maximum(*values.reshape(2, -1)), strict=True))
    for fit in fits:
        value = float(_batched(explained_along, fit.theta[None], fit.mirror, best.bands)[0])
        for one in (fit, optics_fit.conjugate(fit)):
            name, _ = nearest_transform(_orientation(one))
            found[name] = max(found[name], value)
    return {name: float(found[name]) for name in SCAN_TRANSFORMS}


def _curve(best, fits):
    """J of the best fit of each handedness over defocus of both signs."""
    reach = max(CURVE_RANGE * abs(best.theta[0]), CURVE_RADIANS * best.units[0])
    defocus = np.linspace(-reach, reach, CURVE_STEPS)
    curves = {}
    others = [f for f in fits if f.mirror is not best.mirror][:1]
    for fit in (best, *others):
        line = np.repeat(fit.theta[None], CURVE_STEPS, 0)
        line[:, 0] = -defocus
        transform, _ = nearest_transform(_orientation(fit))
        curves[transform] = _batched(explained_along, line, fit.mirror, best.bands)
    return DefocusCurve(defocus, curves)
