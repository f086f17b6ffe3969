import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import Grid
from jaxptycho.physics import waves

pytestmark = pytest.mark.usefixtures("quick_to_compile")

GRID = Grid((32, 24), (0.4, 0.5), voltage_kv=80.0)


def noise(shape=GRID.shape, seed=0):
    values = np.random.default_rng(seed).normal(size=(2, *shape))
    return jnp.asarray(values[0] + 1j * values[1])


def smooth(seed=0, modes=2):
    """Random waves without the Nyquist frequencies, where a shift is ambiguous."""
    spectrum = noise((modes, *GRID.shape), seed) * waves.band_limit(GRID, 0.8)
    return waves.inverse_fourier(spectrum)


def gaussian(centre=(0.0, 0.0), width=1.0):
    """A Gaussian of `width` [Å] around the middle pixel plus `centre` [Å]."""
    ny, nx = GRID.shape
    y = (np.arange(ny)[:, None] - ny // 2) * GRID.pixel[0] - centre[0]
    x = (np.arange(nx)[None, :] - nx // 2) * GRID.pixel[1] - centre[1]
    return jnp.asarray(np.exp(-(y**2 + x**2) / (2 * width**2)) + 0j)[None]


def power(wave):
    return float(jnp.sum(jnp.abs(wave) ** 2))


def inner(a, b):
    return complex(jnp.vdot(a, b))


def leaving(wave):
    """The wave behind no specimen."""
    return waves.Exit(wave, jnp.ones(GRID.shape, complex))


def test_pattern_sums_to_the_intensity_of_the_wave():
    wave = noise((3, *GRID.shape))
    assert float(waves.far_field(leaving(wave)).sum()) == pytest.approx(power(wave), rel=1e-12)
    np.testing.assert_allclose(waves.inverse_fourier(waves.fourier(wave)), wave, atol=1e-12)


def test_far_field_of_a_plane_wave_is_one_pixel():
    y, x = np.mgrid[: GRID.shape[0], : GRID.shape[1]]
    wave = jnp.exp(2j * jnp.pi * (3 * y / GRID.shape[0] - 2 * x / GRID.shape[1]))[None]
    pattern = waves.far_field(leaving(wave))
    assert np.unravel_index(np.argmax(pattern), GRID.shape) == (3, GRID.shape[1] - 2)
    assert float(pattern[3, -2]) == pytest.approx(GRID.shape[0] * GRID.shape[1])


@pytest.mark.parametrize("kernel", [waves.fresnel, waves.angular_spectrum])
def test_propagators_form_a_group(kernel):
    np.testing.assert_allclose(
        kernel(GRID, 7.0) * kernel(GRID, 5.5), kernel(GRID, 12.5), atol=1e-12
    )
    np.testing.assert_allclose(kernel(GRID, 7.0) * kernel(GRID, -7.0), 1.0, atol=1e-12)
    np.testing.assert_array_equal(kernel(GRID, 0.0), 1.0)


def test_fresnel_spreads_a_gaussian_beam_by_its_closed_form():
    width, distance = 0.8, 40.0
    moved = waves.propagate(gaussian(width=width), waves.fresnel(GRID, distance))
    squared = width**2 + 1j * distance * GRID.wavelength / (2 * np.pi)
    ny, nx = GRID.shape
    r2 = ((np.arange(ny)[:, None] - ny // 2) * GRID.pixel[0]) ** 2 + (
        (np.arange(nx)[None, :] - nx // 2) * GRID.pixel[1]
    ) ** 2
    np.testing.assert_allclose(
        moved[0], width**2 / squared * np.exp(-r2 / (2 * squared)), atol=1e-6
    )


def test_angular_spectrum_is_exact_for_a_plane_wave():
    ky, kx, distance = 4 * GRID.dk[0], -3 * GRID.dk[1], 321.0
    y, x = (
        np.arange(GRID.shape[0])[:, None] * GRID.pixel[0],
        np.arange(GRID.shape[1])[None, :] * GRID.pixel[1],
    )
    wave = jnp.exp(2j * jnp.pi * (ky * y + kx * x))[None]
    kz = np.sqrt(GRID.wavelength**-2 - ky**2 - kx**2)
    expected = wave * np.exp(2j * np.pi * distance * (kz - 1 / GRID.wavelength))
    np.testing.assert_allclose(
        waves.propagate(wave, waves.angular_spectrum(GRID, distance)), expected, atol=1e-9
    )


def test_angular_spectrum_leaves_fresnel_by_the_next_order():
    distance = 50.0
    ratio = waves.angular_spectrum(GRID, distance) / waves.fresnel(GRID, distance)
    fourth = -np.pi * GRID.wavelength**3 * distance * GRID.k2() ** 2 / 4
    np.testing.assert_allclose(jnp.angle(ratio), fourth, rtol=5e-3, atol=1e-12)


def test_evanescent_waves_are_dropped():
    grid = Grid((16, 16), 0.3, wavelength=1.0)
    kernel = waves.angular_spectrum(grid, 2.0)
    np.testing.assert_array_equal(jnp.abs(kernel) > 0.5, grid.k2() < 1.0)


def test_angular_spectrum_keeps_single_precision_over_a_long_way():
    exact = waves.angular_spectrum(GRID, 1e4)
    with jax.enable_x64(False):
        single = waves.angular_spectrum(GRID, 1e4)
    assert single.dtype == jnp.complex64
    np.testing.assert_allclose(np.asarray(single), exact, atol=1e-2)  # of a phase of up to 3e3 rad


def test_tilt_moves_the_wave_by_the_distance_times_the_tangent():
    wave, distance, angles = smooth(), 30.0, (0.02, -0.015)
    tilted = waves.propagate(
        wave, waves.fresnel(GRID, distance) * waves.tilt(GRID, distance, angles)
    )
    straight = waves.propagate(wave, waves.fresnel(GRID, distance))
    offset = (distance * np.tan(angles[0]), distance * np.tan(angles[1]))
    np.testing.assert_allclose(tilted, waves.shift(straight, offset, GRID), atol=1e-12)


def test_shift_of_a_gaussian_is_the_gaussian_elsewhere():
    offset = (0.37, -0.81)
    np.testing.assert_allclose(waves.shift(gaussian(), offset, GRID), gaussian(offset), atol=1e-5)


def test_shift_by_pixels_rolls():
    wave = smooth()
    moved = waves.shift(wave, (3 * GRID.pixel[0], -2 * GRID.pixel[1]), GRID)
    np.testing.assert_allclose(moved, jnp.roll(wave, (3, -2), axis=(1, 2)), atol=1e-12)


def test_adjoint_of_shift_is_the_shift_back():
    a, b, offset = smooth(1), smooth(2), (0.13, 0.29)
    forth = inner(waves.shift(a, offset, GRID), b)
    assert forth == pytest.approx(
        inner(a, waves.shift(b, (-offset[0], -offset[1]), GRID)), rel=1e-12
    )


@pytest.mark.parametrize("linear", ["propagate", "place", "multislice"])
def test_adjoints_are_exact(linear):
    kernel, slices = waves.fresnel(GRID, 9.0), noise((3, *GRID.shape), 5)
    function = {
        "propagate": lambda w: waves.propagate(w, kernel),
        "place": lambda w: waves.place_probe(w, (1.3, 2.1), GRID),
        "multislice": lambda w: waves.multislice(w, slices, kernel).wave,
    }[linear]
    a, b = noise((2, *GRID.shape), 3), noise((2, *GRID.shape), 4)
    image, transpose = jax.vjp(function, a)
    (back,) = transpose(jnp.conj(b))  # JAX transposes; the adjoint also conjugates
    assert inner(b, image) == pytest.approx(inner(jnp.conj(back), a), rel=1e-12)


def test_band_limit_is_an_ellipse_within_nyquist():
    limit = waves.band_limit(GRID, 2 / 3)
    ky, kx = (np.fft.fftfreq(n) for n in GRID.shape)
    inside = (ky[:, None] / 0.5) ** 2 + (kx[None, :] / 0.5) ** 2 < (2 / 3) ** 2 - 1e-9
    np.testing.assert_array_equal(limit, inside)


def test_product_of_two_band_limited_waves_does_not_alias():
    """What folds back falls outside the limit: the kept part is that of a grid twice as fine."""
    limit = waves.band_limit(GRID, 2 / 3)
    a, b = (waves.inverse_fourier(noise(seed=s) * limit) for s in (1, 2))
    fine = waves.inverse_fourier(_padded(waves.fourier(a))) * waves.inverse_fourier(
        _padded(waves.fourier(b))
    )
    expected = _cropped(waves.fourier(fine)) * 2  # orthonormal transforms of four times the pixels
    inside = limit > 0
    np.testing.assert_allclose(waves.fourier(a * b)[inside], expected[inside], atol=1e-10)


def _padded(spectrum):
    ny, nx = spectrum.shape
    middle = jnp.pad(jnp.fft.fftshift(spectrum), ((ny // 2, ny // 2), (nx // 2, nx // 2)))
    return jnp.fft.ifftshift(middle)


def _cropped(spectrum):
    ny, nx = spectrum.shape[0] // 2, spectrum.shape[1] // 2
    middle = jnp.fft.fftshift(spectrum)[ny // 2 : ny // 2 + ny, nx // 2 : nx // 2 + nx]
    return jnp.fft.ifftshift(middle)


def test_one_slice_is_exactly_the_product():
    wave, slices = smooth(), noise((1, *GRID.shape))
    for kernel in (waves.fresnel(GRID, 10.0), waves.fresnel(GRID, 10.0)[None]):
        np.testing.assert_array_equal(waves.multislice(wave, slices, kernel).wave, wave * slices[0])


def test_empty_slices_are_one_long_way():
    wave, empty = smooth(), jnp.ones((4, *GRID.shape), complex)
    direct = waves.propagate(wave, waves.fresnel(GRID, 30.0))
    np.testing.assert_allclose(
        waves.multislice(wave, empty, waves.fresnel(GRID, 10.0)).wave, direct, atol=1e-12
    )
    distances = jnp.array([4.0, 9.0, 17.0, 1e3])  # the last is behind the specimen
    kernels = jax.vmap(lambda d: waves.fresnel(GRID, d))(distances)
    np.testing.assert_allclose(waves.multislice(wave, empty, kernels).wave, direct, atol=1e-12)


def test_multislice_follows_the_recursion():
    wave, slices = smooth(), noise((3, *GRID.shape), 6)
    distances = [3.0, 8.0, 5.0]
    kernels = jnp.stack([waves.fresnel(GRID, d) for d in distances])
    expected = np.asarray(wave)
    for n in range(3):
        expected = expected * np.asarray(slices[n])
        if n < 2:
            expected = np.fft.ifft2(np.fft.fft2(expected) * np.asarray(kernels[n]))
    np.testing.assert_allclose(waves.multislice(wave, slices, kernels).wave, expected, atol=1e-10)


def test_phase_slices_keep_the_energy():
    wave, phase = smooth(), np.random.default_rng(1).normal(size=(5, *GRID.shape))
    out = waves.multislice(wave, jnp.exp(1j * phase), waves.angular_spectrum(GRID, 20.0)).wave
    assert power(out) == pytest.approx(power(wave), rel=1e-12)


@pytest.mark.parametrize(("part", "shifted"), [(1.0, 0), (0.5, 1)])
def test_near_field_of_a_grating_shows_the_talbot_images(part, shifted):
    """A grating images itself after 2d²/λ, and half way there displaced by half a period."""
    period = GRID.shape[1] * GRID.pixel[1] / 3
    x = np.arange(GRID.shape[1]) * GRID.pixel[1]
    grating = jnp.asarray(
        np.broadcast_to(1 + 0.5 * np.cos(2 * np.pi * x / period), GRID.shape) + 0j
    )[None]
    kernel = waves.fresnel(GRID, part * 2 * period**2 / GRID.wavelength)
    image = jnp.fft.fftshift(waves.near_field(leaving(grating), kernel))
    expected = (1 + 0.5 * np.cos(2 * np.pi * (x / period - shifted / 2))) ** 2
    np.testing.assert_allclose(image, np.broadcast_to(expected, GRID.shape), atol=1e-9)
