"""The first object from direct phase: its place on the pixels, and how well it explains patterns."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scans import ABOUT, GRID, SIDE, STEP, blobs

import jaxptycho as jp
from jaxptycho.data import dataset
from jaxptycho.direct.image import DirectImage
from jaxptycho.direct.scan_grid import ScanGrid, plane_rotation
from jaxptycho.direct.transfer import Optics
from jaxptycho.start.direct_object import on_pixels, phase_picture

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def test_a_picture_is_placed_on_the_pixels_of_an_object():
    """A plane wave on a rotated grid of the scan, at the pixels of an object with another origin."""
    grid = ScanGrid(np.array([3.0, -2.0]), 0.5 * plane_rotation(0.4), (40, 50))
    wave = np.array([0.11, -0.07])  # 1/Å
    values = np.cos(2 * np.pi * grid.places() @ wave)
    picture = DirectImage(values, grid, np.ones((40, 26)), np.ones((40, 26)), "")
    rows = np.stack(np.meshgrid(np.arange(5, 35), np.arange(5, 45), indexing="ij"), -1)
    positions = (grid.origin + rows.reshape(-1, 2) @ grid.steps) + 0.0
    corner = (-2.0, -6.0)
    shape = (150, 160)
    found = on_pixels(picture, positions, (0.25, 0.3), corner, shape)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * [0.25, 0.3] + corner
    entries = (places - grid.origin) @ np.linalg.inv(grid.steps)
    inside = ((entries >= [4.5, 4.5]) & (entries <= [34.5, 44.5])).all(-1)
    assert inside.sum() > 3000
    np.testing.assert_allclose(found[inside], np.cos(2 * np.pi * places[inside] @ wave), atol=2e-3)
    assert not found[~inside].any()


@pytest.fixture(scope="module")
def data():
    counts, places = blobs(step=STEP / 2, strength=0.1)
    assert len(places) == SIDE**2
    return jp.Dataset(counts, places, GRID, about=dict(ABOUT))


def loss(model, data):
    shots = np.arange(data.n_shots[0], dtype=np.int32)
    expected = np.asarray(jp.predict(model, shots))
    seen = np.asarray(data.patterns(0, shots), float)
    return float(np.sum((np.sqrt(expected) - np.sqrt(seen)) ** 2))


def test_a_direct_start_explains_patterns(data):
    empty = jp.first_model(data, specimen="phase")
    direct = jp.first_model(data, specimen="phase", start="direct")
    wrong = replace(direct, specimen=direct.specimen.map_stacks(jnp.negative, ("phase",)))
    floor = sum(data.n_shots) * np.prod(GRID.shape) / 4  # counting noise of an amplitude: 1/4
    assert loss(direct, data) - floor < 0.4 * (loss(empty, data) - floor)
    assert loss(wrong, data) > loss(empty, data)


def test_slices_share_the_phase_evenly(data):
    one = jp.first_model(data, specimen="potential", slices=1, thickness=20.0, start="direct")
    four = jp.first_model(data, specimen="complex", slices=4, thickness=20.0, start="direct")
    each = np.asarray(four.specimen.phase_per_slice(GRID))
    np.testing.assert_allclose(each, np.broadcast_to(each[:1], each.shape))
    np.testing.assert_allclose(
        each.sum(0), np.asarray(one.specimen.phase_per_slice(GRID))[0], atol=1e-6
    )


def test_a_direct_start_requires_the_disc_of_a_far_field(data):
    with pytest.raises(ValueError, match="known semiangle"):
        jp.first_model(data, start="direct", near_field=1e5)
    with pytest.raises(ValueError, match="empty or direct"):
        jp.first_model(data, start="full")


def test_data_on_disk_give_the_same_picture(data, monkeypatch):
    optics = Optics.of(ABOUT["semiangle_mrad"], GRID.wavelength, GRID.dk[0], defocus=60.0)
    picture = phase_picture(data, optics)
    counts, places = blobs(step=STEP / 2, strength=0.1)
    monkeypatch.setattr(dataset, "IN_MEMORY_BYTES", 0)
    on_disk = jp.Dataset(counts, places, GRID, about=dict(ABOUT))
    assert not on_disk.clean(0).in_memory
    np.testing.assert_array_equal(phase_picture(on_disk, optics).image, picture.image)
