"""Multislice by matrix products in one kernel: the waves and gradients of `waves.multislice`, here interpreted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import phases, pixel_probe, positions, tilts

from jaxptycho import (
    Batch,
    FreeScan,
    Grid,
    Model,
    PerShot,
    SliceStack,
    Tilted,
    distribute,
    mesh,
    misfit,
    poisson,
)
from jaxptycho.kernels import pallas_multislice
from jaxptycho.physics import waves

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def multislice_fused(wave, slices, kernel):
    return waves.Exit(pallas_multislice.multislice_fused(wave, slices, kernel), slices[-1])


def multislice_fused_dft(wave, slices, kernel):
    return waves.Exit(pallas_multislice.multislice_fused_dft(wave, slices, kernel), slices[-1])


def noise(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=(2, *shape))
    return jnp.asarray(values[0] + 1j * values[1], jnp.complex64)


def kernels(name, grid, gaps):
    """Transfer functions in single precision."""
    own = jax.vmap(lambda d: waves.fresnel(grid, d) * waves.tilt(grid, d, (0.02, -0.01)))(
        3.0 + jnp.arange(gaps + 1)
    )
    limited = waves.angular_spectrum(grid, 20.0) * waves.band_limit(grid)
    return {"shared": waves.fresnel(grid, 20.0), "own, tilted": own, "limited": limited}[
        name
    ].astype(jnp.complex64)


@pytest.mark.parametrize(
    ("fused", "name", "shape", "modes", "slices"),
    [
        (multislice_fused_dft, "limited", (16, 32), 2, 3),
        pytest.param(multislice_fused, "own, tilted", (32, 32), 2, 4, marks=pytest.mark.slow),
        pytest.param(multislice_fused, "shared", (64, 64), 1, 2, marks=pytest.mark.slow),
        pytest.param(multislice_fused, "own, tilted", (128, 128), 2, 4, marks=pytest.mark.slow),
        pytest.param(multislice_fused_dft, "own, tilted", (128, 128), 2, 4, marks=pytest.mark.slow),
    ],
)
def test_waves_and_gradients_are_those_of_multislice(fused, name, shape, modes, slices):
    grid, shots = Grid(shape, (0.3, 0.4), voltage_kv=80.0), 2
    entering, kernel = noise(shots, modes, *shape), kernels(name, grid, slices - 1)
    specimen = jnp.exp(0.5j * noise(shots, slices, *shape, seed=1))
    back = noise(shots, modes, *shape, seed=2)

    @jax.jit
    def derived(wave, slices, kernel):
        def exits(multislice):
            wave_out, pull = jax.vjp(
                lambda *a: jax.vmap(lambda *b: multislice(*b).wave, (0, 0, None))(*a),
                wave,
                slices,
                kernel,
            )
            return wave_out, *pull(back)

        return exits(fused), exits(waves.multislice)

    for found, expected in zip(*derived(entering, specimen, kernel), strict=True):
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max())
        )


def test_without_gradient_the_wave_is_the_same():
    grid = Grid((16, 16), 0.3, voltage_kv=80.0)
    arguments = (
        noise(2, 16, 16),
        jnp.exp(0.5j * noise(3, 16, 16, seed=1)),
        kernels("shared", grid, 2),
    )
    found, expected = (
        jax.jit(function)(*arguments) for function in (multislice_fused, waves.multislice)
    )
    np.testing.assert_allclose(
        found.wave, expected.wave, rtol=0, atol=1e-5 * float(jnp.abs(expected.wave).max())
    )


@pytest.fixture(scope="module")
def tilted_series():
    """A model of thick slices, every shot with its own tilt, and a batch."""
    grid, field = Grid((16, 32), (0.4, 0.5), voltage_kv=80.0), (32, 48)
    model = Model(
        probe=pixel_probe(grid=grid),
        specimen=SliceStack(
            phases(3, field), None, jnp.array([5.0, 12.0, 8.0]), jnp.array((-2.0, 1.0))
        ),
        scan=FreeScan(PerShot(positions(grid, field))),
        grid=grid,
        propagator=Tilted(PerShot(tilts())),
    )
    return model, Batch(np.int32(0), np.arange(6), np.ones((6, *grid.shape), np.uint16), np.ones(6))


@pytest.mark.slow
def test_batches_of_shots_with_own_tilts(tilted_series):
    """Gradients by everything, tilts and thicknesses included, in micro-batches."""
    model, batch = tilted_series

    def gradient(multislice):
        loss = misfit(poisson, 3, multislice)
        return jax.tree.leaves(jax.jit(jax.value_and_grad(lambda model: loss(model, batch)))(model))

    for found, expected in zip(gradient(multislice_fused), gradient(waves.multislice), strict=True):
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=1e-9 * float(jnp.abs(expected).max())
        )


def test_what_does_not_suit_is_refused_or_nan():
    grid = Grid((16, 16), 0.05, voltage_kv=80.0)
    slices = jnp.ones((2, 16, 16), jnp.complex64)
    assert np.isnan(
        jax.jit(multislice_fused)(noise(1, 16, 16), slices, kernels("limited", grid, 1)).wave
    ).all()
    with pytest.raises(
        ValueError,
        match="windows of 12 × 16 pixels do not suit the fused multislice, which supports 16",
    ):
        multislice_fused(noise(1, 12, 16), slices[:, :12], kernels("limited", grid, 1)[:12])


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="newer versions ask for the GPU's name")
def test_lowers_for_several_gpus(tilted_series):
    model, batch = tilted_series
    loss = distribute(misfit(poisson, 3, multislice_fused), mesh(2))
    traced = jax.jit(jax.grad(lambda model: loss(model, batch))).trace(model)
    assert traced.lower(lowering_platforms=("cuda",)).as_text().count("__gpu$xla.gpu.triton") == 2
