"""What a slice holds: the same potential as the specimen part's, however it is sorted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho.physics import potentials, scattering, waves
from jaxptycho.physics.grids import Grid
from jaxptycho.simulate.stacks import Box, content, projected, transmissions

pytestmark = pytest.mark.usefixtures("quick_to_compile")

NUMBERS = np.array([38, 8, 22, 79, 6, 8])


def box(shape=(48, 45), pixel=(0.1, 0.12), slices=4):
    edges = np.arange(slices + 1) * 2.0
    origin = np.array([-3.0, 1.0, -2.0])
    return Box(origin, np.stack([edges[:-1], edges[1:]], 1), Grid(shape, pixel, 80.0))


def places(box, seed=0):
    """Atoms in the box, the first and last of them a little beyond its faces."""
    extent = np.array([8.0, *np.multiply(box.grid.shape, box.grid.pixel)])
    found = np.random.default_rng(seed).uniform(0.02, 0.98, (len(NUMBERS), 3)) * extent
    found[0, 0], found[1, 0] = -0.3, 8.2
    return found + box.origin


def direct(box, positions, debye_waller, projection):
    """By the function that the specimen part uses, in double precision."""
    faces = box.faces.copy()
    faces[0, 0], faces[-1, 1] = -1e4, 1e4
    slabs = jax.jit(potentials.slabs, static_argnums=(4, 5, 6))
    return slabs(
        jnp.asarray(positions - box.origin),
        jnp.asarray(debye_waller),
        scattering.gaussians(NUMBERS),
        jnp.asarray(faces),
        box.grid.shape,
        box.grid.pixel,
        potentials.PROJECTIONS[projection],
    )


@pytest.mark.parametrize("projection", ["finite", "infinite"])
@pytest.mark.parametrize("shape", [(48, 45), (45, 48)])
def test_sorted_atoms_have_the_potential_of_all(projection, shape):
    """Nothing that matters is left out, coarse spectra and the outer tails included."""
    own, debye_waller = box(shape), np.array([0.0, 0.5, 0.5, 0.0, 1.0, 0.5])
    found = content(NUMBERS, places(own), debye_waller, own, projection=projection)
    wanted = np.asarray(direct(own, places(own), debye_waller, projection))
    assert len(found.kinds) > 1
    difference = np.asarray(projected(found, own.grid)) - wanted
    assert np.linalg.norm(difference) < 3e-4 * np.linalg.norm(wanted)


def test_atoms_beside_the_box_are_left_out():
    own = box()
    inside = content(NUMBERS, places(own), np.zeros(6), own)
    beside = np.concatenate(
        [places(own), [[0.0, 0.9, 0.0], [0.0, 1.0 + 4.9, 0.0], [0.0, 2.0, 6.0]]]
    )
    more = content(np.append(NUMBERS, [79, 79, 79]), beside, np.zeros(9), own)
    for first, second in zip(inside.kinds, more.kinds, strict=True):
        np.testing.assert_array_equal(first.blobs.volume, second.blobs.volume)


def test_an_empty_box_is_vacuum():
    own = box()
    for projection in ("finite", "infinite"):
        found = content(NUMBERS[:0], np.zeros((0, 3)), np.zeros(0), own, projection=projection)
        np.testing.assert_array_equal(projected(found, own.grid), 0)


def test_transmissions_are_limited_phases():
    own = box(slices=2)
    found = content(NUMBERS, places(own), np.zeros(6), own)
    limit = np.asarray(waves.band_limit(own.grid))
    wanted = np.fft.ifft2(
        limit * np.fft.fft2(np.exp(1j * own.grid.sigma * np.asarray(projected(found, own.grid))))
    )
    np.testing.assert_allclose(transmissions(found, own.grid), wanted, atol=2e-5)
