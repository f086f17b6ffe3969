"""Volumes turned: the adjoint, what is conserved, sinograms, convergence, derivatives, and atoms turned as atoms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from models import rng

from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.kernels.resampling import INTERPOLATIONS
from jaxptycho.physics import potentials, scattering, volumes
from jaxptycho.simulate.phantoms.arrange import rotate_atoms

KERNELS = list(INTERPOLATIONS)
beam_slices = jax.jit(volumes.beam_slices, static_argnums=(1, 2), static_argnames="kernel")
ANGLES, SHIFT = jnp.array([0.06, -0.04]), jnp.array([0.4, -0.3, 0.5])


def blobs(places, width, count=12, radius=5.0):
    """Gaussians at random places of a ball, at places [..., (z, y, x)] Å."""
    random = rng(3)
    directions, heights = random.normal(size=(count, 3)), random.uniform(0.5, 1.5, count)
    centres = (
        directions
        / np.linalg.norm(directions, axis=1, keepdims=True)
        * radius
        * random.uniform(0, 1, (count, 1))
    )
    return sum(
        h * np.exp(-np.sum((places - c) ** 2, -1) / (2 * width**2))
        for c, h in zip(centres, heights, strict=True)
    )


def places(shape, voxel):
    index = np.moveaxis(np.indices(shape), 0, -1)
    return (index - np.array(shape) // 2) * np.array(voxel)


def error(found, truth):
    return float(jnp.linalg.norm(found - truth) / np.linalg.norm(truth))


def turned(volume, voxel, tilt, kernel="cubic", slices=1, **more):
    frame = volumes.frame(volume.shape, voxel, slices)
    return beam_slices(jnp.asarray(volume), voxel, frame, jnp.asarray(tilt), kernel=kernel, **more)


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.parametrize(
    ("kernel", "voxel"),
    [("linear", (0.5, 0.4, 0.6)), ("cubic", (1.1, 0.4, 0.4)), ("cubic", (0.4, 0.4, 0.4))],
)
@pytest.mark.parametrize("more", [{}, {"angles": ANGLES, "shift": SHIFT}], ids=["tilt", "all"])
def test_adjoint_is_exact(kernel, voxel, more):
    shape = (6, 7, 10)
    volume = jnp.asarray(rng(0).normal(size=shape))
    frame = volumes.frame(shape, voxel, 2, field=(9, 8))

    @jax.jit
    def both(volume, tilt):
        answer, back = jax.vjp(
            lambda v: volumes.beam_slices(v, voxel, frame, tilt, kernel=kernel, **more), volume
        )
        other = jnp.asarray(rng(1).normal(size=answer.shape))
        return jnp.vdot(answer, other), jnp.vdot(volume, back(other)[0])

    for tilt in (0.0, 0.7, -1.3, 3.0):
        there, back = both(volume, jnp.asarray(tilt))
        np.testing.assert_allclose(there, back, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.parametrize("kernel", KERNELS)
def test_angles_and_shifts_have_their_derivatives(kernel):
    """Against central differences, backwards and forwards."""
    voxel, shape = (0.5, 0.4, 0.6), (6, 7, 8)
    volume, weights = (
        jnp.asarray(rng(0).normal(size=shape)),
        jnp.asarray(rng(1).normal(size=(3, 7, 8))),
    )
    frame, start = volumes.frame(shape, voxel, 3), jnp.array([0.7, 0.06, -0.04, 0.4, -0.3, 0.5])

    def total(numbers):
        found = volumes.beam_slices(
            volume, voxel, frame, numbers[0], numbers[1:3], numbers[3:], kernel
        )
        return jnp.vdot(found, weights)

    value, steps = jax.jit(total), 1e-6 * np.eye(6)
    measured = [(value(start + step) - value(start - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(jax.jit(jax.grad(total))(start), measured, rtol=1e-5)
    forwards = jax.jit(lambda way: jax.jvp(total, (start,), (way,))[1])
    np.testing.assert_allclose(forwards(jnp.arange(6.0)), np.dot(measured, np.arange(6)), rtol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_untilted_slices_are_sums_of_voxels(kernel):
    volume, voxel = rng(0).normal(size=(8, 5, 6)), (0.5, 0.4, 0.6)
    found = turned(volume, voxel, 0.0, kernel, 4)
    np.testing.assert_allclose(found, 0.5 * volume.reshape(4, 2, 5, 6).sum(1), atol=1e-12)


def test_the_other_side_is_the_mirror_image():
    """θ + 180° turns z and x about, and what was the last slice is the first."""
    volume, voxel = np.zeros((9, 5, 11)), (0.4, 0.4, 0.4)
    volume[1:-1, :, 1:-1] = rng(0).normal(size=(7, 5, 9))
    front, back = (turned(volume, voxel, tilt, slices=3) for tilt in (0.4, 0.4 + np.pi))
    np.testing.assert_allclose(front, back[::-1, :, ::-1], atol=1e-10)


@pytest.mark.parametrize(("kernel", "tolerance"), [("linear", 5e-3), ("cubic", 1e-4)])
def test_mass_is_conserved(kernel, tolerance):
    voxel = (0.5, 0.5, 0.5)
    volume = blobs(places((40, 32, 40), voxel), 0.8)
    for tilt in (0.3, 1.0, 2.5):
        found = turned(volume, voxel, tilt, kernel, 4, angles=ANGLES, shift=SHIFT)
        np.testing.assert_allclose(jnp.sum(found), 0.5 * volume.sum(), rtol=tolerance)


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.parametrize("voxel", [(0.5, 0.4, 0.6), (0.4, 0.4, 0.4)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_planes_turned_alone_are_those_of_a_turn_in_space_without_small_angles(kernel, voxel):
    """The path that is three times as fast, and its transpose, with fewer rows than the volume has and with more, of which
    those beyond it are left out: a cubic spline that is turned about x, too, is not yet zero there.
    """
    shape = 6, 7, 10
    volume = jnp.asarray(rng(0).normal(size=shape))
    for rows in (5, 9):
        frame = volumes.frame(shape, voxel, 2, field=(rows, 8))
        inside = volumes.resized(jnp.ones((2, 7, 8)), rows)
        other = jnp.asarray(rng(1).normal(size=inside.shape))

        def both(volume, frame=frame, inside=inside, other=other, **more):
            def seen(v):
                return inside * volumes.beam_slices(v, voxel, frame, 0.7, kernel=kernel, **more)

            answer, back = jax.vjp(seen, volume)
            return answer, back(other)[0]

        fast, slow = (
            jax.jit(both)(volume),
            jax.jit(lambda v, both=both: both(v, angles=jnp.zeros(2)))(volume),
        )
        for one, other_way in zip(fast, slow, strict=True):
            np.testing.assert_allclose(one, other_way, atol=1e-12)


@pytest.mark.parametrize(("kernel", "elsewhere"), [("linear", 0.1), ("cubic", 0.1)])
def test_sinograms_are_straight_in_the_middle_and_sines_elsewhere(kernel, elsewhere):
    """x′ = x cos θ + z sin θ for the centre of mass of a voxel's projection."""
    shape, voxel, theta = (33, 1, 33), (0.5, 0.5, 0.5), np.linspace(-1.2, 1.2, 9)
    frame = volumes.frame(shape, voxel, 1)
    x = (np.arange(33) - 16) * 0.5

    @jax.jit
    @jax.vmap
    def centre(tilt, volume):
        sums = volumes.beam_slices(volume, voxel, frame, tilt, kernel=kernel)[0, 0]
        return jnp.vdot(sums, x) / jnp.sum(sums)

    for z, column in ((16, 16), (22, 9)):
        volume = np.zeros(shape)
        volume[z, 0, column] = 1.0
        expected = x[column] * np.cos(theta) + x[z] * np.sin(theta)
        found = centre(jnp.asarray(theta), jnp.broadcast_to(volume, (9, *shape)))
        np.testing.assert_allclose(found, expected, atol=1e-10 if z == 16 else elsewhere)


