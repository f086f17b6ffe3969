import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import Grid
from jaxptycho.physics import waves, windows

GRID = Grid((6, 5), (0.4, 0.3), voltage_kv=80.0)
ORIGIN = jnp.array([-1.0, 2.0])


def slices(seed=0, shape=(2, 14, 12)):
    values = np.random.default_rng(seed).normal(size=(2, *shape))
    return jnp.asarray(values[0] + 1j * values[1])


def test_cut_is_the_block_at_its_corner():
    whole = slices()
    np.testing.assert_array_equal(windows.cut(whole, jnp.array([3, 4]), (6, 5)), whole[:, 3:9, 4:9])


BACK = pytest.mark.parametrize("add_back", [windows.one_by_one, windows.scatter])


@BACK
def test_add_back_is_the_adjoint_of_cut(add_back):
    whole, corners = slices(1), jnp.array([[0, 0], [3, 4], [3, 4], [8, 7], [2, 6]])
    cut_all = jax.vmap(lambda corner: windows.cut(whole, corner, GRID.shape))(corners)
    others = slices(2, (5, 2, 6, 5))
    back = add_back(jnp.zeros_like(whole), corners, others)
    assert complex(jnp.vdot(others, cut_all)) == pytest.approx(
        complex(jnp.vdot(back, whole)), rel=1e-12
    )


@BACK
def test_add_back_adds(add_back):
    whole = slices(1)
    twice = add_back(whole, jnp.array([[1, 1], [2, 2]]), jnp.ones((2, 2, 6, 5), complex))
    expected = np.array(whole)
    expected[:, 1:7, 1:6] += 1
    expected[:, 2:8, 2:7] += 1
    np.testing.assert_allclose(twice, expected)


def test_gpus_add_no_complex_numbers():
    """Atomic additions of 64 bits are a loop of compare and swap."""
    arguments = slices(1), jnp.array([[1, 1], [2, 2]]), jnp.ones((2, 2, 6, 5), complex)
    traced = jax.jit(windows.add_back).trace(*arguments)
    on_cpu, on_gpu = (
        traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda")
    )
    assert on_cpu.count("stablehlo.scatter") == 0
    assert re.findall(r"stablehlo.scatter.*\n.*bb0.*tensor<(\w+)>\)", on_gpu) == ["f64", "f64"]


def test_wrapped_windows_continue_at_the_other_edge():
    whole = slices()
    longer = windows.wrap(whole, GRID.shape)
    rolled = jnp.roll(whole, (-12, -10), axis=(1, 2))
    np.testing.assert_array_equal(
        windows.cut(longer, jnp.array([12, 10]), (6, 5)), rolled[:, :6, :5]
    )


def test_gradient_of_a_wrapped_window_folds_back():
    whole, other = slices(1), slices(2, (2, 6, 5))
    corner = jnp.array([12, 10])
    image, transpose = jax.vjp(
        lambda s: windows.cut(windows.wrap(s, GRID.shape), corner, GRID.shape), whole
    )
    (back,) = transpose(jnp.conj(other))
    assert complex(jnp.vdot(other, image)) == pytest.approx(
        complex(jnp.sum(back * whole)), rel=1e-12
    )


def test_centre_lies_within_half_a_pixel_of_the_middle():
    places = jnp.asarray(np.random.default_rng(3).uniform(2, 6, (50, 2)))
    corners, centres = jax.vmap(lambda p: windows.split_position(p, ORIGIN, GRID))(places)
    pixel, middle = np.array(GRID.pixel), np.array([3, 2])
    assert np.all(np.abs(centres - middle * pixel) <= pixel / 2 + 1e-12)
    np.testing.assert_allclose(ORIGIN + corners * pixel + centres, places, atol=1e-12)


def test_position_on_a_pixel_has_no_remainder():
    corner, centre = windows.split_position(ORIGIN + jnp.array([5 * 0.4, 7 * 0.3]), ORIGIN, GRID)
    np.testing.assert_array_equal(corner, [5 - 3, 7 - 2])
    np.testing.assert_allclose(centre, [3 * 0.4, 2 * 0.3])


def test_wave_on_the_specimen_is_continuous_across_the_rounding():
    """Just before and behind half a pixel the windows differ, the wave on the specimen does not."""
    spectrum = waves.fourier(
        jnp.asarray(np.exp(-(np.hypot(*np.mgrid[-3:3, -2:3]) ** 2)) + 0j)[None]
    )
    edge = ORIGIN + jnp.array([6.5 * 0.4, 5.5 * 0.3])

    def on_specimen(position):
        corner, centre = windows.split_position(position, ORIGIN, GRID)
        wave = waves.place_probe(spectrum, centre, GRID)
        return corner, jnp.roll(wave, corner, axis=(1, 2))  # waves repeat with the window's period

    before, wave_before = on_specimen(edge - 1e-9)
    behind, wave_behind = on_specimen(edge + 1e-9)
    np.testing.assert_array_equal(behind - before, [1, 1])
    ky, kx = GRID.frequencies()
    inner = (jnp.abs(ky) < 1 / 0.8 - 1e-6) & (
        jnp.abs(kx) < 1 / 0.6 - 1e-6
    )  # at Nyquist a shift is ambiguous
    difference = waves.fourier(wave_before - wave_behind)[0]
    np.testing.assert_allclose(jnp.where(inner, difference, 0.0), 0.0, atol=1e-7)


def test_only_the_remainder_is_differentiated():
    jacobian = jax.jacfwd(lambda p: windows.split_position(p, ORIGIN, GRID)[1])(
        jnp.array([1.23, 4.56])
    )
    np.testing.assert_array_equal(jacobian, np.eye(2))
