"""Gauges of images: a known ramp, shift and map are found and removed, whatever else differs."""

import numpy as np
import pytest
from models import rng

from jaxptycho.analysis.gauge import (
    align_phase,
    align_wave,
    correlation,
    register,
    slope,
    without_ramp,
)

PIXEL = np.array([0.4, 0.5])
SHAPE = (96, 80)


def landscape(seed=0, finest=4.0, count=200):
    """A function of places [pixels, axes first] without detail finer than `finest` pixels, known everywhere."""
    random = rng(seed)
    k = random.uniform(-1, 1, (4 * count, 2)) / finest
    k = k[np.hypot(*k.T) < 1 / finest][:count]
    phases, heights = (
        random.uniform(0, 2 * np.pi, len(k)),
        random.normal(size=len(k)) / np.sqrt(len(k)),
    )

    def at(places):
        waves = np.cos(2 * np.pi * np.tensordot(k, places, 1) + phases[:, None, None])
        return np.tensordot(heights, waves, 1)

    return at


def grid_places(shape=SHAPE):
    return np.indices(shape) - (np.array(shape) // 2)[:, None, None]


def moved(matrix, shift):
    """Where the reference lies that stands at matrix·r + shift [pixels]."""
    places = grid_places() - np.asarray(shift, float)[:, None, None]
    return np.tensordot(np.linalg.inv(matrix), places, 1)


def turn(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]])


def farthest(found, matrix, shift):
    """The largest error of the map inside the field [pixels]."""
    own = np.diag(1 / PIXEL) @ found.matrix @ np.diag(PIXEL)
    corners = np.array([[-48, -48, 48, 48], [-40, 40, -40, 40]])
    wrong = (own - matrix) @ corners + (found.shift / PIXEL - shift)[:, None]
    return np.abs(wrong).max()


MAPS = [
    (np.eye(2), (3.37, -5.12)),
    (turn(2.0), (1.2, -4.6)),
    (np.array([[1.02, 0.01], [-0.015, 0.985]]), (-2.7, 0.4)),
]


@pytest.mark.parametrize(("matrix", "shift"), MAPS)
def test_a_phase_loses_ramp_shift_and_map(matrix, shift):
    """To 10⁻³ pixels at the corners of the field; the factor, offset and ramp come back as they were put in."""
    truth, ramp = landscape(), np.array([0.05, -0.03])
    places = moved(matrix, shift)
    tilt = np.einsum("i,iyx->yx", ramp, places)
    image = 0.8 * truth(places) + 0.4 + tilt
    found = align_phase(
        image, truth(grid_places()), PIXEL, affine=not np.allclose(matrix, np.eye(2)), scale=True
    )
    assert farthest(found, matrix, shift) < 1e-3
    np.testing.assert_allclose(found.ramp * PIXEL, ramp, atol=1e-5)
    np.testing.assert_allclose([found.scale, found.offset], [0.8, 0.4], atol=1e-3)
    near = found.inside & (np.abs(grid_places()).max(0) < 30)
    np.testing.assert_allclose(found.image[near], truth(grid_places())[near], atol=5e-3)
    assert not found.image[~found.inside].any()


@pytest.mark.parametrize("turns", [0.2, 7.3])
@pytest.mark.parametrize(("matrix", "shift"), MAPS[:2])
def test_a_wave_loses_constant_ramp_and_shift(matrix, shift, turns):
    """A phase object, its ramp of several turns over the field."""
    truth, ramp = landscape(1, 5.0), 2 * np.pi * turns / np.array(SHAPE) * [1, -0.7]
    places = moved(matrix, shift)
    image = 1.7 * np.exp(1j * (0.6 * truth(places) + 0.9 + np.einsum("i,iyx->yx", ramp, places)))
    reference = np.exp(0.6j * truth(grid_places()))
    found = align_wave(image, reference, PIXEL, affine=not np.allclose(matrix, np.eye(2)))
    assert farthest(found, matrix, shift) < 1e-3
    np.testing.assert_allclose(found.ramp * PIXEL, ramp, atol=1e-5)
    np.testing.assert_allclose([found.scale, found.offset], [1.7, 0.9], atol=1e-3)
    near = found.inside & (np.abs(grid_places()).max(0) < 30)
    assert (
        np.sqrt(np.mean(np.abs(found.image - reference)[near] ** 2)) < 5e-3
    )  # of the splines between pixels


