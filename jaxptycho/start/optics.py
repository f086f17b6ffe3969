"""Optics and orientation of a scan from its bright field: `measure_optics`.

Candidates (`optics_search`), compared by the likelihood of a weak object
(`weak_object_likelihood`), are refined by that of all aliases (`aliased_likelihood`), whose
curvature and scores give errors.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..data import Dataset
from ..data.orientation import SCAN_TRANSFORMS, nearest_transform, orientation_matrix
from ..direct.processor import over
from . import optics_fit
from .camera import MeasuredCamera, measure_camera
from .optics_fit import ALL
from .optics_search import MIRRORS, Knowledge, Problem, candidates, same_optics
from .optics_table import (
    SIGNIFICANT,
    DefocusCurve,
    ImageErrors,
    MeasuredOptics,
    implausible_orders,
    optics_rows,
)
from .phase_sign import phase_skewness
from .sidebands import some_frequencies
from .superpixels import SuperpixelImages, superpixels_of
from .weak_object_likelihood import NAMES, explained_along

CURVE_STEPS = 64
CURVE_RANGE = 2.5  # of the measured defocus, or
CURVE_RADIANS = 10.0  # at the rim, the larger one
HIGHER_ORDERS = 150.0  # χ² of five coefficients, beyond which they are fitted
HIGHER_SHOTS = 400  # of a scan; fewer have too few frequencies to tell them from a strong phase
DETECTED = 20.0  # ln L, below which no object is seen
SECOND_ORDER = 0.5  # relative error of the defocus over the scattered fraction of the electrons
STEP_MISMATCH = 0.01  # of disc radius × detector step against a given semiangle
STRONG = 0.3  # relative variation of the images, beyond which an object is not weak


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
    known = Knowledge(defocus_sign, transform, rotation)
    camera = measure_camera(data) if camera is None else camera
    images, angle, shared, cautions = _images(data, camera, semiangle)
    return optics_of(images, angle, data.grid.wavelength, known, shared, cautions)


def optics_of(
    images: SuperpixelImages,
    semiangle: float,
    wavelength: float,
    known: Knowledge,
    shared: ImageErrors | None = None,
    cautions: Sequence[str] = (),
) -> MeasuredOptics:
    """As `measure_optics`, from images of the disc of `semiangle` [rad].

    `cautions` are those of the images, `shared` their errors.
    """
    problem = Problem(images, semiangle, wavelength, known)
    fits = candidates(problem)
    first, rivals = _likeliest(problem, fits)
    best = _refined(problem, first)
    alone = best.theta, best.mirror, best.free, best.units, problem.bands(best)
    skewness = phase_skewness(optics_fit.evaluated(*alone), images.positions)
    swapped, settled = _pair(best, skewness, known)
    if swapped:
        best = optics_fit.conjugate(best)
    shared = ImageErrors() if shared is None else shared
    return _measured(problem, best, fits, rivals, settled, skewness, shared, cautions)


def _images(data, camera, semiangle):
    """Superpixel images, semiangle [rad], errors that they share, and cautions."""
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
    # electrons that are scattered twice, which a weak object lacks, draw the defocus towards zero
    spread = math.hypot(error if scale != 1.0 else 0.0, SECOND_ORDER * camera.scattered)
    descan = scale * _descan_errors(data, camera)
    return images, trusted_angle, ImageErrors(spread, descan), cautions


def _descan_errors(data, camera):
    """Standard errors [1/Å along Å] of the movement of the disc over the scan."""
    if camera.tiles is None:
        return np.zeros((2, 2))
    pixels = np.nan_to_num(camera.tiles.errors)
    extent = np.maximum(np.ptp(data.positions[0], axis=0), 1e-9)
    return pixels * np.reshape(data.grid.dk, (2, 1)) / extent


def _likeliest(problem, fits):
    """The most likely candidate by all aliases together, and others that the data do not exclude.

    By the likelihood of single frequencies, which aliases disturb, only what is far behind is left
    out. Each candidate sees the images in windows that move as it says.
    """
    likely = [fit for fit in fits if not optics_fit.excludes(fits[0], fit, optics_fit.FAR_BEHIND)]
    distinct = [fit for i, fit in enumerate(likely) if not _any_same(fit, likely[:i])]
    contenders = [_fit_of_aliases(problem, fit) for fit in distinct]
    best, *others = sorted(contenders, key=lambda fit: -fit.value)
    others = [fit for fit in others if not _any_same(fit, [best])]
    return best, [fit for fit in others if not optics_fit.excludes(best, fit, SIGNIFICANT)]


def _any_same(fit, others):
    return any(
        other.mirror is fit.mirror and same_optics(fit.theta, other.theta, fit.units)
        for other in others
    )


def _fit_of_aliases(problem, fit):
    again = fit.theta, fit.mirror, fit.free, fit.units, problem.aliased(fit)
    return optics_fit.maximised(optics_fit.evaluated(*again))


def _orientation(fit):
    return orientation_matrix("none", fit.theta[-1]) @ fit.mirror


def _refined(problem, fit):
    """The same `fit` in windows that move as it says, with higher aberrations where they count."""
    fit = _fit_of_aliases(problem, fit)
    free = problem.free(ALL)
    if len(problem.images.positions) < HIGHER_SHOTS:
        return fit
    first = optics_fit.evaluated(fit.theta, fit.mirror, free, fit.units, fit.bands, fit.variance)
    scatter = first.slopes.T @ first.slopes
    score = first.slopes.sum(0)
    chi2 = float(score @ np.linalg.pinv(scatter) @ score)  # of Lagrange multipliers
    return optics_fit.maximised(first) if chi2 > HIGHER_ORDERS else fit


def _pair(best, skewness, known):
    """Whether the conjugate optics are the answer, and whether anything decides that."""
    if known.sign is not None:
        return known.sign * best.theta[0] > 0, True
    if known.matrix is not None:
        return np.trace(_orientation(best) @ known.matrix.T) < 0, True
    return skewness.value < 0, abs(skewness.value) > SIGNIFICANT * skewness.error


def _measured(problem, best, fits, rivals, settled, skewness, shared, cautions):
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
    warnings += strength_cautions(problem)
    implausible = implausible_orders(best)
    if implausible:
        warnings.append(
            f"images shift with the angle as by {' and '.join(implausible)}, more than lenses "
            "have: is the diffraction pattern distorted, or the phase strong?"
        )
    aberrations = {
        name: float(value)
        for name, value, free in zip(NAMES, best.theta[:-1], best.free[:-1], strict=True)
        if free
    }
    depth = problem.wavelength / problem.semiangle**2
    return MeasuredOptics(
        transform,
        rotation,
        aberrations,
        problem.semiangle,
        depth,
        _evidence(best, fits),
        bool(alternatives),
        tuple(alternatives),
        len(rivals),
        skewness,
        _curve(best, fits),
        tuple(warnings),
        optics_rows(best, transform, rotation, problem.wavelength, shared),
    )


def _described(fit):
    transform, rotation = nearest_transform(_orientation(fit))
    return f"{transform} and {np.rad2deg(rotation):+.1f}° with defocus {-fit.theta[0]:.4g} Å"


def strength_cautions(problem: Problem) -> list[str]:
    """Caution for images that vary more than a weak object lets them."""
    counts = problem.images.counts
    mean = problem.images.mean
    relative = counts.sum(1, dtype=float) / mean.sum()
    # Σ_k (I − rm)(I′ − r′m) of consecutive shots, r their relative sums
    along = counts @ mean - relative * (mean @ mean)
    both = np.einsum("pk,pk->p", counts[1:], counts[:-1], dtype=float)
    covariance = both - relative[1:] * (counts[:-1] @ mean) - relative[:-1] * along[1:]
    covariance = covariance.mean() / np.sum(mean**2)
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
    some = some_frequencies(fits[0].bands)
    for mirror in MIRRORS:
        names = [n for n, m in SCAN_TRANSFORMS.items() if np.linalg.det(m) == np.linalg.det(mirror)]
        turns = [orientation_matrix(name, rotation) @ mirror for name in names]
        angles = np.array([math.atan2(turn[1, 0], turn[0, 0]) for turn in turns])
        lens = np.repeat(best.theta[None, :-1], 2 * len(names), 0)
        lens[len(names) :] *= -1
        thetas = np.c_[lens, np.tile(angles, 2)]
        values = explained_along(thetas, mirror, some)
        found |= dict(zip(names, np.maximum(*values.reshape(2, -1)), strict=True))
    for fit in fits:
        value = float(explained_along(fit.theta[None], fit.mirror, some)[0])
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
    some = some_frequencies(fits[0].bands)
    for fit in (best, *others):
        line = np.repeat(fit.theta[None], CURVE_STEPS, 0)
        line[:, 0] = -defocus
        transform, _ = nearest_transform(_orientation(fit))
        curves[transform] = explained_along(line, fit.mirror, some)
    return DefocusCurve(defocus, curves)
