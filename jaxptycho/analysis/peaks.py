"""Peaks of an image or a volume: Gaussians fitted to them on the device."""

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from ..inverse.least_squares import adapt_damping, normal_equations, solve_damped
from ..physics.types import Numbers, Scalar
from .maxima import local_maxima
from .shells import per_axis

ITERATIONS = 60  # of Levenberg and Marquardt, with updated contributions of neighbours
BATCH = 256  # windows that are in memory at once
NEIGHBOURS = 32  # largest number; the nearest are used
REACH = 2.5  # window radii, largest distance of a neighbour


class Peaks(NamedTuple):
    """Gaussians A·exp(−Σ(r − c)²/2σ²) + b, one for each peak; axes as in the image."""

    positions: Float[np.ndarray, "n d"]  # Å
    amplitude: Float[np.ndarray, " n"]  # of the image's unit
    sigma: Float[np.ndarray, "n d"]  # Å
    background: Float[np.ndarray, " n"]  # of the image's unit
    residual: Float[np.ndarray, " n"]  # root mean square in the window, relative to the amplitude

    @property
    def integral(self) -> Float[np.ndarray, " n"]:
        """Integral A·Π σ√(2π) of every peak [image's unit × Å^d]."""
        return self.amplitude * np.prod(np.sqrt(2 * np.pi) * self.sigma, axis=1)

    def where(self, chosen: Any) -> "Peaks":
        """Only the `chosen` peaks, by a mask or by their numbers."""
        return Peaks(*(values[chosen] for values in self))


def find_peaks(
    image: Numbers,
    spacing: Numbers,
    threshold: float,
    distance: float,
    radius: Numbers | None = None,
    origin: Numbers = 0.0,
    smooth: float | None = None,
) -> Peaks:
    """Gaussians fitted to the local maxima of an image or a volume, the brightest first.

    `spacing` [Å], one or one for each axis, is that of pixels or voxels, `origin` [Å] the position
    of the first. Maxima exceed `threshold` and are at least `distance` [Å] from any brighter one;
    windows have the `radius` [Å], one or one for each axis, by default `distance`. `smooth` [Å]
    is the standard deviation of a Gaussian that blurs a noisy image before the search for maxima;
    the fits use the original image.
    """
    image = np.asarray(image)
    spacing = np.array(per_axis(spacing, image.ndim, "spacing of pixels"))
    seen = image if smooth is None else gaussian_filter(image.astype(float), smooth / spacing)
    maxima = local_maxima(seen, spacing, threshold, distance)
    fitted = fit_peaks(image, spacing, maxima, distance if radius is None else radius)
    return fitted._replace(positions=fitted.positions + np.asarray(origin, float))


def fit_peaks(
    image: Numbers, spacing: Numbers, maxima: Int[np.ndarray, "n d"], radius: Numbers
) -> Peaks:
    """Gaussians with a separate width along every axis, and a background, at the `maxima`.

    Least squares weighted by (1 − u²)², u the distance from the peak's centre in units of `radius`
    [Å] (one or one for each axis): the window follows the centre continuously, so that it biases
    no symmetric peak, Gaussian or not. The contributions of other peaks to a window are
    subtracted, so that overlapping peaks are fitted together. The radius is best two to four σ.
    All peaks take a fixed number of Levenberg–Marquardt steps in parallel.
    """
    image = np.asarray(image)
    spacing = np.array(per_axis(spacing, image.ndim, "spacing of pixels"))
    radius = np.array(per_axis(radius, image.ndim, "radius of the windows"))
    if not len(maxima):
        none = np.zeros(0)
        nowhere = np.zeros((0, image.ndim))
        return Peaks(nowhere, none, nowhere, none, none)
    half = tuple(int(np.ceil(r / s)) for r, s in zip(radius, spacing, strict=True))
    if min(half) < 1 or any(n < 2 for n in image.shape):
        raise ValueError(
            f"windows of radius {radius} Å on pixels of {spacing} Å of an image of {image.shape} "
            "pixels hold too little for a fit; give a larger radius, or sum the axis that is too "
            "short"
        )
    values = jnp.asarray(image, float)
    padded = np.concatenate(
        [maxima, np.repeat(maxima[:1], _rounded(len(maxima)) - len(maxima), axis=0)]
    )
    others, counted = _neighbours(maxima * spacing / radius, len(padded))
    lengths = (jnp.asarray(v, values.dtype) for v in (padded * spacing, spacing, radius))
    fitted = _fit(values, others, counted, *lengths, half)
    return Peaks(*(np.asarray(v[: len(maxima)], float) for v in fitted))


class _Gaussian(NamedTuple):
    """Parameters of a fit; the logarithm of σ keeps it positive."""

    amplitude: Scalar | Float[Array, "..."]
    background: Scalar | Float[Array, "..."]
    centre: Float[Array, "... d"]
    log_sigma: Float[Array, "... d"]


class _Window(NamedTuple):
    values: Float[Array, "..."]
    weight: Float[Array, "..."]
    axes: tuple[Float[Array, " w"], ...]  # coordinates [Å]


@partial(jax.jit, static_argnames="half")
def _fit(image, others, counted, start, spacing, radius, half):
    padded = jnp.pad(image, [(h, h) for h in half])
    cut = partial(_cut, padded, image.shape, spacing, radius, half)
    peaks = jax.lax.map(partial(_first_guess, cut, radius), start, batch_size=BATCH)

    def improve(_: Any, state: Any) -> Any:
        peaks, damping = state
        around = jax.tree.map(lambda values: values[others], peaks)
        mine = (peaks, damping, around, counted, start)
        return jax.lax.map(lambda one: _step(cut, spacing, radius, *one), mine, batch_size=BATCH)

    damping = jnp.full(len(start), 1e-2, image.dtype)
    peaks, _ = jax.lax.fori_loop(0, ITERATIONS, improve, (peaks, damping))
    around = jax.tree.map(lambda values: values[others], peaks)
    residual = jax.lax.map(
        lambda one: _misfit(cut, *one), (peaks, around, counted), batch_size=BATCH
    )
    return peaks.centre, peaks.amplitude, jnp.exp(peaks.log_sigma), peaks.background, residual


