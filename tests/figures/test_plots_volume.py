"""Figures of volumes: every pixel where its place in Å is, and what is drawn over them."""

import ase
import numpy as np
import pytest

from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.figures import volumes as plots

VOXEL = (0.5, 0.4, 0.3)
SHAPE = (12, 14, 18)


@pytest.fixture
def blob():
    """A bright voxel at z = 1.0, y = −1.2, x = 0.9 Å from the middle."""
    volume = np.zeros(SHAPE, np.float32)
    volume[8, 4, 12] = 100.0
    return volume


def brightest(ax):
    """Where the brightest pixel of an image stands: (horizontal, vertical)."""
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    values = np.asarray(image.get_array())
    row, column = np.unravel_index(np.argmax(values), values.shape)
    ny, nx = values.shape
    return left + (column + 0.5) * (right - left) / nx, top + (row + 0.5) * (bottom - top) / ny


PLACES = [(0.9, -1.2), (0.9, 1.0), (-1.2, 1.0)]  # (x, y), (x, z), (y, z)


@pytest.mark.parametrize("draw", [plots.draw_sums, plots.draw_maxima])
def test_the_three_images_have_their_axes(blob, draw):
    figure = draw(blob, VOXEL)
    for ax, place in zip(figure.axes[:3], PLACES, strict=True):
        np.testing.assert_allclose(brightest(ax), place, atol=1e-6)
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes[:3]] == [
        ("x (Å)", "y (Å)"),
        ("x (Å)", "z (Å)"),
        ("y (Å)", "z (Å)"),
    ]


def test_sums_are_projected_potentials(blob):
    figure = plots.draw_sums(blob, VOXEL)
    greatest = [np.asarray(ax.images[0].get_array()).max() for ax in figure.axes[:3]]
    np.testing.assert_allclose(greatest, 100 * np.array(VOXEL))


def test_sections_go_through_a_place_and_show_the_atoms_near_it(blob):
    atoms = ase.Atoms("PtO", [(0.9, -1.2, 1.0), (-1.0, -1.2, -2.9)])  # x, y, z
    figure = plots.draw_sections(blob, VOXEL, place=(1.0, -1.2, 0.9), atoms=atoms)
    for ax, place in zip(figure.axes[:3], PLACES, strict=True):
        np.testing.assert_allclose(brightest(ax), place, atol=1e-6)
        oxygen, platinum = (marks.get_offsets() for marks in ax.collections)
        np.testing.assert_allclose(platinum, [place])
        assert len(oxygen) == (ax is figure.axes[1])  # in the plane of y alone


def test_rays_hit_a_ball_where_it_begins():
    step, radius = np.full(3, 0.25), 3.0
    z, y, x = np.indices((32, 32, 32)) * 0.25 - 4
    sample = plots._seen(radius - np.sqrt(z**2 + y**2 + x**2), step, rotation_matrices(plots.VIEW))
    across = np.linspace(-2.5, 2.5, 11)
    (depth,) = plots._first_hits(sample, np.arange(-5, 5, 0.25), across, [0.0])
    distance = np.hypot(across[:, None], across)
    inside = distance < 2.8
    np.testing.assert_allclose(
        depth[inside], -np.sqrt(radius**2 - distance[inside] ** 2), atol=0.05
    )
    assert np.isnan(depth[distance > 3.2]).all()


def test_surfaces_are_drawn(blob):
    (ax,) = plots.draw_surfaces(blob, VOXEL, pixels=40).axes
    picture = np.asarray(ax.images[0].get_array())
    assert picture.shape == (40, 40, 3)
    assert 0 <= picture.min() < 0.9
    assert picture[0, 0].min() == 1  # white around it


def test_power_is_tinted_where_no_view_was():
    volume = np.random.default_rng(0).normal(size=(16, 16, 16))
    figure = plots.draw_power(volume, 0.5, np.deg2rad([-45.5, 0, 45.5]))
    tints = [np.asarray(ax.images[1].get_array())[..., 3] for ax in figure.axes[:3]]
    assert not tints[0].any()
    z, x = np.indices((16, 16)) - 8
    np.testing.assert_array_equal(tints[1] > 0, np.abs(z) > np.abs(x))
    np.testing.assert_array_equal((tints[2] > 0).any(1), np.arange(16) != 8)


def test_directions_agree_but_in_the_wedge():
    rng, tilts = np.random.default_rng(1), np.deg2rad([-50.0, 50.0])
    first = rng.normal(size=(40, 40, 40))
    kz, _, kx = np.meshgrid(*[np.fft.fftfreq(40)] * 3, indexing="ij")
    seen = np.abs(kz) <= np.tan(tilts[1]) * np.abs(kx)
    second = np.fft.ifftn(
        np.where(seen, np.fft.fftn(first), np.fft.fftn(rng.normal(size=first.shape)))
    ).real
    (ax,) = plots.draw_directional(first, second, 0.5, tilts).axes
    angle, limit = ax.lines[0].get_data()
    measured = np.abs(np.mod(angle + np.pi / 2, np.pi) - np.pi / 2) < np.deg2rad(30)
    missing = np.abs(np.mod(angle, np.pi) - np.pi / 2) < np.deg2rad(20)
    np.testing.assert_allclose(limit[measured], 1.0)
    assert limit[missing].max() < 0.5
