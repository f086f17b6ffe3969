"""Constraints in three dimensions: closed forms, what stays, and what a second time changes."""

import jax.numpy as jnp
import numpy as np
import pytest
from models import rng, thin

from jaxptycho import Grid, Volume
from jaxptycho.inverse.constraints import filters
from jaxptycho.inverse.constraints.registry import build
from jaxptycho.inverse.constraints.volume import atoms_in, support_mask

pytestmark = pytest.mark.usefixtures("quick_to_compile")

VOXEL, SHAPE = (0.5, 0.4, 0.45), (24, 32, 30)
PLACES = np.array([[3.1, 3.3, 3.9], [8.4, 4.0, 8.7], [5.0, 9.1, 5.2], [8.9, 8.8, 9.6]])
HEIGHTS = np.array([40.0, 90.0, 65.0, 120.0])


def blobs(sigma, places=PLACES, heights=HEIGHTS):
    """Gaussians of widths `sigma` (z, y, x) [Å]."""
    axes = (n * step for n, step in zip(map(np.arange, SHAPE), VOXEL, strict=True))
    profiles = [
        np.exp(-(((x - p[:, None]) / s) ** 2) / 2)
        for x, p, s in zip(axes, places.T, sigma, strict=True)
    ]
    return jnp.asarray(np.einsum("k,kz,ky,kx->zyx", heights, *profiles))


def model_of(volts):
    return thin(
        specimen=Volume(jnp.asarray(volts), VOXEL), grid=Grid((16, 12), VOXEL[1:], voltage_kv=80.0)
    )


def applied(name, volts, **keys):
    model = model_of(volts)
    return np.asarray(build(name, model, **keys)(model).specimen.potential)


# support


