import jax.numpy as jnp
import numpy as np
import pytest
from models import DOSE, GRID, N_SHOTS, aberrated_probe, pixel_probe, relaxed_probe, rng

from jaxptycho import AberratedProbe, Grid, PerShot, PixelProbe, RelaxedProbe, select
from jaxptycho.parts.probe import rms_amplitude
from jaxptycho.physics import waves


def dose_of(probe, grid=GRID):
    return float(jnp.sum(jnp.abs(probe.spectrum(grid)) ** 2))


def test_intensity_of_a_probe_sums_to_its_dose():
    assert dose_of(pixel_probe()) == pytest.approx(DOSE, rel=1e-12)
    assert dose_of(aberrated_probe()) == pytest.approx(DOSE, rel=1e-12)


@pytest.mark.parametrize("shape", [(16, 12), (9, 7)])
def test_centre_of_the_window_is_the_origin_of_the_spectrum(shape):
    grid = Grid(shape, 0.3, wavelength=0.02)
    point = jnp.zeros((1, *shape), complex).at[0, shape[0] // 2, shape[1] // 2].set(1.0)
    spectrum = PixelProbe(point).spectrum(grid)
    np.testing.assert_allclose(spectrum, 1 / np.sqrt(shape[0] * shape[1]), atol=1e-12)


def test_placed_probe_stands_where_it_is_put():
    probe = AberratedProbe(0.05, dose=1.0)
    centre = np.array([7 * 0.4, 5 * 0.5])
    wave = waves.place_probe(probe.spectrum(GRID), jnp.asarray(centre), GRID)
    assert np.unravel_index(jnp.argmax(jnp.abs(wave[0])), GRID.shape) == (7, 5)


def test_relaxed_probe_is_the_sum_of_its_basis():
    probe = relaxed_probe()
    one = select(probe, PerShot, 3)
    coefficients = probe.coefficients.values[3]
    expected = PixelProbe(sum(c * w for c, w in zip(coefficients, probe.waves, strict=True)))
    np.testing.assert_allclose(one.spectrum(GRID), expected.spectrum(GRID), atol=1e-12)


def test_relaxed_probe_with_one_wave_is_a_pixel_probe():
    probe = RelaxedProbe(pixel_probe().waves[None], jnp.ones(1))
    np.testing.assert_allclose(probe.spectrum(GRID), pixel_probe().spectrum(GRID), atol=1e-12)


def test_coefficients_may_be_complex():
    turned = RelaxedProbe(pixel_probe().waves[None], jnp.array([1j]))
    np.testing.assert_allclose(turned.spectrum(GRID), 1j * pixel_probe().spectrum(GRID), atol=1e-12)


def test_typical_amplitude_of_a_probe():
    assert float(rms_amplitude(pixel_probe().waves)) == pytest.approx(np.sqrt(DOSE / (16 * 12)))
    each = PerShot(jnp.stack([pixel_probe().waves] * N_SHOTS))
    assert float(rms_amplitude(each)) == pytest.approx(np.sqrt(DOSE / (16 * 12)))


def test_one_unit_of_an_aberration_is_a_radian_at_the_edge():
    semiangle = 0.03
    for name in ("C10", "C23a", "C56b"):
        probe = AberratedProbe(semiangle, {name: 0.0})
        unit = float(probe.scale(GRID)["aberrations"][name])
        n = int(name[1])
        assert 2 * np.pi / GRID.wavelength * semiangle ** (n + 1) / (n + 1) * unit == pytest.approx(
            1.0
        )


def test_polar_names_become_components():
    probe = AberratedProbe(0.02, {"defocus": 50.0, "C12": 10.0, "phi12": np.pi / 4})
    assert {k: round(float(v), 9) for k, v in probe.aberrations.items()} == {
        "C10": -50.0,
        "C12a": 0.0,
        "C12b": 10.0,
    }


def test_aberrations_may_vary_from_shot_to_shot():
    values = jnp.asarray(rng().normal(size=N_SHOTS))
    probe = AberratedProbe(0.02, {"C10": PerShot(values), "C12a": 3.0})
    one = select(probe, PerShot, 2)
    assert float(one.aberrations["C10"]) == float(values[2])
