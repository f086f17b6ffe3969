"""Multislice in little memory: the waves and gradients of `waves.multislice`, in fewer bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import Grid
from jaxptycho.physics import waves
from jaxptycho.physics.checkpointed import multislice_reversible, multislice_sqrt

pytestmark = pytest.mark.usefixtures("quick_to_compile")

GRID = Grid((12, 8), (0.4, 0.5), voltage_kv=80.0)
CHECKPOINTED = pytest.mark.parametrize("function", [multislice_sqrt, multislice_reversible])
KERNELS = {
    "shared": lambda n: waves.angular_spectrum(GRID, 20.0),
    "own, tilted": lambda n: jax.vmap(
        lambda d: waves.fresnel(GRID, d) * waves.tilt(GRID, d, (0.02, -0.01))
    )(3.0 + jnp.arange(n)),
}


def noise(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=(2, *shape))
    return jnp.asarray(values[0] + 1j * values[1])


def specimen(n, seed=1):
    """Slices of random phase, and of transmissions down to 0.4."""
    values = noise(n, *GRID.shape, seed=seed)
    return jnp.exp(1j * values.real - jnp.minimum(0.3 * jnp.abs(values.imag), 0.9))


def derived(function, *arguments):
    """The exit wave and its cotangents' way back to wave, slices and kernel."""
    wave, pull = jax.vjp(jax.jit(lambda *a: function(*a).wave), *arguments)
    return wave, *pull(noise(*wave.shape, seed=9))


@CHECKPOINTED
@pytest.mark.parametrize(("name", "n"), [("shared", 1), ("shared", 2), ("own, tilted", 7)])
def test_waves_and_gradients_are_those_of_multislice(function, name, n):
    arguments = noise(2, *GRID.shape), specimen(n), KERNELS[name](n)
    for a, b in zip(
        derived(function, *arguments), derived(waves.multislice, *arguments), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * max(1.0, float(jnp.abs(b).max())))


def test_sqrt_takes_any_kernel_and_transmission():
    kernel = waves.fresnel(GRID, 20.0) * waves.band_limit(GRID)
    arguments = noise(2, *GRID.shape), specimen(6).at[2, 3].set(0.0), kernel
    for a, b in zip(
        derived(multislice_sqrt, *arguments), derived(waves.multislice, *arguments), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * float(jnp.abs(b).max()))


@CHECKPOINTED
def test_shots_with_own_windows_share_a_kernel(function):
    windows, entering = noise(3, 5, *GRID.shape) / 3 + 1.5, noise(2, *GRID.shape)
    kernel = KERNELS["shared"](5)

    def loss(multislice, windows, kernel):
        return jnp.sum(
            jax.vmap(lambda w: waves.far_field(multislice(entering, w, kernel)))(windows) ** 2
        )

    a, b = (
        jax.jit(jax.grad(lambda *x, f=f: loss(f, *x), (0, 1)))(windows, kernel)
        for f in (function, waves.multislice)
    )
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * float(jnp.abs(other).max()))


@pytest.mark.parametrize(
    ("slices", "factor", "forward"),
    [(specimen(3), waves.band_limit(GRID), False), (specimen(3).at[1, 2, 3].set(0.05), 1.0, True)],
)
def test_what_cannot_be_traced_back_is_nan_and_never_wrong(slices, factor, forward):
    arguments = noise(1, *GRID.shape), slices, waves.fresnel(GRID, 20.0) * factor
    wave, *gradient = derived(multislice_reversible, *arguments)
    assert np.isfinite(wave).all() == forward
    assert np.isnan(gradient[1]).any()


def test_fewer_waves_are_kept():
    """In units of one wave of one mode: n modes for multislice, 2√n for its root, none for the reversible."""
    modes, n = 8, 36
    wave, slices, kernel = noise(modes, 32, 32), noise(n, 32, 32), noise(32, 32)

    def planes(function):
        gradient = jax.grad(lambda *x: waves.far_field(function(*x)).sum(), (0, 1))
        compiled = jax.jit(gradient).lower(wave, slices, kernel).compile()
        return compiled.memory_analysis().temp_size_in_bytes / wave[0].nbytes

    stored, root, reversible = map(
        planes, (waves.multislice, multislice_sqrt, multislice_reversible)
    )
    assert stored > n * modes
    assert root < 0.55 * stored
    assert reversible < 0.3 * stored
