"""Few numbers of the geometry, refined together with all that could absorb their errors.

A specimen and a free probe follow a wrong rotation, scale or defocus, and the gradient with
respect to the number vanishes although the number is wrong. Numbers g and the parameters s of
specimen and probe are therefore solved for together: a Gauss–Newton step minimises

    Σ (I − M − J_g δg − J_s δs)²/(M + ε) + |s + δs|²_prior

(the Fisher weights of Poisson counts) by conjugate gradients. The block of the inverse normal
matrix that belongs to g is its covariance with s unknown (the Cramér–Rao bound with a prior). Two
things keep the conjugate gradients few: the specimen moves with its scan
(`GeometryNumbers.moved`), after which a map of the scan is almost uncorrelated with it; and it has
a prior, a random phase of spectrum ∝ (k₀² + k²)⁻² with the variance of the present estimate,
without which noise in details that the patterns hardly determine makes scales too large at a low
dose.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..data import Dataset
from ..model import Model, predict, probe_positions
from ..parts.indexed import PerShot, select
from .geometry_numbers import GeometryNumbers, chosen_parameters, numbers_of
from .illumination import illumination
from .solvers.parameter_scaling import natural_units
from .step import path_of, trainable

FAINT = 0.1  # quanta, added to the variance of a pixel
BEND = 2.0  # k₀ of the prior [periods in a window]
MIN_DEVIATION = 0.05  # of the prior, in natural units (rad)
SEARCHES = 100  # conjugate gradients of a step
TOLERANCE = 1e-3  # of the conjugate gradients
BUDGET = 2.0**29  # bytes of waves kept for derivatives
KEPT_WAVES = 8  # waves kept for the derivatives of a slice


class Correction(NamedTuple):
    """Change of the numbers of a geometry in one step, and their errors."""

    names: tuple[str, ...]
    change: Float[np.ndarray, " k"]
    covariance: Float[np.ndarray, "k k"] | None  # with everything eliminated unknown

    @property
    def errors(self) -> Float[np.ndarray, " k"]:
        """Standard error of every number, NaN where it was not computed."""
        if self.covariance is None:
            return np.full(len(self.names), np.nan)
        return np.sqrt(np.diagonal(self.covariance))


class JointUnknowns(NamedTuple):
    """Changes of numbers and of all that is eliminated."""

    numbers: Float[Array, " k"]
    rest: list[Array]  # real; a complex array as [2, …]


class FittedPatterns(NamedTuple):
    """FittedPatterns that a step fits, in chunks that are differentiated one after the other."""

    shots: Int[Array, "c b"]
    counts: Float[Array, "c b v u"]
    weight: Float[Array, "c b"]


def refine_geometry(
    model: Model,
    data: Dataset,
    names: Sequence[str],
    *,
    eliminated: Sequence[str] = ("specimen", "probe"),
    shots: Int[np.ndarray, " n"] | None = None,
    together: bool = True,
    errors: bool = True,
    searches: int = SEARCHES,
) -> tuple[Model, Correction]:
    """The model after a Gauss–Newton step of the named numbers, and their change with its error.

    `names` are those of `geometry_numbers.SCAN`, `probe.defocus`, and paths of shared parameters
    (`probe.semiangle`, `detector.shift`, …); `eliminated` the parts or fields that are unknown as
    well. The specimen moves with a map of the scan, which keeps the mean of the positions of the
    `shots` used (by default all). What is eliminated takes its part of the step where `together`;
    of a few shots of a large scan it would fit these alone. The `errors` of each number take as
    many conjugate gradients, at most `searches`, as the step.
    """
    numbers, rest = require_separable(model, data, names, eliminated)
    used = np.arange(data.n_shots[0]) if shots is None else np.asarray(shots)
    about = jnp.asarray(probe_positions(model)[used].mean(0), float)
    patterns = _in_chunks(model, data, used)
    moved, change, covariance = _solved(
        model, numbers, rest, patterns, about, together, errors, searches
    )
    found = None if covariance is None else np.asarray(covariance, float)
    return moved, Correction(numbers.names, np.asarray(change, float), found)


def require_separable(
    model: Model, data: Dataset, names: Sequence[str], eliminated: Sequence[str]
) -> tuple[GeometryNumbers, tuple[str, ...]]:
    """The named numbers, and the paths of the parameters that are eliminated beside them.

    Raises ValueError for several views, and for parameters that no pattern tells from the numbers.
    """
    if data.n_views > 1:
        raise ValueError(
            f"the measurement has {data.n_views} views; a calibration requires one scan (the poses "
            "of views have steps of their own: step.N.poses)"
        )
    numbers = numbers_of(model, names)
    claimed = {*numbers.paths} | ({"probe.aberrations.C10"} if numbers.defocus else set())
    covered = chosen_parameters(trainable(model), tuple(eliminated))
    leaves = jax.tree_util.tree_leaves_with_path(covered)
    paths = tuple(dict.fromkeys(path_of(path) for path, _ in leaves))
    if numbers.scan and (free := [path for path in paths if path.startswith("scan.")]):
        raise ValueError(
            f"{free[0]} is unknown beside {numbers.scan[0]}, and no pattern tells them apart; "
            "leave one of them out"
        )
    of_probe = [name for name in numbers.names if name.startswith("probe.")]
    if of_probe and "probe.waves" in paths:
        raise ValueError(
            f"{of_probe[0]} is part of the free waves of the probe, which are refined as well; "
            'take probe.kind = "aberrated", or keep the waves fixed'
        )
    apart = tuple(p for p in paths if not any(f"{p}.".startswith(f"{c}.") for c in claimed))
    return numbers, apart


def block_of_shots(
    data: Dataset, shots: Int[np.ndarray, " n"], count: int, seed: int | Sequence[int] = 0
) -> Int[np.ndarray, " m"]:
    """At most `count` of the `shots`, those nearest to a random place of the scan.

    Neighbours overlap, which tells the geometry from the specimen.
    """
    if len(shots) <= count:
        return shots
    places = data.positions[0][shots]
    half = np.sqrt(count / len(shots)) * np.ptp(places, axis=0) / 2
    drawn = np.random.default_rng(seed).uniform(size=2)
    low, high = places.min(0) + half, places.max(0) - half
    distance = np.abs(places - (low + drawn * (high - low))).max(1)
    return np.sort(shots[np.argsort(distance, kind="stable")[:count]])


@eqx.filter_jit
def _solved(
    model: Model,
    numbers: GeometryNumbers,
    eliminated: tuple[str, ...],
    patterns: FittedPatterns,
    about: Float[Array, "2"],
    together: bool,
    errors: bool,
    searches: int,
) -> tuple[Model, Float[Array, " k"], Float[Array, "k k"] | None]:
    """The model after the step, change of the numbers, and their covariance if `errors`."""
    chosen = chosen_parameters(trainable(model), eliminated)
    leaves, tree = jax.tree.flatten(chosen)
    real = [_as_real(leaf) for leaf in leaves]
    none = JointUnknowns(jnp.zeros(len(numbers.names)), [jnp.zeros_like(leaf) for leaf in real])

    def joined(v: JointUnknowns) -> Model:
        sums = (a + b for a, b in zip(real, v.rest, strict=True))
        rest = tree.unflatten([_as(leaf, s) for leaf, s in zip(leaves, sums, strict=True)])
        return numbers.moved(eqx.combine(rest, model), v.numbers, about)

    here, slope = jax.linearize(lambda v: _predicted(joined(v), patterns.shots), none)
    root = jnp.sqrt(patterns.weight[..., None, None] / (jnp.maximum(here, 0) + FAINT))

    def push(v: JointUnknowns) -> Array:
        return root * slope(v)

    def pull(residual: Array) -> JointUnknowns:
        return jax.linear_transpose(push, none)(residual)[0]

    residual = root * (patterns.counts - here)
    units = _units(push, pull, none)
    prior = _priors(model, chosen, real)
    spectra = [p * u**2 for p, u in zip(prior.precision, units.rest, strict=True)]

    def normal(v: JointUnknowns) -> JointUnknowns:
        back = _times(units, pull(push(_times(units, v))))
        likely = [_filtered(p, a) + b for p, a, b in zip(spectra, v.rest, back.rest, strict=True)]
        return JointUnknowns(back.numbers, likely)

    def precondition(v: JointUnknowns) -> JointUnknowns:
        return v._replace(
            rest=[_filtered(1 / (1 + p), a) for p, a in zip(spectra, v.rest, strict=True)]
        )

    def solved(right: JointUnknowns) -> JointUnknowns:
        found, _ = jax.scipy.sparse.linalg.cg(
            normal, right, M=precondition, tol=TOLERANCE, maxiter=searches
        )
        return _times(units, found)

    slopes = _times(units, pull(residual))
    of_prior = zip(units.rest, prior.precision, prior.deviation, strict=True)
    pulled = [a - u * _filtered(p, s) for a, (u, p, s) in zip(slopes.rest, of_prior, strict=True)]
    rights = [slopes._replace(rest=pulled)]
    if errors:  # columns of the inverse of the normal matrix
        rights += [none._replace(numbers=row) for row in jnp.diag(units.numbers)]
    found = jax.lax.map(solved, jax.tree.map(lambda *entries: jnp.stack(entries), *rights))
    change = jax.tree.map(lambda a: a[0], found)
    misfit = jnp.sum(residual**2) / (jnp.sum(patterns.weight) * math.prod(here.shape[-2:]))
    covariance = jnp.maximum(misfit, 1) * found.numbers[1:] if errors else None
    step = change if together else none._replace(numbers=change.numbers)
    return joined(step), change.numbers, covariance


def _in_chunks(model: Model, data: Dataset, shots: Int[np.ndarray, " n"]) -> FittedPatterns:
    """The patterns of `shots`, in chunks whose waves fit into `BUDGET`."""
    waves = eqx.filter_eval_shape(lambda m: select(m.probe, PerShot, 0).spectrum(m.grid), model)
    slices = model.specimen.shapes(model.grid).transmission.shape[0]
    each = KEPT_WAVES * slices * math.prod(waves.shape) * waves.dtype.itemsize
    chunks = math.ceil(len(shots) * each / BUDGET)
    size = math.ceil(len(shots) / chunks)
    padding = chunks * size - len(shots)
    padded = np.pad(np.asarray(shots, np.int32), (0, padding), mode="edge")
    counts = jnp.asarray(data.patterns(0, padded), float)
    weight = np.pad(np.ones(len(shots)), (0, padding)).reshape(chunks, size)
    return FittedPatterns(
        jnp.asarray(padded.reshape(chunks, size)),
        counts.reshape(chunks, size, *counts.shape[1:]),
        jnp.asarray(weight, float),
    )


def _predicted(model: Model, shots: Int[Array, "c b"]) -> Float[Array, "c b v u"]:
    """Expected counts; the waves of several chunks are computed again for every derivative."""
    if len(shots) == 1:
        return predict(model, shots[0])[None]
    return jax.lax.map(jax.checkpoint(lambda chunk: predict(model, chunk)), shots)


def _units(
    push: Callable[[JointUnknowns], Array],
    pull: Callable[[Array], JointUnknowns],
    none: JointUnknowns,
) -> JointUnknowns:
    """Sizes of all unknowns that make the diagonal of the normal matrix about 1.

    Exact for numbers; for the rest one size for each array, by random signs z, since the mean of
    z·(N z) is the diagonal. Its entries weigh as much as they are, so that those which no pattern
    shows do not count.
    """
    each = jax.lax.map(
        lambda e: jnp.sum(push(none._replace(numbers=e)) ** 2), jnp.eye(len(none.numbers))
    )
    keys = jax.random.split(jax.random.key(0), len(none.rest))
    signs = [
        jax.random.rademacher(k, a.shape, a.dtype) for k, a in zip(keys, none.rest, strict=True)
    ]
    back = pull(push(none._replace(rest=signs)))
    sizes = [z * b for z, b in zip(signs, back.rest, strict=True)]
    means = [jnp.sum(d**2) / jnp.maximum(jnp.sum(jnp.abs(d)), 1e-30) for d in sizes]
    return JointUnknowns(_inverse_root(each), [_inverse_root(m) for m in means])


class Priors(NamedTuple):
    """Gaussian priors of what is eliminated, one entry for every array."""

    precision: list[Array]  # inverse spectrum; 0 without a prior
    deviation: list[Array]  # from its mean


def _priors(model: Model, chosen: Any, real: list[Array]) -> Priors:
    """Random planes of spectrum ∝ (k₀² + k²)⁻², of the variance that the illuminated part has."""
    illuminated = illumination(model)
    lit = illuminated > 0.5 * jnp.max(illuminated)
    sides = zip(lit.shape, model.grid.pixel, model.grid.dk, strict=True)
    ky, kx = (jnp.fft.fftfreq(n, pixel) / (BEND * dk) for n, pixel, dk in sides)
    inverse = (1 + ky[:, None] ** 2 + kx**2) ** 2
    inverse = inverse * jnp.mean(1 / inverse)
    held = {f"specimen.{name}" for name in model.specimen.held.values()}
    sizes = natural_units(trainable(model))
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(chosen)]
    of_leaf = dict(
        (path_of(path), size) for path, size in jax.tree_util.tree_leaves_with_path(sizes)
    )

    def of(path: str, values: Array) -> tuple[Array, Array]:
        if path not in held:
            return jnp.zeros(()), jnp.zeros_like(values)
        away = values - jnp.mean(values, (-2, -1), where=lit, keepdims=True)
        variance = jnp.mean(away**2, where=lit)
        return inverse / jnp.maximum(variance, (MIN_DEVIATION * of_leaf[path]) ** 2), away

    both = [of(path, values) for path, values in zip(paths, real, strict=True)]
    return Priors([p for p, _ in both], [d for _, d in both])


def _filtered(factor: Array, planes: Array) -> Array:
    """Planes with their spectrum multiplied by `factor`, a plane or one number."""
    if factor.ndim == 0:
        return factor * planes
    return jnp.fft.ifft2(factor * jnp.fft.fft2(planes)).real


def _times(units: JointUnknowns, v: JointUnknowns) -> JointUnknowns:
    return jax.tree.map(jnp.multiply, units, v)


def _inverse_root(value: Array) -> Array:
    return jnp.where(value > 0, 1 / jnp.sqrt(jnp.where(value > 0, value, 1)), 0)


def _as_real(leaf: Array) -> Array:
    return jnp.stack([leaf.real, leaf.imag]) if jnp.iscomplexobj(leaf) else leaf


def _as(leaf: Array, real: Array) -> Array:
    """Real parts in the form in which `leaf` is stored."""
    return jax.lax.complex(real[0], real[1]) if jnp.iscomplexobj(leaf) else real
