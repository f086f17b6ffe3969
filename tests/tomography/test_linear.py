"""Linear tomography: solutions that are known, by dense algebra, closed form, or noise-free data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho.inverse.denoising import total_variation_of, tv_step
from jaxptycho.tomography.linear import cgls, fista, sirt
from jaxptycho.tomography.projections import Geometry, Projector

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RNG = np.random.default_rng(1)
SIZE = (4, 5, 6)
PIXELS = (7, 7, 8)


class Dense(eqx.Module):
    """Any linear map will do: a matrix of short rays, quick to compile."""

    matrix: jax.Array

    def __call__(self, volume):
        return jnp.reshape(self.matrix @ jnp.ravel(volume), PIXELS)


TINY = Dense(jnp.asarray(RNG.uniform(0, 1, (392, 120)) * (RNG.uniform(size=(392, 120)) < 0.05)))
VOLUME = jnp.asarray(RNG.uniform(0.5, 1.5, SIZE))
IMAGES = jnp.asarray(RNG.normal(size=PIXELS))
WEIGHTS = jnp.asarray(RNG.uniform(0.2, 1.0, IMAGES.shape))
ZERO = jnp.zeros(SIZE)


def planes():
    """A constant and a plane for every view, one column each."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in IMAGES.shape[1:]), indexing="ij")
    return np.kron(np.eye(7), np.stack([np.ones(56), y.ravel(), x.ravel()], 1))


@pytest.mark.parametrize("free", ["nothing", "plane"])
def test_cgls_is_the_dense_solution(free):
    """With weights, a support, damping, and planes that are free."""
    matrix = np.asarray(TINY.matrix)
    support, root = np.arange(SIZE[2]) > 0, np.sqrt(WEIGHTS).ravel()
    inside = np.broadcast_to(support, SIZE).ravel()
    columns = (
        matrix[:, inside] if free == "nothing" else np.concatenate([matrix[:, inside], planes()], 1)
    )
    damped = np.diag(np.r_[np.full(inside.sum(), 0.1), np.zeros(columns.shape[1] - inside.sum())])
    rows = np.concatenate([root[:, None] * columns, damped])
    found = np.linalg.lstsq(
        rows, np.r_[root * np.ravel(IMAGES), np.zeros(len(damped))], rcond=None
    )[0]
    solved = cgls(
        TINY,
        IMAGES,
        ZERO,
        150,
        weights=WEIGHTS,
        support=inside.reshape(SIZE),
        free=free,
        damping=0.01,
    )
    np.testing.assert_allclose(solved.volume[..., 1:].ravel(), found[: inside.sum()], atol=1e-5)
    assert not np.any(solved.volume[..., 0])


@pytest.mark.parametrize("solver", [sirt, fista])
def test_noise_free_projections_are_met(solver):
    """Where more is measured than unknown, that gives the volume; offsets of the views do not matter."""
    offsets = jnp.arange(7.0)[:, None, None]
    solved = solver(TINY, TINY(VOLUME) + offsets, ZERO, 400, free="constant", positive=True)
    assert solved.residuals[-1] < 2e-3 * solved.residuals[0]
    np.testing.assert_allclose(solved.volume, VOLUME, atol=0.05)
    assert np.min(solver(TINY, IMAGES, ZERO, 20, positive=True).volume) == 0


def test_weights_of_views_leave_a_view_out():
    some = jnp.arange(7) != 3
    spoilt = TINY(VOLUME).at[3].add(100 * IMAGES[3])
    solved = cgls(TINY, spoilt, ZERO, 100, weights=1.0 * some)
    np.testing.assert_allclose(solved.volume, VOLUME, atol=1e-3)
    with pytest.raises(ValueError, match="one for each view"):
        cgls(TINY, IMAGES, ZERO, 1, weights=jnp.ones(4))


@pytest.mark.parametrize("solver", [sirt, cgls, fista])
def test_without_any_weight_a_volume_stays(solver):
    solved = solver(TINY, IMAGES, VOLUME, 3, weights=jnp.zeros(7))
    np.testing.assert_array_equal(solved.volume, VOLUME)
    np.testing.assert_array_equal(solved.residuals, 0)


