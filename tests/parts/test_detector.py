from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import DETECTORS, FIELD, GRID, N_SHOTS, ORIGIN, batch_for, mask, rng, thin

from jaxptycho import (
    Background,
    Blurred,
    Cropped,
    Gain,
    Ideal,
    Masked,
    ModulationTransfer,
    NearField,
    PerShot,
    SliceStack,
    SuperSampled,
    amplitude,
    anscombe,
    gaussian,
    misfit,
    poisson,
    predict,
    select,
)
from jaxptycho.physics import detection, waves

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SHAPES = {"super_sampled": (8, 6), "cropped": (10, 8), "nested": (8, 6)}


def wave(seed=0):
    values = rng(seed).normal(size=(2, 2, *GRID.shape))
    return jnp.asarray(values[0] + 1j * values[1])


def leaving():
    """The wave behind a slice."""
    return waves.Exit(wave(), jnp.exp(1j * rng(7).normal(size=GRID.shape)))


def ideal():
    return Ideal().detect(leaving(), GRID)


@pytest.mark.parametrize("name", [n for n in DETECTORS if n != "gain"])
def test_pattern_has_the_shape_of_the_detector(name):
    detector = select(DETECTORS[name](), PerShot, 0)
    assert detector.detect(leaving(), GRID).shape == SHAPES.get(name, GRID.shape)


def test_ideal_is_the_far_field():
    spectrum = jnp.fft.fft2(leaving().wave, norm="ortho")
    np.testing.assert_allclose(ideal(), waves.intensity(spectrum), rtol=1e-10)


def test_near_field_at_no_distance_is_the_wave_itself():
    held = NearField(jnp.array(0.0)).detect(leaving(), GRID)
    np.testing.assert_allclose(jnp.fft.fftshift(held), waves.intensity(leaving().wave), rtol=1e-10)


def test_probe_rests_before_a_near_field_camera():
    """Without a specimen the hologram is the same wherever the probe is said to stand."""
    empty = SliceStack(jnp.zeros((1, *FIELD)), None, 1.0, jnp.array(ORIGIN))
    patterns = eqx.filter_jit(predict)(
        thin(specimen=empty, detector=NearField(jnp.array(40.0))), jnp.arange(3)
    )
    np.testing.assert_allclose(
        patterns[1:], jnp.stack([patterns[0]] * 2), atol=0.02 * float(patterns.max())
    )


def test_gain_and_background():
    np.testing.assert_allclose(Gain(jnp.array(2.5)).detect(leaving(), GRID), 2.5 * ideal())
    image = jnp.asarray(rng(1).uniform(size=GRID.shape))
    np.testing.assert_allclose(Background(image).detect(leaving(), GRID), ideal() + image)
    ordered = Gain(jnp.array(2.0), Background(jnp.array(1.0))).detect(leaving(), GRID)
    np.testing.assert_allclose(ordered, 2 * (ideal() + 1))


@pytest.mark.parametrize(
    "detector", [Blurred(jnp.array(0.9)), ModulationTransfer(jnp.array([1.0, 0.6, 0.2]))]
)
def test_blurring_spreads_counts_and_keeps_them(detector):
    blurred = detector.detect(leaving(), GRID)
    assert float(blurred.sum()) == pytest.approx(float(ideal().sum()))
    assert float(blurred.std()) < float(ideal().std())


def test_super_sampling_sums_model_pixels():
    np.testing.assert_allclose(
        SuperSampled(factor=2).detect(leaving(), GRID),
        detection.sum_pixels(waves.far_field(leaving()), 2),
    )


def test_cropping_keeps_the_middle_in_the_corner():
    held = Cropped((4, 4)).detect(leaving(), GRID)
    np.testing.assert_array_equal(held[0, 0], ideal()[0, 0])
    np.testing.assert_array_equal(held[-1, -2], ideal()[-1, -2])


def test_wrappers_apply_from_the_inside():
    nested = Masked(mask((8, 6)), Background(jnp.array(0.5), SuperSampled(factor=2))).detect(
        leaving(), GRID
    )
    expected = np.where(mask((8, 6)), detection.sum_pixels(ideal(), 2) + 0.5, 0.0)
    np.testing.assert_allclose(nested, expected)


@pytest.mark.parametrize(
    "noise",
    [amplitude, anscombe, partial(gaussian, variance=2.0), poisson],
    ids=["amplitude", "anscombe", "gaussian", "poisson"],
)
def test_losses_are_blind_to_masked_pixels(noise):
    """What the model puts on them, and even its gradient, makes no difference."""
    seen = mask()
    image = jnp.where(seen, 0.0, 50.0)  # counts that fall on masked pixels alone
    model = thin(detector=Masked(seen, Background(image)))
    batch = batch_for(model)
    assert float(jnp.abs(jnp.where(seen, 0.0, batch.counts)).max()) == 0.0
    loss = misfit(noise)

    @eqx.filter_jit
    def value_and_gradient(image):
        return jax.value_and_grad(
            lambda b: loss(eqx.tree_at(lambda m: m.detector.detector.counts, model, b), batch)
        )(image)

    value, gradient = value_and_gradient(image)
    other, _ = value_and_gradient(2 * image)
    assert float(value) == pytest.approx(float(other), rel=1e-12)
    np.testing.assert_array_equal(jnp.where(seen, 0.0, gradient), 0.0)
    assert float(jnp.abs(gradient).max()) > 0


def test_per_shot_gain_is_the_intensity_of_each_shot():
    gain = DETECTORS["gain"]()
    shots = jnp.arange(N_SHOTS)
    both = eqx.filter_jit(lambda a, b: (predict(a, shots), predict(b, shots)))(
        thin(detector=gain), thin()
    )
    np.testing.assert_allclose(both[0], both[1] * gain.factor.values[:, None, None], rtol=1e-10)
