"""The forward model: which counts are expected for these shots?"""

import equinox as eqx
import jax
import jax.numpy as jnp

from .parts.detector import AbstractDetector, Ideal
from .parts.indexed import PerShot, PerView, select
from .parts.probe import AbstractProbe
from .parts.propagator import AbstractPropagator, Fresnel
from .parts.scan import AbstractScan
from .parts.specimen import AbstractSpecimen, Sliced
from .physics import waves
from .physics.grids import Grid
from .physics.types import Index, Indices, Pattern, Patterns, Waves, Window


class Model(eqx.Module):
    """Everything that decides a pattern; each part is replaceable by one of your own."""

    probe: AbstractProbe
    specimen: AbstractSpecimen
    scan: AbstractScan
    grid: Grid
    propagator: AbstractPropagator = Fresnel()
    detector: AbstractDetector = Ideal()


def exit_wave(model: Model, sliced: Sliced, window: Window, centre) -> Waves:
    """Wave behind the specimen of one shot [√quanta], in real space.

    `window` holds the transmissions under the probe, `centre` is where the probe's centre
    stands in it [Å]; in `model` nothing varies any more.
    """
    grid = model.grid
    wave = waves.place(model.probe.spectrum(grid), centre, grid)
    if window.shape[0] == 1:
        return waves.transmit(wave, window[0])
    kernel = model.propagator.kernel
    if jnp.ndim(sliced.thickness) == 0:
        return waves.multislice(wave, window, kernel(grid, sliced.thickness))
    kernels = jax.vmap(lambda distance: kernel(grid, distance))(jnp.asarray(sliced.thickness))
    return waves.multislice(wave, window, kernels)


def shoot(model: Model, sliced: Sliced, window: Window, centre) -> Pattern:
    """Expected counts of one shot; arguments as for `exit_wave`."""
    grid = model.grid
    offset = centre - jnp.asarray([n // 2 * p for n, p in zip(grid.shape, grid.pixel, strict=True)])
    return model.detector.detect(exit_wave(model, sliced, window, centre), grid, offset)


def predict(model: Model, shots: Indices, view: Index = 0) -> Patterns:
    """Expected counts [shot, y, x] of some shots of one view, zero frequency in the corner.

    A pure function: jit, vmap, differentiate or linearize it. The specimen is sliced once.
    """
    model = select(model, PerView, view)
    sliced = model.specimen.slices(model.grid)

    def of_shot(shot):
        one, seen = select((model, sliced), PerShot, shot)
        corner, centre = seen.corner(one.scan.position(), one.grid)
        return shoot(one, seen, seen.window(corner, one.grid), centre)

    return jax.vmap(of_shot)(jnp.asarray(shots))