def test_the_support_of_a_ball_is_a_ball_with_a_soft_edge():
    z, y, x = (step * (np.arange(n) - n // 2) for n, step in zip(SHAPE, VOXEL, strict=True))
    r = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    mask = support_mask(np.where(r < 4, 10.0, 0.0), VOXEL, blur=0.8, threshold=0.5, edge=1.5)
    assert np.all(mask[r < 3.2] == 1)
    assert np.all(mask[r > 6.2] == 0)
    edge = mask[(r > 4.1) & (r < 4.9)]
    assert 0.3 < edge.mean() < 0.9


def test_within_its_support_nothing_changes_again_at_a_hard_edge():
    volts = blobs((0.6, 0.6, 0.6)) + 2 * rng(1).normal(size=SHAPE)
    keys = {"blur_angstrom": 1.0, "threshold": 0.2, "edge_angstrom": 0.0}
    model = model_of(volts)
    project = build("support", model, **keys)
    once = project(model)
    kept = np.asarray(once.specimen.potential)
    np.testing.assert_array_equal(kept, np.where(kept == 0, 0, volts))
    assert 0.02 < np.mean(kept != 0) < 0.5
    np.testing.assert_array_equal(project(once).specimen.potential, kept)


def test_a_support_wants_something_to_look_at():
    with pytest.raises(ValueError, match="support of an empty specimen"):
        applied("support", np.zeros(SHAPE), blur_angstrom=1.0)
    with pytest.raises(ValueError, match="threshold between 0 and 1"):
        applied("support", np.ones(SHAPE), blur_angstrom=1.0, threshold=2.0)


# Fourier shells


def test_low_pass_keeps_waves_below_its_cut_off_in_every_direction():
    """Cosines that fit the volume: along z with its mirror image, in plane periodic."""
    z, y, x = (np.arange(n) for n in SHAPE)
    along = np.cos(np.pi * 6 * (z + 0.5) / SHAPE[0])[:, None, None]  # 6/(2·12) = 0.25 1/Å
    wave = (
        along * np.cos(2 * np.pi * 4 * y / SHAPE[1])[:, None] * np.ones_like(x)
    )  # 4/12.8 = 0.3125 1/Å
    length = np.hypot(0.25, 0.3125)
    both = wave + 5.0
    np.testing.assert_allclose(
        applied("low_pass_volume", both, cutoff_inverse_angstrom=length + 0.01), both, atol=1e-9
    )
    for key, left in (
        ({"cutoff_inverse_angstrom": length - 0.01}, 0.0),
        ({"cutoff_inverse_angstrom": length}, 0.5),
    ):
        found = applied("low_pass_volume", both, edge_inverse_angstrom=0.01, **key)
        np.testing.assert_allclose(found, 5.0 + left * wave, atol=1e-9)


# atomicity


def test_gaussians_are_found_exactly():
    found = atoms_in(blobs((0.5, 0.55, 0.6)), VOXEL, 4, 2.0)
    order = np.argsort(-HEIGHTS)
    np.testing.assert_allclose(found.places, PLACES[order], atol=1e-3)
    np.testing.assert_allclose(found.usual, (0.5, 0.55, 0.6), atol=1e-3)
    np.testing.assert_allclose(
        found.integral, HEIGHTS[order] * (2 * np.pi) ** 1.5 * 0.165, rtol=1e-3
    )


def test_round_atoms_stay_and_a_second_time_changes_nothing():
    volts = blobs((0.55, 0.55, 0.55))
    once = applied("atomicity", volts, atoms=4, distance_angstrom=2.0)
    np.testing.assert_allclose(once, volts, atol=0.1)
    noisy = volts + rng(2).normal(size=SHAPE)
    once = applied("atomicity", noisy, atoms=4, distance_angstrom=2.0)
    np.testing.assert_allclose(
        applied("atomicity", once, atoms=4, distance_angstrom=2.0), once, atol=5e-3 * once.max()
    )


def test_what_a_wedge_drew_out_is_round_again_and_weighs_the_same():
    drawn, round_again = blobs((0.8, 0.5, 0.5)), blobs((0.5, 0.5, 0.5), heights=1.6 * HEIGHTS)
    found = applied("atomicity", drawn, atoms=4, distance_angstrom=2.0)
    np.testing.assert_allclose(found, round_again, atol=0.01 * float(round_again.max()))
    np.testing.assert_allclose(found.sum(), drawn.sum(), rtol=1e-3)
    half = applied("atomicity", drawn, atoms=4, distance_angstrom=2.0, strength=0.5)
    np.testing.assert_allclose(half, (found + drawn) / 2, atol=1e-9)


def test_atoms_that_are_not_there_are_not_made():
    np.testing.assert_allclose(
        applied("atomicity", np.zeros(SHAPE), atoms=4, distance_angstrom=2.0), 0
    )
    alone = blobs((0.5, 0.5, 0.5), PLACES[:1], HEIGHTS[:1])
    found = applied("atomicity", alone, atoms=4, distance_angstrom=2.0)
    np.testing.assert_allclose(found, alone, atol=0.1)


def test_single_precision_is_enough():
    volts = blobs((0.55, 0.5, 0.5)) + rng(3).normal(size=SHAPE)
    narrow = applied("atomicity", volts.astype(jnp.float32), atoms=4, distance_angstrom=2.0)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(
        narrow, applied("atomicity", volts, atoms=4, distance_angstrom=2.0), atol=0.05
    )


def test_positivity_of_a_volume():
    volts = rng(4).normal(size=SHAPE)
    np.testing.assert_array_equal(applied("positivity", volts), np.maximum(volts, 0))


def test_the_falling_edge():
    k = jnp.array([0.0, 0.9, 1.0, 1.1, 2.0])
    np.testing.assert_allclose(
        filters.below(k, 1.0, 0.4), [1, 0.85355339, 0.5, 0.14644661, 0], atol=1e-8
    )
    np.testing.assert_array_equal(filters.below(k, 1.05, 0.0), [1, 1, 1, 0, 0])
