"""Filter and smoother of a series: dense least squares, calibration, lost targets, symmetry."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxptycho.acquisition import Belief, Exposures, GeometryPrior, TargetMeasurement, aim
from jaxptycho.acquisition.smoothing import (
    maximum_a_posteriori,
    negative_log_posterior,
    square_root,
)

TILTS = np.deg2rad([0.0, 3.0, -3.0, -6.0, 6.0])
PLACES = np.array([[0.0, 0.0, 0.0], [2e4, 4e4, 0.0], [-4e4, 2e4, 0.0]])
N, K = len(PLACES), len(TILTS)
SIGMA = 20.0
LINEAR = GeometryPrior(motion=30.0)
EXTENDED = GeometryPrior(lateral=SIGMA, angle_error=5e-4, azimuth=5e-3, matrix=1e-2)


def exposures():
    delay = 15.0 * np.arange(1, N + 1)[:, None] + np.zeros(K)
    return Exposures.of(TILTS, (TILTS < 0).astype(int), delay, np.arange(K) * 3.0)


def plan():
    """Target, tilt and reference: the first absolute, then pairs with the two tilts before."""
    rows = [(i, k, r) for k in range(K) for i in range(N) for r in {max(k - 1, -1), k - 2}]
    return np.array([(i, k, r if k else -1) for i, k, r in rows if k == 0 or r >= 0])


def measured(true, noise):
    """Measurements of the plan, of a true geometry and normal noise."""
    target, tilt, reference = plan().T
    zero = np.zeros((len(tilt), 3))
    nothing = TargetMeasurement.of(target, tilt, reference, zero, zero + SIGMA)
    return eqx.tree_at(lambda m: m.value, nothing, SIGMA * (noise - residuals(true, nothing)))


def drawn(prior, seed):
    """A geometry from the prior, and measurements of it with noise."""
    rng = np.random.default_rng(seed)
    belief = prior.belief(PLACES, exposures())
    mean, unravel = ravel_pytree(belief.mean)
    true = unravel(mean + square_root(belief.covariance) @ rng.normal(size=len(mean)))
    return true, measured(true, rng.normal(size=(len(plan()), 3)))


@jax.jit
def residuals(geometry, measurements):
    return jax.vmap(lambda m: m.residual(geometry, exposures()))(measurements)


def dense(belief, measurements):
    """Posterior of the linear problem by one solution of all measurements."""
    mean, unravel = ravel_pytree(belief.mean)
    rows = jax.jacfwd(lambda v: residuals(unravel(v), measurements).ravel())(mean)
    slope = -np.asarray(rows)
    prior = np.asarray(belief.covariance)
    variance = slope @ prior @ slope.T + np.eye(len(slope))
    gain = np.linalg.solve(variance, slope @ prior).T
    after = mean + gain @ np.asarray(residuals(belief.mean, measurements)).ravel()
    return after, prior - gain @ slope @ prior


def vector(belief):
    return ravel_pytree(belief.mean)[0]


@pytest.fixture(scope="module")
def linear():
    _, measurements = drawn(LINEAR, 0)
    belief = LINEAR.belief(PLACES, exposures())
    return belief, measurements, belief.observe(exposures(), measurements, np.inf, np.inf)[0]


def test_filter_is_dense_least_squares(linear):
    belief, measurements, filtered = linear
    mean, covariance = dense(belief, measurements)
    np.testing.assert_allclose(vector(filtered), mean, atol=1e-8 * np.abs(mean).max())
    scale = np.sqrt(np.diag(belief.covariance))
    scale = np.outer(scale, scale) + 1.0
    np.testing.assert_allclose(filtered.covariance / scale, covariance / scale, atol=1e-8)


def test_smoother_of_a_linear_series_is_the_filter(linear):
    belief, measurements, filtered = linear
    smoothed = maximum_a_posteriori(belief, exposures(), measurements, 1, np.inf)
    np.testing.assert_allclose(vector(smoothed), vector(filtered), atol=1e-4)
    np.testing.assert_allclose(smoothed.covariance, filtered.covariance, atol=0.1)


def test_order_of_targets_and_of_measurements_changes_nothing(linear):
    _, measurements, filtered = linear
    order = np.array([2, 0, 1])
    permuted = eqx.tree_at(lambda e: e.delay, exposures(), exposures().delay[order])
    other = eqx.tree_at(lambda m: m.target, measurements, jnp.argsort(order)[measurements.target])
    shuffled = np.random.default_rng(1).permutation(len(other.target))
    other = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)[shuffled]), other)
    after, _ = LINEAR.belief(PLACES[order], permuted).observe(permuted, other, np.inf, np.inf)
    np.testing.assert_allclose(after.mean.targets, filtered.mean.targets[order], atol=1e-4)
    for i in range(N):
        ours = after.predict(permuted, i, K - 1)
        same = filtered.predict(exposures(), int(order[i]), K - 1)
        np.testing.assert_allclose(ours.shift, same.shift, atol=1e-4)
        np.testing.assert_allclose(ours.sigma, same.sigma, rtol=1e-6)


def test_predictions_are_calibrated():
    """90 % of errors before an exposure within 1.645 σ, in 200 series drawn from the prior."""
    belief = LINEAR.belief(PLACES, exposures())
    mean, unravel = ravel_pytree(belief.mean)
    root = square_root(belief.covariance)
    rng = np.random.default_rng(2)
    normal = rng.normal(size=(200, len(mean)))
    noise = rng.normal(size=(200, len(plan()), 3))

    @jax.jit
    @jax.vmap
    def errors(normal, noise):
        true = unravel(mean + root @ normal)
        seen = jax.tree.map(lambda a: a[: len(plan()) - 2 * N], measured(true, noise))
        after, innovation = belief.observe(exposures(), seen, np.inf, np.inf)
        found = [after.predict(exposures(), i, K - 1) for i in range(N)]
        means = jnp.stack([jnp.append(f.shift, f.focus) for f in found])
        there = jnp.stack([aim(true, exposures(), i, K - 1) for i in range(N)])
        return (there - means) / jnp.stack([f.sigma for f in found]), innovation.normalised

    for normalised in errors(normal, noise):
        assert abs(np.mean(np.abs(normalised) < 1.645) - 0.9) < 0.03
        assert abs(np.std(normalised) - 1.0) < 0.06


def test_gross_errors_are_reported_and_change_nothing(linear):
    belief, measurements, _ = linear
    wrong = [11, len(plan()) - 1]
    bad = eqx.tree_at(
        lambda m: m.value, measurements, measurements.value.at[jnp.array(wrong)].add(5e4)
    )
    after, innovation = belief.observe(exposures(), bad)
    assert np.flatnonzero(innovation.lost).tolist() == wrong
    without = eqx.tree_at(
        lambda m: m.sigma, measurements, measurements.sigma.at[jnp.array(wrong)].set(np.inf)
    )
    expected, _ = belief.observe(exposures(), without)
    np.testing.assert_allclose(vector(after), vector(expected), atol=1e-6)
    np.testing.assert_allclose(after.covariance, expected.covariance, atol=1e-6)


def test_beyond_huber_an_innovation_counts_with_its_square_root_less(linear):
    _, _, filtered = linear
    predicted = filtered.predict(exposures(), 0, 1)
    x = float(predicted.shift[0])
    deviation = float(np.hypot(predicted.sigma[0], SIGMA))

    def moved(by):
        one = TargetMeasurement.of(0, 1, -1, [x + by * deviation, 0, 0], [SIGMA, np.inf, np.inf])
        after, innovation = filtered.observe(exposures(), one)
        assert abs(innovation.normalised[0] - by) < 1e-6
        return float(after.predict(exposures(), 0, 1).shift[0]) - x

    assert moved(5.0) == pytest.approx(moved(3.0))  # the influence of Huber's loss is constant
    assert moved(2.0) == pytest.approx(moved(3.0) * 2 / 3)
    assert moved(7.0) == 0.0


def test_programs_in_single_precision_get_double(linear):
    belief, measurements, filtered = linear
    with jax.enable_x64(False):
        after, _ = belief.observe(exposures(), measurements, np.inf, np.inf)
        predicted = after.predict(exposures(), 1, 2)
        assert predicted.sigma.dtype == predicted.shift.dtype == np.float64
    np.testing.assert_array_equal(vector(after), vector(filtered))


def test_a_confirmed_jump_of_the_stage_is_followed(linear):
    belief, measurements, _ = linear
    early = jax.tree.map(lambda a: a[: len(plan()) - 2 * N], measurements)
    known, _ = belief.observe(exposures(), early)
    jump = TargetMeasurement.of(
        0,
        K - 1,
        0,
        known.predict(exposures(), 0, K - 1).shift[0] + np.array([3e5, 0, 0]),
        [SIGMA] * 3,
    )
    _, innovation = known.observe(exposures(), jump)
    assert innovation.lost
    wide, innovation = known.widen(K - 1, 3e5).observe(exposures(), jump)
    assert not innovation.lost
    assert wide.mean.stage[K - 1, 0] - known.mean.stage[K - 1, 0] > 2.5e5


@pytest.fixture(scope="module")
def extended():
    true, measurements = drawn(EXTENDED, 3)
    prior = EXTENDED.belief(PLACES, exposures())
    return true, prior, measurements, maximum_a_posteriori(prior, exposures(), measurements)


def test_angles_azimuth_and_matrix_are_found_with_their_errors(extended):
    true, prior, _, found = extended
    unknown = np.flatnonzero(np.diag(prior.covariance) > 0)
    error = np.asarray(vector(found) - ravel_pytree(true)[0])[unknown]
    covariance = np.asarray(found.covariance)[np.ix_(unknown, unknown)]
    squared = error @ np.linalg.solve(covariance, error)
    assert abs(squared - len(unknown)) < 4 * np.sqrt(2 * len(unknown))

    def optics(geometry):
        cos, sin = np.cos(geometry.azimuth), np.sin(geometry.azimuth)
        return np.asarray(geometry.matrix) @ np.array([[cos, -sin], [sin, cos]])

    wrong_before = np.abs(optics(prior.mean) - optics(true)).max()
    assert np.abs(optics(found.mean) - optics(true)).max() < wrong_before / 2


def test_gradient_of_the_posterior_is_that_of_finite_differences(extended):
    _, prior, measurements, found = extended
    root = square_root(prior.covariance)

    @jax.jit
    def loss(u):
        return negative_log_posterior(u, prior, root, exposures(), measurements)

    rng = np.random.default_rng(5)
    u = jnp.asarray(rng.normal(size=len(root)) * 0.1)
    gradient = jax.jit(jax.grad(loss))(u)
    for direction in rng.normal(size=(4, len(u))):
        step = 1e-5
        finite = (loss(u + step * direction) - loss(u - step * direction)) / (2 * step)
        np.testing.assert_allclose(direction @ gradient, finite, rtol=1e-6)
    inverse = np.linalg.pinv(np.asarray(root), rcond=1e-10)
    best = inverse @ (vector(found) - vector(prior))
    assert np.abs(jax.jit(jax.grad(loss))(best)).max() < 1e-3
    assert isinstance(found, Belief)
