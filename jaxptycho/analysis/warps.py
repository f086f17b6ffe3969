"""Least-squares registration of an image or a volume: displacement and contrast together.

In any number of dimensions. Positions are in Å from the central pixel `[n//2, …]` of the reference.
The derivatives are those of the reference, computed once, so that a step costs one resampling
(inverse composition: Baker & Matthews, Int. J. Comput. Vis. 56, 221 (2004)), with
Levenberg–Marquardt damping.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import (
    convolve1d,
    gaussian_filter,
    map_coordinates,
    spline_filter,
    spline_filter1d,
)

from ..inverse.least_squares import adapt_damping, normal_equations, solve_damped
from ..physics.types import Numbers

MAX_SAMPLES = 1_000_000  # largest number of samples of the reference in a fit
ORDER = {2: 5, 3: 3}  # of the splines between pixels, by dimension
STEPS = 30  # largest number of steps of a fit
BORDER = 8  # pixels by which an image is continued


class Sampled(NamedTuple):
    """Values on a regular grid with pixel `[0, …]` at `corner`."""

    values: np.ndarray
    pixel: np.ndarray  # Å, along every axis
    corner: np.ndarray  # Å
    periodic: bool = False

    def places(self, chosen: Any) -> np.ndarray:
        """Positions [Å] of the pixels of flat index `chosen`, axes first."""
        index = np.stack(np.unravel_index(chosen, self.values.shape))
        return self.corner[:, None] + self.pixel[:, None] * index


def sampled(values: Numbers, pixel: Numbers) -> Sampled:
    """Array on a grid with the central pixel at the origin; `pixel` [Å] is one number or one per
    axis.
    """
    values = np.asarray(values, np.result_type(values, float))
    pixel = np.broadcast_to(np.asarray(pixel, float), values.ndim)
    return Sampled(values, pixel, -(np.array(values.shape) // 2) * pixel)


def smoothed(image: Sampled, width: float) -> Sampled:
    """Image blurred by a Gaussian of standard deviation `width` [Å], subsampled accordingly."""
    blurred = gaussian_filter(image.values, width / image.pixel, mode="nearest")
    steps = np.maximum(1, np.floor(width / image.pixel)).astype(int)
    begin = (np.array(image.values.shape) // 2) % steps  # the central pixel is kept
    coarse = tuple(slice(b, None, s) for b, s in zip(begin, steps, strict=True))
    return Sampled(blurred[coarse], image.pixel * steps, image.corner + begin * image.pixel)


def eroded(where: np.ndarray, grid: Sampled, width: float) -> np.ndarray:
    """Mask on the pixels of `smoothed(grid, width)` without its border; everywhere if that is
    empty.
    """
    inner = smoothed(grid._replace(values=where.astype(float)), width).values > 0.9
    return inner if inner.any() else np.ones_like(inner)


class Warp(NamedTuple):
    """Map of a position r of the reference to matrix·r + shift."""

    matrix: np.ndarray
    shift: np.ndarray  # Å

    def __call__(self, places: np.ndarray) -> np.ndarray:
        return self.matrix @ places + self.shift[:, None]

    def before(self, turn: np.ndarray, shift: np.ndarray) -> "Warp":
        """Composition of this warp with the inverse of r → turn·r + shift."""
        matrix = self.matrix @ np.linalg.inv(turn)
        return Warp(matrix, self.shift - matrix @ shift)


class PhaseTone(NamedTuple):
    """Contrast of a real image: scale·reference + offset + ramp·r."""

    scale: float
    offset: float
    ramp: np.ndarray  # per Å

    def undone(self, values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Values without scale, offset and ramp."""
        return (values - self.offset - self.ramp @ places) / self.scale

    @staticmethod
    def columns(reference: np.ndarray, places: np.ndarray) -> Any:
        """Derivatives of the values with respect to scale, offset and ramp at 1, 0 and 0."""
        return [reference, np.ones_like(reference), *places]

    def then(self, steps: Any) -> "PhaseTone":
        """Composition of this tone with a small one."""
        steps = self.scale * steps
        return PhaseTone(self.scale + steps[0], self.offset + steps[1], self.ramp + steps[2:])


