"""Alignment of tilt series that are made of atoms, turned as atoms, and never of voxels."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import Grid
from jaxptycho.analysis.errors import Alignment, alignment_error
from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.simulate.phantoms import platinum_in_alumina
from jaxptycho.simulate.phantoms.arrange import at, rotate_atoms
from jaxptycho.simulate.stacks import Box, content, projected
from jaxptycho.tomography import alignment
from jaxptycho.tomography.alignment import align, newton_step
from jaxptycho.tomography.coarse import coarse_shifts
from jaxptycho.tomography.gauge import without_translation
from jaxptycho.tomography.levels import binned, common_field
from jaxptycho.tomography.projections import Geometry, Projector

FINE, NOISE = 2, 10.0  # samples for a pixel; V·Å, as after 10⁵ e/Å² in pixels of 0.5 Å
DEGREE = np.deg2rad(1.0)


def series(seed, shape, pixel, edge, core, shift, angle=0.5 * DEGREE):
    """Projected potentials [V·Å] of a core of Pt in alumina in 13 views of ±60°, and how each view stands."""
    rng = np.random.default_rng(seed)
    nominal = np.deg2rad(np.linspace(-60, 60, 13))
    euler = np.stack([nominal, 0 * nominal, 0 * nominal], 1) + angle * rng.uniform(-1, 1, (13, 3))
    shifts = shift * rng.uniform(-1, 1, (13, 2))
    atoms, step = platinum_in_alumina(edge, core), pixel / FINE
    origin = [-FINE * (n // 2) * step - (FINE - 1) / 2 * step for n in shape]
    grid = Grid((FINE * shape[0], FINE * shape[1]), step, voltage_kv=300)
    box = Box(np.array([-edge, *origin]), np.array([[0, 2 * edge]]), grid)

    def seen(angles, move):
        turned = rotate_atoms(atoms, *np.rad2deg(angles))
        moved = at(turned, turned.positions + np.array([*move[::-1], 0])).positions[:, ::-1]
        image = np.asarray(
            projected(
                content(atoms.numbers, moved, np.ones(len(atoms)), box, projection="infinite"), grid
            )
        )
        return image.reshape(shape[0], FINE, shape[1], FINE).mean((1, 3))

    images = np.stack([seen(*view) for view in zip(euler, shifts, strict=True)])
    return (
        images + NOISE * rng.normal(size=images.shape),
        nominal,
        Alignment(rotation_matrices(euler), shifts),
    )


def distances(geometry, true, voxel):
    """Errors of the shifts [Å] without the gauge."""
    found = Alignment(np.asarray(geometry.rotations(), float), np.asarray(geometry.shifts, float))
    return alignment_error(found, true, voxel).distances()


@pytest.fixture(scope="module")
def small():
    return series(0, (28, 34), 1.0, 14.0, 8.0, 3.4)


@pytest.mark.parametrize("reach", [3.4, 10.0])
def test_correlation_finds_shifts_of_every_size(reach):
    images, nominal, true = series(1, (48, 54), 0.8, 14.0, 8.0, reach)
    begin = distances(Geometry(nominal), true, 0.8)
    found = distances(
        Geometry(nominal, None, coarse_shifts(images, nominal, (0.8, 0.8))), true, 0.8
    )
    assert begin.max() > reach
    assert found.max() < 0.2


def test_a_small_series_is_aligned(small):
    """Without a first guess; every view has an offset of its own and a corner that was not measured."""
    images, nominal, true = small
    offsets, weights = 300 * np.cos(np.arange(13))[:, None, None], np.ones(images.shape)
    weights[:, :4, :6] = 0
    spoilt = np.where(weights > 0, images + offsets, 1e5)
    found = align(
        spoilt,
        Geometry(nominal),
        1.0,
        weights=weights,
        free="constant",
        bins=(2,),
        coarse=False,
        angles=False,
    )
    errors = distances(found.geometry, true, 1.0)
    assert distances(Geometry(nominal), true, 1.0).mean() > 1.5
    assert errors.mean() < 0.15
    assert errors.max() < 0.3
    assert found.bad == []
    assert float(jnp.min(found.volume)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_published_series(seed):
    """Shifts within 3.4 Å, angles within 0.5°: published were half the tilts < 0.4 Å, the worst 0.8 Å."""
    images, nominal, true = series(seed, (68, 80), 0.5, 20.0, 12.0, 3.4)
    found = align(images, Geometry(nominal), 0.5, bins=(4, 2))
    errors = distances(found.geometry, true, 0.5)
    assert errors.mean() < 0.1
    assert errors.max() < 0.2


@pytest.mark.slow
def test_a_view_that_does_not_fit_is_named_and_dropped(small):
    images, nominal, true = small
    spoilt = images.copy()
    spoilt[4] = -images[4]
    found = align(spoilt, Geometry(nominal), 1.0, bins=(2, 2), angles=False)
    assert found.bad == [4]
    others = np.arange(13) != 4
    rest = Geometry(found.geometry.tilts[others], None, found.geometry.shifts[others])
    assert distances(rest, Alignment(*(values[others] for values in true)), 1.0).max() < 0.3


def test_a_step_is_newtons(quick_to_compile):
    """One step brings parameters home where the images depend on them linearly; what is spoilt hardly counts."""
    rng = np.random.default_rng(0)
    slopes, change = rng.normal(size=(3, 5, 20, 20)), 0.01 * rng.normal(size=(3, 5))
    residual = np.einsum("va,vayx->vyx", change, slopes) + 1e-6 * rng.normal(size=(3, 20, 20))
    residual[:, 0, :3] += 100
    away, weights = np.zeros((3, 5)), np.ones((3, 20, 20))
    weights[2] = 0
    found = newton_step(residual, slopes, weights, away, 1.0)
    np.testing.assert_allclose(found[:2], change[:2], rtol=0.02, atol=1e-5)
    assert not found[2].any()


def test_shifts_of_the_whole_specimen_are_no_steps():
    tilts, t = np.linspace(-1, 1, 5), np.array([0.3, -0.2, 0.5])
    rotations = np.asarray(Geometry(tilts).rotations())
    moved = (rotations @ t)[:, 1:].astype(float)
    np.testing.assert_allclose(without_translation(moved, tilts), 0, atol=1e-6)


def test_coarser_pixels_keep_their_places():
    """A Gaussian on bins of any size stands where it stood."""
    y, x = ((np.arange(n) - n // 2) * 0.5 for n in (43, 51))
    image = np.exp(-((y - 1.3) ** 2)[:, None] / 8 - (x + 0.8) ** 2 / 8)[None]
    for size in (1, 2, 3, 4):
        level = binned(image, np.ones(image.shape), (0.5, 0.5, 0.5), (9, 43, 51), size)
        rows, columns = np.indices(level.measured.shape[1:])
        weight = np.asarray(level.measured[0]) / float(level.measured.sum())
        middle = [
            np.sum(weight * index) - n // 2
            for index, n in zip((rows, columns), weight.shape, strict=True)
        ]
        np.testing.assert_allclose(
            np.multiply(middle, 0.5 * size) + level.offset, [1.3, -0.8], atol=0.03
        )


def test_a_common_field_is_narrower_at_higher_tilts():
    weights = common_field((4, 40), np.deg2rad([0.0, 60.0]))
    np.testing.assert_array_equal(weights.sum((1, 2)), [160, 84])
    moved = common_field((4, 40), np.deg2rad([0.0, 60.0]), [0.0, 3.0])
    np.testing.assert_array_equal(moved[1, 0], np.roll(weights[1, 0], 3))


def test_a_weak_image_leaves_the_angles_to_their_prior():
    """Slopes that tell next to nothing: angles go back to the nominal ones, shifts stay."""
    slopes = 1e-6 * np.random.default_rng(0).normal(size=(2, 5, 16, 16))
    away = np.tile([0.01, -0.02, 0.03, 0.5, -0.5], (2, 1))
    residual = np.random.default_rng(1).normal(size=(2, 16, 16))
    found = newton_step(residual, slopes, np.ones((2, 16, 16)), away, prior=0.005)
    np.testing.assert_allclose(found[:, :3], -away[:, :3], rtol=1e-3)


def test_refusals():
    images, tilts = np.zeros((3, 12, 12)), np.array([-0.5, 0.0, 0.5])
    with pytest.raises(ValueError, match="one for each view or each pixel"):
        align(images, Geometry(tilts), 0.5, weights=np.ones(2))
    with pytest.raises(ValueError, match="3 tilts came with 2 projections"):
        align(images[:2], Geometry(tilts), 0.5)
    with pytest.raises(ValueError, match="0 turns of 20 iterations align nothing"):
        align(images, Geometry(tilts), 0.5, turns=0, coarse=False)
    with pytest.raises(ValueError, match="no bins came"):
        align(images, Geometry(tilts), 0.5, bins=(), coarse=False)
    with pytest.raises(ValueError, match="give it more voxels"):
        align(images, Geometry(tilts), 0.5, (2, 12, 8))


def test_derivatives_of_a_view(quick_to_compile):
    """Against differences of projections, by all five parameters."""
    volume = np.random.default_rng(2).normal(size=(6, 6, 6))
    begin = np.array([[0.4, 0.03, -0.02, 0.2, -0.3]])

    def projector(q):
        return Projector(Geometry(q[:, 0], q[:, 1:3], q[:, 3:]), (0.5, 0.5, 0.5), (6, 6))

    _, slopes = alignment.linearised(projector(begin), jnp.asarray(volume))
    for number, slope in enumerate(slopes[0]):
        step = 1e-5 * np.eye(5)[number]
        ends = (
            alignment.linearised(projector(begin + s * step), jnp.asarray(volume))[0][0]
            for s in (1, -1)
        )
        np.testing.assert_allclose(slope, np.subtract(*ends) / 2e-5, rtol=1e-4, atol=1e-6)