def test_total_variation_draws_two_levels_together():
    """Of two flat parts, n₁ and n₂ voxels long, each comes towards the other by weight/nᵢ; their sum stays."""
    step = jnp.asarray(np.where(np.arange(8) < 3, 1.0, 5.0))[:, None, None] * jnp.ones((8, 8, 8))
    smoothed = jax.jit(
        lambda volume: tv_step(volume, 1.5, jnp.zeros((3, 8, 8, 8)), iterations=500)[0]
    )
    for axis in range(3):
        volume = jnp.moveaxis(step, 0, axis)
        smooth = smoothed(volume)
        wanted = jnp.where(volume == 1, 1 + 1.5 / 3, 5 - 1.5 / 5)
        np.testing.assert_allclose(smooth, wanted, atol=2e-3)
    np.testing.assert_allclose(total_variation_of(step), 4 * 64)


def test_total_variation_is_the_least_of_its_sum():
    """A proximal step is optimal: no nearby volume, nowhere negative, costs less."""
    volume, nothing = 0.3 + jnp.asarray(RNG.normal(size=SIZE)), jnp.zeros((3, *SIZE))

    def cost(candidate):
        return 0.5 * jnp.sum((candidate - volume) ** 2) + 0.4 * total_variation_of(candidate)

    best, _ = tv_step(volume, 0.4, nothing, positive=True, iterations=800)
    assert np.min(best) >= 0
    others = (
        jnp.maximum(best + size * jnp.asarray(RNG.normal(size=SIZE)), 0)
        for size in (1e-3, 1e-2, 0.1, 1.0) * 5
    )
    assert all(cost(best) < cost(other) + 1e-5 for other in others)


def test_total_variation_lowers_noise():
    flat = jnp.ones(SIZE)
    noisy = TINY(flat) + 0.1 * IMAGES
    errors = [
        np.linalg.norm(fista(TINY, noisy, flat, 60, tv=tv).volume - flat) for tv in (0.0, 0.1)
    ]
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("solver", [sirt, cgls, fista])
def test_solvers_are_differentiable(solver):
    """By the operator and the data, in reverse."""
    ways = (
        jnp.asarray(RNG.normal(size=IMAGES.shape)),
        TINY.matrix * jnp.asarray(RNG.normal(size=TINY.matrix.shape)),
    )

    def of(amount):
        return jnp.sum(
            VOLUME
            * solver(
                Dense(TINY.matrix + amount * ways[1]), IMAGES + amount * ways[0], ZERO, 4
            ).volume
        )

    slope = jax.grad(of)(0.0)
    np.testing.assert_allclose(slope, (of(1e-6) - of(-1e-6)) / 2e-6, rtol=1e-5)


@pytest.mark.slow
def test_a_volume_is_differentiable_by_the_geometry():
    """The derivative of the exact adjoint by tilts and shifts is part of it."""
    begin, ways = Geometry(np.linspace(-1.0, 1.0, 3)), RNG.normal(size=(3, 3))

    def of(amount):
        geometry = Geometry(
            begin.tilts + amount * ways[0], None, begin.shifts + amount * ways[1:].T
        )
        return jnp.sum(
            VOLUME * cgls(Projector(geometry, (0.5,) * 3, (7, 8)), IMAGES[:3], ZERO, 2).volume
        )

    slope = jax.grad(of)(0.0)
    np.testing.assert_allclose(slope, (of(1e-5) - of(-1e-5)) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_cgls_stays_at_its_solution(damping):
    """In single precision, where only rounding is left after fifty iterations."""
    single = [jnp.asarray(a, jnp.float32) for a in (TINY.matrix, IMAGES, WEIGHTS, ZERO)]
    matrix, images, weights, start = single
    weighted = np.ravel(WEIGHTS)[:, None] * np.asarray(TINY.matrix)
    normal = weighted.T @ np.asarray(TINY.matrix) + damping * np.eye(120)
    exact = np.linalg.solve(normal, weighted.T @ np.ravel(IMAGES))
    solved = cgls(Dense(matrix), images, start, 400, weights=weights, damping=damping)
    assert solved.volume.dtype == jnp.float32
    np.testing.assert_allclose(solved.volume.ravel(), exact, atol=3e-5)