class WaveTone(NamedTuple):
    """Contrast of a complex image: scale·e^{i(offset + ramp·r)}·reference."""

    scale: float
    offset: float  # rad
    ramp: np.ndarray  # rad/Å

    def undone(self, values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Values without scale, offset and ramp."""
        return values * np.exp(-1j * (self.offset + self.ramp @ places)) / self.scale

    @staticmethod
    def columns(reference: np.ndarray, places: np.ndarray) -> Any:
        """Derivatives of the values with respect to scale, offset and ramp at 1, 0 and 0."""
        return [reference, 1j * reference, *(1j * reference * places)]

    def then(self, steps: Any) -> "WaveTone":
        """Composition of this tone with a small one."""
        return WaveTone(
            self.scale * np.exp(steps[0]), self.offset + steps[1], self.ramp + steps[2:]
        )


Tone = PhaseTone | WaveTone


class Fit(NamedTuple):
    """Warp and tone of the best fit of a reference to an image."""

    warp: Warp
    tone: Tone


def fit(
    reference: Sampled,
    other: Sampled,
    begin: Fit,
    generators: Sequence[np.ndarray] = (),
    tones: Sequence[int] = (0, 1, 2, 3),
    where: np.ndarray | None = None,
) -> Fit:
    """Least-squares fit of other(matrix·r + shift) to the reference with its tone.

    Free are the shift, the matrix along `generators` (antisymmetric for rotations), and the
    entries `tones` of the tone (0 scale, 1 offset, from 2 the ramp). Only positions `where` are
    used. The start must be within about half the finest detail of the images.
    """
    chosen = subsample(np.ones(reference.values.shape, bool) if where is None else where)
    places = reference.places(chosen)
    target = reference.values.ravel()[chosen]
    columns = derivatives(reference, chosen, begin.tone, generators, tones)
    sample = sampler(other)
    reach = np.abs(places).max()

    def seen(state: Fit) -> Any:
        values, depth = sample(state.warp(places))
        weight = np.clip(depth / BORDER, 0, 1)  # splines are least accurate near the edges
        missing = state.tone.undone(values, places) - target
        return (
            missing,
            weight,
            state.tone.scale**2 * (weight @ np.abs(missing) ** 2) / max(weight.sum(), 1e-9),
        )

    state = begin
    damping = 1e-6
    missing, weight, cost = seen(state)
    for _ in range(STEPS):
        step = solve_damped(*normal_equations(columns, missing, weight), damping)
        trial, moved = changed(state, step, generators, tones, reach)
        result = seen(trial)
        # a fit must not improve by a loss of overlap
        better = result[2] <= cost and result[1].sum() > weight.sum() / 2
        damping = float(adapt_damping(damping, better))
        done = False
        if better:
            done = result[2] > (1 - 1e-8) * cost
            state = trial
            (missing, weight, cost) = result
        if done or moved < 1e-5 * reference.pixel.min():
            break
    return state


def derivatives(
    reference: Sampled, chosen: Any, tone: Tone, generators: Any, tones: Any
) -> np.ndarray:
    """Derivatives of the reference [parameter, place] with respect to tone, shift and matrix."""
    places = reference.places(chosen)
    slopes = [gradient(reference, axis).ravel()[chosen] for axis in range(reference.values.ndim)]
    turns = [
        sum(s * p for s, p in zip(slopes, generator @ places, strict=True))
        for generator in generators
    ]
    tonal = tone.columns(reference.values.ravel()[chosen], places)
    return np.stack([*(tonal[i] for i in tones), *slopes, *turns])


def changed(
    state: Fit, step: np.ndarray, generators: Any, tones: Any, reach: float
) -> tuple[Fit, float]:
    """State after a step, and the displacement [Å] by the step at a distance `reach` [Å]."""
    dimensions = len(state.warp.shift)
    tonal, shift, angles = np.split(step, [len(tones), len(tones) + dimensions])
    tone_step = np.zeros(2 + dimensions)
    same = np.eye(dimensions)
    tone_step[list(tones)] = tonal
    half = np.tensordot(angles, generators, 1) / 2 if len(generators) else 0 * same
    # Cayley's transform: a rotation for antisymmetric matrices
    turn = np.linalg.solve(same - half, same + half)
    moved = float(np.abs(shift).max() + np.abs(turn - same).max() * reach)
    return Fit(state.warp.before(turn, shift), state.tone.then(tone_step)), moved


def applied(state: Fit, reference: Sampled, other: Sampled) -> tuple[np.ndarray, np.ndarray]:
    """The other image on the reference's pixels without warp and tone, and the area it covers.

    0 beyond its edges.
    """
    sample = sampler(other)
    size = reference.values.size
    values = np.zeros(size, other.values.dtype)
    inside = np.zeros(size, bool)
    for begin in range(0, size, MAX_SAMPLES):
        part = np.arange(begin, min(begin + MAX_SAMPLES, size))
        places = reference.places(part)
        seen, depth = sample(state.warp(places))
        inside[part] = depth >= 0
        values[part] = np.where(inside[part], state.tone.undone(seen, places), 0)
    return values.reshape(reference.values.shape), inside.reshape(reference.values.shape)


def sampler(image: Sampled) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Function of positions [axis, place] (Å): image values by splines, and depth [pixels].

    The depth is the distance from the nearest edge, negative beyond it.
    """
    mode = "grid-wrap" if image.periodic else "mirror"
    order = ORDER[image.values.ndim]
    last = np.array(image.values.shape) - 1
    corner = image.corner
    values = image.values
    if not image.periodic:  # continued smoothly, otherwise splines would have zero slope at edges
        values = np.pad(values, BORDER, "reflect", reflect_type="odd")
        corner = corner - BORDER * image.pixel
    weights = spline_filter(values, order, output=values.dtype.type, mode=mode)

    def sample(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = (places - corner[:, None]) / image.pixel[:, None]
        steps = (places - image.corner[:, None]) / image.pixel[:, None]
        depth = np.minimum(steps, last[:, None] - steps).min(0)
        depth = np.full_like(depth, np.inf) if image.periodic else depth + 1e-6
        return map_coordinates(weights, index, order=order, mode=mode, prefilter=False), depth

    return sample


def gradient(image: Sampled, axis: int) -> np.ndarray:
    """Derivative along an axis [per Å] of the quintic spline through the values."""
    weights = spline_filter1d(image.values, 5, axis, output=image.values.dtype.type, mode="mirror")
    return (
        convolve1d(weights, np.array([1, 10, 0, -10, -1]) / 24, axis, mode="mirror")
        / image.pixel[axis]
    )


def subsample(where: np.ndarray) -> np.ndarray:
    """Flat indices of at most `MAX_SAMPLES` pixels `where`, sampled with a fixed seed."""
    found = np.flatnonzero(where)
    return (
        found
        if len(found) <= MAX_SAMPLES
        else np.sort(np.random.default_rng(0).choice(found, MAX_SAMPLES, replace=False))
    )
