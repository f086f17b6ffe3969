"""Projections of a volume: closed forms, the exact adjoint, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.tomography.projections import Geometry, Projector, project, require_series

pytestmark = pytest.mark.usefixtures("quick_to_compile")

VOXEL = (0.5, 0.4, 0.5)
TILTS = np.array([-0.8, 0.1, 0.9])
ANGLES = np.array([[0.03, -0.02], [-0.05, 0.04], [0.02, 0.06]])
SHIFTS = np.array([[0.3, -0.7], [-1.1, 0.45], [0.25, 0.5]])
SHAPE = (34, 36)


def blob(place, width=1.0, shape=(30, 36, 32), amplitude=3.0):
    """A Gaussian at `place` (z, y, x) [Å] from the middle voxel."""
    axes = (np.arange(n) * p - n // 2 * p - r for n, p, r in zip(shape, VOXEL, place, strict=True))
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return jnp.asarray(amplitude * np.exp(-(z**2 + y**2 + x**2) / (2 * width**2)))


@pytest.mark.parametrize("angles", [None, ANGLES], ids=["tilt", "all"])
def test_a_gaussian_stands_where_it_was_turned_and_moved(angles):
    """Its projection is known: A√(2π)s·exp(−|r−r₀|²/2s²), with r₀ = Π R r + τ."""
    place = np.array([1.6, -1.1, 2.2])
    seen = eqx.filter_jit(Projector(Geometry(TILTS, angles, SHIFTS), VOXEL, SHAPE))(blob(place))
    euler = np.concatenate([TILTS[:, None], np.zeros((3, 2)) if angles is None else angles], 1)
    for view, (rotation, shift) in enumerate(zip(rotation_matrices(euler), SHIFTS, strict=True)):
        y0, x0 = (rotation @ place)[1:] + shift
        y, x = ((np.arange(n) - n // 2) * p for n, p in zip(SHAPE, VOXEL[1:], strict=True))
        wanted = 3 * np.sqrt(2 * np.pi) * np.exp(-(((y - y0) ** 2)[:, None] + (x - x0) ** 2) / 2)
        np.testing.assert_allclose(seen[view], wanted, atol=0.02)


def test_adjoint_and_derivative():
    """⟨A V, P⟩ = ⟨V, Aᵀ P⟩, and the derivative by the geometry against differences."""
    rng = np.random.default_rng(0)
    volume, images = (
        jnp.asarray(rng.normal(size=(8, 9, 10))),
        jnp.asarray(rng.normal(size=(3, 11, 8))),
    )
    geometry = Geometry(TILTS, ANGLES, SHIFTS)

    @jax.jit
    def paired(volume, geometry):
        return jnp.sum(images * project(volume, 0.5, geometry, (11, 8)))

    value, (adjoint, slopes) = jax.jit(jax.value_and_grad(paired, (0, 1)))(volume, geometry)
    np.testing.assert_allclose(jnp.sum(volume * adjoint), value, rtol=1e-12)
    ways = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), geometry)
    ends = (jax.tree.map(lambda g, w, s=s: g + s * w, geometry, ways) for s in (1e-6, -1e-6))
    difference = np.subtract(*(paired(volume, end) for end in ends)) / 2e-6
    slope = sum(jax.tree.leaves(jax.tree.map(lambda s, w: jnp.sum(s * w), slopes, ways)))
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_of_a_flat_volume_nothing_is_cut_off_along_the_beam():
    flat = blob((0.0, 0.0, 6.0), 0.7, shape=(12, 20, 40))
    seen = project(flat, VOXEL, Geometry(np.array([0.0, 1.2])))
    np.testing.assert_allclose(jnp.sum(seen[0]), jnp.sum(flat) * VOXEL[0], rtol=1e-4)
    np.testing.assert_allclose(jnp.sum(seen[1]), jnp.sum(flat) * VOXEL[0], rtol=1e-3)


def test_refusals():
    images, tilts = np.zeros((3, 20, 20)), np.deg2rad([-40.0, 0.0, 60.0])
    good = Geometry(tilts)
    require_series(images, 0.5, good, (20, 20, 20))
    with pytest.raises(ValueError, match="give two angles"):
        Geometry(tilts, angles=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="stack views of one grid"):
        require_series(images[0], 0.5, good, (20, 20, 20))
    with pytest.raises(ValueError, match="3 tilts came with 2 projections"):
        require_series(images[:2], 0.5, good, (20, 20, 20))
    with pytest.raises(ValueError, match="tells nothing of the depth"):
        require_series(images, 0.5, Geometry(np.full(3, 0.2)), (20, 20, 20))
    with pytest.raises(ValueError, match="view 1 holds values that are not finite"):
        require_series(
            np.where(np.arange(3)[:, None, None] == 1, np.nan, images), 0.5, good, (20, 20, 20)
        )
    with pytest.raises(ValueError, match="in view 2, at 60°; give it more voxels"):
        require_series(images, 0.5, good, (4, 20, 20))