def _cut(padded, shape, spacing, radius, half, centre) -> _Window:
    """Window around the pixel nearest to `centre`, of weight 0 beyond `radius` and the image."""
    middle = jnp.clip(jnp.round(centre / spacing).astype(int), 0, jnp.asarray(shape) - 1)
    values = jax.lax.dynamic_slice(padded, middle, [2 * h + 1 for h in half])
    places = [middle[a] + jnp.arange(-h, h + 1) for a, h in enumerate(half)]
    axes = tuple(p * s for p, s in zip(places, spacing, strict=True))
    inside = [(p >= 0) & (p < n) for p, n in zip(places, shape, strict=True)]
    u2 = _outer(jnp.add, [((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radius, strict=True)])
    weight = jnp.where(_outer(jnp.logical_and, inside), jnp.maximum(1 - u2, 0) ** 2, 0)
    return _Window(values, weight, axes)


def _first_guess(cut, radius, centre) -> _Gaussian:
    window = cut(centre)
    low = jnp.min(jnp.where(window.weight > 0, window.values, jnp.inf))
    top = jnp.max(jnp.where(window.weight > 0.5, window.values, low))
    return _Gaussian(top - low, low, centre, jnp.log(radius / 2.5))


def _step(cut, spacing, radius, peak: _Gaussian, damping, around, counted, start):
    """Step of Levenberg and Marquardt, if it reduces the misfit; the peak and its new damping."""
    window = cut(peak.centre)
    goal = window.values - _sum(around, counted, window.axes)
    flat, unravel = ravel_pytree(peak)

    def model(p: jax.Array) -> jax.Array:
        return (jnp.sqrt(window.weight) * _evaluate(unravel(p), window.axes)).ravel()

    def cost(p: jax.Array) -> jax.Array:
        return jnp.sum((model(p) - seen) ** 2)

    seen = (jnp.sqrt(window.weight) * goal).ravel()
    jacobian = jax.jacfwd(model)(flat)
    move = solve_damped(*normal_equations(jacobian.T, seen - model(flat)), damping)
    tried = unravel(flat + move)
    tried = tried._replace(
        centre=jnp.clip(tried.centre, start - radius, start + radius),
        log_sigma=jnp.clip(
            jnp.clip(tried.log_sigma, peak.log_sigma - 0.5, peak.log_sigma + 0.5),
            jnp.log(0.2 * spacing),
            jnp.log(2 * radius),
        ),
    )
    better = cost(ravel_pytree(tried)[0]) < cost(flat)  # False for NaN
    peak = jax.tree.map(lambda new, old: jnp.where(better, new, old), tried, peak)
    return peak, adapt_damping(damping, better)


def _misfit(cut, peak, around, counted):
    window = cut(peak.centre)
    rest = window.values - _sum(around, counted, window.axes) - _evaluate(peak, window.axes)
    return jnp.sqrt(jnp.sum(window.weight * rest**2) / jnp.sum(window.weight)) / jnp.abs(
        peak.amplitude
    )


def _evaluate(peak: _Gaussian, axes):
    return peak.amplitude * _outer(jnp.multiply, _profiles(peak, axes)) + peak.background


def _profiles(peak: _Gaussian, axes):
    """Profiles of a Gaussian along the axes, whose product it is."""
    each = zip(axes, peak.centre, jnp.exp(peak.log_sigma), strict=True)
    return [jnp.exp(-(((x - c) / s) ** 2) / 2) for x, c, s in each]


def _sum(around: _Gaussian, counted: Bool[Array, " k"], axes):
    """Contribution of the peaks `around` to a window, without their backgrounds."""
    profiles = jax.vmap(lambda one: _profiles(one, axes))(around)
    letters = "abc"[: len(axes)]
    amplitudes = jnp.where(counted, around.amplitude, 0)
    formula = ",".join(["k", *(f"k{letter}" for letter in letters)]) + "->" + letters
    return jnp.einsum(formula, amplitudes, *profiles, precision="highest")


def _outer(combine, vectors):
    n = len(vectors)
    return reduce(
        combine, (v.reshape([-1 if a == i else 1 for a in range(n)]) for i, v in enumerate(vectors))
    )


def _rounded(n: int) -> int:
    """Size of at least `n`: full batches, or a power of two, to limit compilations."""
    return -(-n // BATCH) * BATCH if n > BATCH else max(8, 1 << (n - 1).bit_length())


def _neighbours(places, rows: int) -> tuple[Int[np.ndarray, "n k"], Bool[np.ndarray, "n k"]]:
    """Numbers of the peaks that reach into the window of each peak, and a mask of valid ones.

    The unit of length is the window's radius. For `rows` peaks, of which those after the last of
    `places` have no neighbours.
    """
    tree = KDTree(places)
    most = int(np.max(tree.query_ball_point(places, REACH, return_length=True))) - 1
    columns = min(max(4, 1 << max(most - 1, 0).bit_length()), NEIGHBOURS)
    # without the peak itself
    distance, index = (np.asarray(v)[:, 1:] for v in tree.query(places, columns + 1))
    others = np.zeros((rows, columns), np.int32)
    counted = np.zeros((rows, columns), bool)
    counted[: len(places)] = distance < REACH
    others[: len(places)] = np.where(distance < REACH, index, 0)
    return others, counted