@pytest.mark.parametrize(("kernel", "order"), [("linear", 2), ("cubic", 4)])
def test_resamplers_converge(kernel, order):
    """The error of the turned blobs falls with the voxel to the power of the kernel's order, for all angles."""
    angles = (0.4, 0.06, -0.04)
    matrix, errors = rotation_matrices(np.array(angles)), []
    for n in (26, 52):
        shape, voxel = (n, n, n), (13.0 / n,) * 3
        volume = blobs(places(shape, voxel), 1.0, 5, 3.0)
        found = (
            turned(volume, voxel, angles[0], kernel, n, angles=angles[1:], shift=SHIFT) / voxel[0]
        )
        errors.append(
            error(found, blobs((places(shape, voxel) - np.asarray(SHIFT)) @ matrix, 1.0, 5, 3.0))
        )
    assert np.log2(errors[0] / errors[1]) > order - 0.4
    assert errors[1] < {2: 0.05, 4: 2e-3}[order]


@pytest.mark.parametrize(("kernel", "limit"), [("linear", 0.15), ("cubic", 0.02)])
def test_there_and_back(kernel, limit):
    voxel, shape = (0.5, 0.5, 0.5), (40, 4, 40)
    volume = blobs(places(shape, voxel), 0.8)
    there = turned(volume, voxel, 0.6, kernel, 40) / 0.5
    back = turned(there, voxel, -0.6, kernel, 40) / 0.5
    assert error(back, volume) < limit
    assert error(there, volume) > 0.5


def test_rotation_is_that_of_the_analysis():
    angles = rng(1).uniform(-1, 1, 3)
    np.testing.assert_allclose(
        volumes.rotation_matrix(jnp.asarray(angles)), rotation_matrices(angles), atol=1e-12
    )