def test_only_what_was_scanned_counts():
    """Outside the mask is rubbish; noise moves the answer by its share only."""
    truth, shift = landscape(2), np.array([1.63, -2.21])
    image, reference = truth(moved(np.eye(2), shift)), truth(grid_places())
    where = np.hypot(*grid_places()) < 30
    outside = np.hypot(*grid_places()) > 36
    image[outside] = rng(5).normal(size=outside.sum())
    found = align_phase(image, reference, 1.0, where)
    np.testing.assert_allclose(found.shift, shift, atol=1e-3)
    noisy = align_phase(image + 0.1 * rng(6).normal(size=SHAPE), reference, 1.0, where)
    steepness = np.sqrt(np.sum(np.gradient(reference, axis=0)[where] ** 2))
    assert np.abs(noisy.shift - shift).max() < 4 * 0.1 / steepness  # four standard deviations


def test_images_that_cannot_be_compared_are_refused():
    with pytest.raises(
        ValueError, match=r"image of shape \(8, 8\) came with a reference of \(8, 9\)"
    ):
        align_phase(np.zeros((8, 8)), np.zeros((8, 9)))
    with pytest.raises(ValueError, match="no pixel is left"):
        align_phase(np.zeros((8, 8)), np.zeros((8, 8)), 1.0, np.zeros((8, 8), bool))
    with pytest.raises(ValueError, match="not finite"):
        align_phase(np.full((8, 8), np.nan), np.zeros((8, 8)))


def test_a_known_shift_is_found():
    image, shift = landscape(3, 16.0)(np.indices((64, 64))), np.array([3.37, -5.12])
    window = np.outer(np.hanning(64), np.hanning(64)) ** 2
    ramp = np.exp(
        -2j * np.pi * (np.fft.fftfreq(64)[:, None] * shift[0] + np.fft.fftfreq(64) * shift[1])
    )
    image = image * window
    moved = np.fft.ifft2(np.fft.fft2(image) * ramp).real
    found = register(image, moved, digits=3)
    np.testing.assert_allclose(found.shift, -shift, atol=2e-3)
    np.testing.assert_allclose(found.image, image, atol=2e-2)


def test_an_inverted_image_is_not_laid_on_itself():
    """Real images are to be alike: a lattice is not moved onto its gaps, as its absolute correlation would have it."""
    image = landscape(3, 8.0)(np.indices((64, 64)))
    assert correlation(register(image, -image).image, image) > 0
    y, x = np.indices((64, 64))
    peaks = np.maximum(np.cos(2 * np.pi * y / 16) * np.cos(2 * np.pi * x / 16), 0) ** 2
    holes = peaks.mean() - np.roll(peaks, 8, 0) * (1 + 0.2 * np.cos(2 * np.pi * y / 64))
    assert correlation(register(peaks - peaks.mean(), holes).image, peaks) > 0


def test_a_ramp_inside_a_mask_is_removed_everywhere():
    y, x = np.indices((20, 30))
    where = (y > 3) & (x < 20)
    np.testing.assert_allclose(without_ramp(0.3 * y - 0.1 * x + 2, where), 0, atol=1e-12)


def test_correlation_and_slope_inside_a_mask():
    first = rng(7).normal(size=(20, 20))
    second = np.where(first > 0, 3 * first - 1, 7.0)
    assert correlation(first, second, first > 0) == pytest.approx(1)
    assert slope(first, second, first > 0) == pytest.approx(3)
