from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import N_SHOTS, any_batch, batch_for, rng, thin

from jaxptycho import (
    Batch,
    Dataset,
    amplitude,
    anscombe,
    gaussian,
    make_batch,
    misfit,
    poisson,
    predict,
)

pytestmark = pytest.mark.usefixtures("quick_to_compile")

NOISES = {
    "amplitude": amplitude,
    "anscombe": anscombe,
    "gaussian": partial(gaussian, variance=3.0),
    "poisson": poisson,
}
noises = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)


@noises
def test_perfect_fit_is_zero_and_nothing_is_less(noise):
    counts = jnp.array([0.0, 1.0, 5.0, 1e4])
    np.testing.assert_allclose(noise(counts, counts), 0.0, atol=1e-9)
    np.testing.assert_allclose(jax.vmap(jax.grad(noise))(counts, counts), 0.0, atol=1e-9)
    for factor in (0.5, 0.99, 1.01, 3.0):
        assert (noise(factor * counts + 1e-3, counts) > 0).all()


@noises
def test_derivative_is_right_and_finite_down_to_zero(noise):
    predicted, counts = (
        jnp.array([0.0, 1e-3, 0.7, 3.0, 40.0]),
        jnp.array([2.0, 0.0, 0.0, 5.0, 30.0]),
    )
    slope = jax.vmap(jax.grad(noise))(predicted, counts)
    step = 1e-7
    measured = (noise(predicted + step, counts) - noise(predicted - step, counts)) / (2 * step)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(slope[1:], measured[1:], rtol=1e-5)
    below = jax.vmap(jax.grad(noise))(-predicted - 0.1, counts)  # ringing of a blurred pattern
    assert np.isfinite(below).all()


def test_closed_forms():
    model, seen = 3.0, 5.0
    assert float(poisson(model, seen, eps=0.0)) == pytest.approx(3 - 5 + 5 * np.log(5 / 3))
    assert float(poisson(model, 0.0, eps=0.0)) == pytest.approx(3.0)
    assert float(gaussian(model, seen, 2.0)) == pytest.approx(1.0)
    assert float(amplitude(model, seen, eps=0.0)) == pytest.approx((np.sqrt(5) - np.sqrt(3)) ** 2)
    assert float(anscombe(model, seen)) == pytest.approx((np.sqrt(5.375) - np.sqrt(3.375)) ** 2)


@pytest.mark.parametrize(
    ("noise", "mean", "expected"),
    [
        (poisson, 1000.0, 0.5),
        (amplitude, 1000.0, 0.25),
        (anscombe, 6.0, 0.25),
        (partial(gaussian, variance=1000.0), 1000.0, 0.5),
    ],
)
def test_right_model_leaves_the_noise(noise, mean, expected):
    """Half a count of deviance per pixel, a quarter of squared amplitude."""
    counts = jnp.asarray(rng(5).poisson(mean, 200_000).astype(float))
    assert float(jnp.mean(noise(mean, counts))) == pytest.approx(expected, rel=0.02)


def test_misfit_is_the_mean_over_shots_of_the_sum_over_pixels():
    model = thin()
    batch = batch_for(model)
    by_shot = np.asarray(
        poisson(eqx.filter_jit(predict)(model, batch.shots), batch.counts.astype(float))
    ).sum((1, 2))
    loss = eqx.filter_jit(misfit(poisson))
    assert float(loss(model, batch)) == pytest.approx(by_shot.mean(), rel=1e-10)
    weight = jnp.array([1.0, 0.0, 2.0, 1.0, 0.0, 0.5, 1.0])
    weighted = Batch(batch.view, batch.shots, batch.counts, weight)
    assert float(loss(model, weighted)) == pytest.approx(
        np.average(by_shot, weights=weight), rel=1e-10
    )


def test_padding_changes_nothing():
    model = thin()
    full = batch_for(model)
    short = Batch(full.view, full.shots[:3], full.counts[:3], full.weight[:3])
    noise = rng(6).poisson(50, full.counts[3:].shape)
    padded = Batch(
        full.view,
        np.r_[full.shots[:3], [0] * (N_SHOTS - 3)].astype(np.int32),
        jnp.concatenate([full.counts[:3], noise.astype(np.float32)]),
        jnp.asarray(np.r_[np.ones(3), np.zeros(N_SHOTS - 3)].astype(np.float32)),
    )
    loss = eqx.filter_jit(misfit(amplitude))
    assert float(loss(model, padded)) == pytest.approx(float(loss(model, short)), rel=1e-12)


def test_loss_of_nothing_is_zero():
    model = thin()
    batch = any_batch(model, weight=np.zeros(N_SHOTS))
    assert float(eqx.filter_jit(misfit(poisson))(model, batch)) == 0.0


def test_counts_may_be_integers():
    model = thin()
    float_batch = batch_for(model)
    whole = np.asarray(float_batch.counts).astype(np.uint16)
    data = Dataset(np.fft.fftshift(whole, axes=(1, 2)), model.scan.positions.values, model.grid)
    batch = make_batch(data, 0, np.arange(N_SHOTS))
    assert batch.counts.dtype == np.uint16
    loss = eqx.filter_jit(misfit(poisson))
    assert float(loss(model, batch)) == pytest.approx(float(loss(model, float_batch)), rel=1e-12)
