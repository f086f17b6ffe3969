"""Constraints and penalties that clean a result, against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from jaxptycho import FreeScan, PerShot, PixelProbe, SliceStack, Tilted, TransmissionStack
from jaxptycho.inverse.constraints.registry import build
from jaxptycho.inverse.penalties import PENALTIES
from jaxptycho.jobs.schema import build_entry
from jaxptycho.jobs.sections import Detector
from jaxptycho.parts.probe import RelaxedProbe
from jaxptycho.physics.camera_curves import CAMERA_CURVES, square_pixel, stretched
from jaxptycho.physics.detection import gaussian_mtf

pytestmark = pytest.mark.usefixtures("quick_to_compile")

PIXEL = models.GRID.pixel
Y, X = (p * np.arange(n) for p, n in zip(PIXEL, models.FIELD, strict=True))
MARGIN = 24  # pixels around the field of view


def of_phase(phase):
    specimen = SliceStack(jnp.asarray(phase[None]), None, 8.0, jnp.array(models.ORIGIN))
    return models.thin(specimen=specimen)


def cleaned(model, name, **keys):
    return np.asarray(jax.jit(lambda m: build(name, m, **keys)(m).specimen.phase)(model)[0])


def wave(ny, nx):
    """A cosine of ny and nx periods along the field."""
    return np.cos(
        2
        * np.pi
        * (
            ny * np.arange(models.FIELD[0])[:, None] / models.FIELD[0]
            + nx * np.arange(models.FIELD[1]) / models.FIELD[1]
        )
    )


def test_limits_and_shrinkage_of_single_phases():
    phase = np.zeros(models.FIELD)
    phase[0, :4] = [-4.0, -0.1, 0.3, 2.0]
    limited = cleaned(of_phase(phase), "phase_limits", lowest_rad=-1.0, highest_rad=1.5)
    np.testing.assert_allclose(limited[0, :5], [-1.0, -0.1, 0.3, 1.5, 0.0])
    shrunk = cleaned(of_phase(phase), "shrinkage", threshold_rad=0.2)
    np.testing.assert_allclose(shrunk[0, :5], [0.0, 0.0, 0.1, 1.8, 0.0], atol=1e-12)


def test_a_total_variation_step_moves_plateaus_by_the_weight_over_their_width():
    """The proximal step of one edge between plateaus of n columns: each moves by weight/n."""
    n = models.FIELD[1] // 2
    phase = np.repeat([[0.0] * n + [1.0] * n], models.FIELD[0], 0)
    found = cleaned(of_phase(phase), "total_variation_step", weight_rad=1.5, iterations=800)
    np.testing.assert_allclose(found[:, :n], 1.5 / n, atol=2e-3)
    np.testing.assert_allclose(found[:, n:], 1 - 1.5 / n, atol=2e-3)


@pytest.mark.parametrize("kind", [SliceStack, TransmissionStack])
def test_butterworth_scales_each_frequency_and_keeps_the_mean(kind):
    slow, fast = wave(1, 0), wave(0, 6)
    phase = 0.3 + 0.1 * slow + 0.1 * fast
    model = of_phase(phase)
    if kind is TransmissionStack:
        same = TransmissionStack(jnp.exp(1j * model.specimen.phase), 8.0, jnp.array(models.ORIGIN))
        model = eqx.tree_at(lambda m: m.specimen, model, same)
    keys = {"lowest_inverse_angstrom": 0.1, "highest_inverse_angstrom": 0.5, "order": 3}
    found = cleaned(model, "butterworth", **keys)

    def passed(k):
        return (1 - 1 / (1 + (k / 0.1) ** 6)) / (1 + (k / 0.5) ** 6)

    of_slow = passed(1 / (models.FIELD[0] * PIXEL[0]))
    of_fast = passed(6 / (models.FIELD[1] * PIXEL[1]))
    np.testing.assert_allclose(found, 0.3 + 0.1 * of_slow * slow + 0.1 * of_fast * fast, atol=1e-9)


def test_the_grid_of_a_scan_is_removed_and_all_else_remains():
    """Steps of an eighth and a sixth of the field."""
    steps = models.FIELD[0] * PIXEL[0] / 8, models.FIELD[1] * PIXEL[1] / 6
    object_ = 0.2 * wave(1, 2) + 0.1 * wave(5, 3)
    printed = object_ + 0.05 * wave(8, 0) + 0.02 * wave(8, 6) + 0.02 * wave(0, 12)
    keys = {"step_y_angstrom": steps[0], "step_x_angstrom": steps[1]}
    found = cleaned(of_phase(printed), "grid_artefact_removal", width_inverse_angstrom=0.05, **keys)
    np.testing.assert_allclose(found, object_, atol=1e-3)


def wide():
    """A specimen of a phase in the middle, far wider than the scan."""
    shape = tuple(n + 2 * MARGIN for n in models.FIELD)
    phase = np.zeros(shape)
    phase[MARGIN + 12 : MARGIN + 20, MARGIN + 12 : MARGIN + 20] = 0.4
    origin = np.array(models.ORIGIN) - MARGIN * np.array(PIXEL)
    return phase, SliceStack(jnp.asarray(phase[None]), None, 8.0, jnp.asarray(origin))


def test_outside_the_field_of_view_is_vacuum_and_the_baseline():
    phase, specimen = wide()
    noise = np.where(phase == 0, models.rng(60).normal(size=phase.shape), phase)
    noise[MARGIN:-MARGIN, MARGIN:-MARGIN] = phase[MARGIN:-MARGIN, MARGIN:-MARGIN]
    model = models.thin(specimen=eqx.tree_at(lambda s: s.phase, specimen, jnp.asarray(noise[None])))
    np.testing.assert_allclose(cleaned(model, "field_of_view", threshold=0.05), phase)
    lifted = models.thin(specimen=eqx.tree_at(lambda s: s.phase, specimen, specimen.phase + 0.7))
    np.testing.assert_allclose(cleaned(lifted, "vacuum_baseline"), phase, atol=1e-12)


def scan_of_two(distance, **parts):
    places = (
        jnp.asarray(models.positions())[:2]
        .at[1]
        .set(models.positions()[0] + jnp.array([0.0, distance]))
    )
    return models.thin(scan=FreeScan(PerShot(places)), **parts)


def test_tilts_of_two_shots_become_their_weighted_means():
    tilts = jnp.array([[0.01, -0.02], [0.03, 0.02]])
    model = scan_of_two(1.5, propagator=Tilted(PerShot(tilts)))
    found = build("smooth_tilts", model, sigma_angstrom=2.0)(model).propagator.angles.values
    w = np.exp(-(1.5**2) / 8)
    expected = np.array([tilts[0] + w * tilts[1], w * tilts[0] + tilts[1]]) / (1 + w)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_weights_of_a_relaxed_probe_are_smooth_and_keep_the_common_wave():
    weights = jnp.array([[1.0, 0.2], [0.1, -0.2]])
    basis = jnp.stack([models.pixel_probe(seed=s).waves for s in (4, 5)])
    model = scan_of_two(20.0, probe=RelaxedProbe(basis, PerShot(weights)))
    found = build("smooth_weights", model, sigma_angstrom=2.0, floor=0.8)(model)
    expected = [[1.0, 0.2], [0.8 * 0.55, -0.2]]  # too far apart to share
    np.testing.assert_allclose(found.probe.coefficients.values, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="no weights"):
        build("smooth_weights", models.thin(), sigma_angstrom=2.0)(models.thin())


def test_roughness_of_a_plane_wave_and_of_a_point():
    ny, nx = models.GRID.shape
    tilted = np.exp(2j * np.pi * (3 * np.arange(ny)[:, None] / ny + 2 * np.arange(nx) / nx))
    expected = 4 * np.sin(np.pi * 3 / ny) ** 2 + 4 * np.sin(np.pi * 2 / nx) ** 2
    plane = models.thin(probe=PixelProbe(jnp.asarray(tilted[None])))
    np.testing.assert_allclose(PENALTIES["probe_smoothness"](weight=5.0)(plane), 5 * expected)
    point = np.zeros((1, ny, nx), complex)
    point[0, ny // 2 + 3, nx // 2 - 2] = 7.0
    compact = models.thin(probe=PixelProbe(jnp.asarray(point)))
    np.testing.assert_allclose(
        PENALTIES["probe_spectrum_smoothness"](weight=5.0)(compact), 5 * expected
    )


def test_curves_of_cameras():
    """A Gaussian of 0.4 pixels by its transfer at Nyquist; 2/π of square pixels there."""
    gaussian = gaussian_mtf((128, 4), 0.4)[:65, 0]
    np.testing.assert_allclose(stretched(float(gaussian[-1]), 2.0), gaussian, rtol=1e-6)
    np.testing.assert_allclose(square_pixel()[[0, -1]], [1, 2 / np.pi])
    section = Detector.model_validate({"mtf": {"kind": "stretched", "at_nyquist": 0.3}})
    assert build_entry(section.mtf, CAMERA_CURVES)[-1] == pytest.approx(0.3)