def test_coarse_layers_are_sampled_finely():
    """A voxel longer in z than in x is divided, so that a steep view misses nothing of it."""
    frame = volumes.frame((6, 8, 8), (2.0, 0.5, 0.5), 3)
    assert (frame.depth.count, frame.depth.step, frame.thickness) == (24, 0.5, 4.0)
    smooth = blobs(places((16, 24, 48), (1.5, 0.5, 0.5)), 2.0)
    for tilt in (0.0, 1.0):
        found = turned(smooth, (1.5, 0.5, 0.5), tilt, slices=4)
        np.testing.assert_allclose(jnp.sum(found), 1.5 * smooth.sum(), rtol=5e-3)


def test_depth_holds_the_tilted_volume():
    assert volumes.depth_of((10, 8, 40), (0.5, 0.5, 0.5), 4, [0.0]) == 12
    leaning = volumes.depth_of((10, 40, 8), (0.5, 0.5, 0.5), 1, [0.0], [[0.2, 0.1]])
    assert leaning == np.ceil(10 * np.cos(0.2) + 40 * np.sin(0.2))  # the corners, turned about x
    steep = volumes.depth_of((10, 8, 40), (0.5, 0.5, 0.5), 4, np.deg2rad([-60, 0, 60]))
    assert steep == 40  # 40 sin 60° + 10 cos 60° = 39.6
    volume = jnp.ones((10, 8, 40))
    frames = [volumes.frame(volume.shape, (0.5,) * 3, 2, depth) for depth in (None, steep)]
    sums = [jnp.sum(beam_slices(volume, (0.5,) * 3, frame, np.pi / 3)) for frame in frames]
    assert sums[0] < 0.5 * sums[1]
    np.testing.assert_allclose(sums[1], 0.5 * volume.sum(), rtol=0.07)  # its faces are steps


def test_taper_leaves_no_step():
    inside = volumes.taper_faces(jnp.ones((20, 20, 20)), (0.5,) * 3, 2.0)
    assert float(jnp.max(inside[0])) < 0.05
    assert float(jnp.min(inside[4:-4, 4:-4, 4:-4])) == 1.0
    np.testing.assert_array_equal(volumes.taper_faces(inside, (0.5,) * 3, 0.0), inside)


def test_slices_have_to_divide_the_depth():
    with pytest.raises(
        ValueError, match="10 samples along the beam cannot be cut into 4 equal slices"
    ):
        volumes.frame((10, 8, 8), (0.5,) * 3, 4)


def test_single_precision_stays_single():
    volume = jnp.zeros((4, 5, 6), jnp.float32)
    frame = volumes.frame(volume.shape, (0.5,) * 3, 2)
    found = beam_slices(volume, (0.5,) * 3, frame, jnp.float32(0.1), jnp.zeros(2, jnp.float32))
    assert found.dtype == jnp.float32


@pytest.mark.parametrize(
    ("debye_waller", "errors"),
    [(4.0, {"linear": (0.25, 0.97), "cubic": (0.07, 0.998)}), (24.0, {"cubic": (0.01, 0.9999)})],
)
def test_atoms_turned_as_atoms_agree(debye_waller, errors):
    """Slices of a volume of atoms, turned by us, against atoms turned and projected as such, in voxels of 0.4 Å.

    Relative error and correlation; heavy atoms are narrower than a voxel unless they vibrate much.
    """
    random, n, pixel = rng(5), 48, 0.4
    atoms = Atoms("AuOSiPtO", positions=random.uniform(-4, 4, (5, 3)))
    atoms += Atoms("Si12", positions=random.uniform(-4.5, 4.5, (12, 3)))
    gaussians = scattering.gaussians(atoms.numbers, "lobato")
    edges = (np.arange(n + 1) - n // 2 - 0.5) * pixel

    def project(atoms, edges):
        middle = np.array([0, n // 2, n // 2]) * pixel
        places, vibration = (
            jnp.asarray(atoms.positions[:, ::-1] + middle),
            jnp.full(len(atoms), debye_waller),
        )
        faces = jnp.asarray(np.stack([edges[:-1], edges[1:]], 1))
        return potentials.slabs(places, vibration, gaussians, faces, (n, n), (pixel, pixel))

    volume, angles = project(atoms, edges) / pixel, jnp.deg2rad(jnp.array([2.0, -3.0]))
    truth = np.asarray(project(rotate_atoms(atoms, 40.0, 2.0, -3.0), edges[::12]))
    for kernel, (largest, least) in errors.items():
        found = np.asarray(turned(volume, (pixel,) * 3, np.deg2rad(40.0), kernel, 4, angles=angles))
        correlation = np.corrcoef(found.ravel(), truth.ravel())[0, 1]
        assert error(found, truth) < largest
        assert correlation > least
