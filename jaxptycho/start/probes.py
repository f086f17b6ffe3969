"""Probes at another height, and those of all views as one."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..inverse.fields import entries, over
from ..parts.indexed import PerShot, PerView, select
from ..parts.probe import AberratedProbe, AbstractProbe, PixelProbe
from ..physics import waves
from ..physics.grids import Grid

LIT = 0.95  # of the power lies within the radius


def moved_along(probe: AbstractProbe, grid: Grid, distance: float) -> AberratedProbe | PixelProbe:
    """The probe [√quanta] as it is `distance` [Å] further along the beam: less underfocus, or other pixels."""
    if isinstance(probe, AberratedProbe):
        defocus = over(lambda c10: c10 + distance, probe.aberrations.get("C10", jnp.zeros(())))
        return eqx.tree_at(lambda p: p.aberrations, probe, probe.aberrations | {"C10": defocus})
    kernel = waves.fresnel(grid, distance)

    def one(own: AbstractProbe):
        return jnp.fft.fftshift(waves.inverse_fourier(kernel * own.spectrum(grid)), axes=(-2, -1))

    views = entries(probe, PerView)
    if views == 1:
        return PixelProbe(one(probe))
    return PixelProbe(PerView(jnp.stack([one(select(probe, PerView, view)) for view in range(views)])))


def of_every_view(probes: Sequence[AbstractProbe]) -> AbstractProbe:
    """One probe, of which every number is `PerView`, from those of single views."""
    return jax.tree.map(lambda *own: PerView(jnp.stack(own)), *probes)


def radius_of(probe: AbstractProbe, grid: Grid) -> float:
    """The radius [Å] about its centre within which a probe, the first shot's of the first view, has 95 % of its power."""
    own = select(select(probe, PerView, 0), PerShot, 0).spectrum(grid)
    seen = np.fft.fftshift(np.asarray(waves.intensity(waves.inverse_fourier(own))))
    y, x = (p * (np.arange(n) - n // 2) for n, p in zip(grid.shape, grid.pixel, strict=True))
    away = np.hypot(y[:, None], x)
    order = np.argsort(away, axis=None)
    power = np.cumsum(seen.ravel()[order])
    return float(away.ravel()[order][np.searchsorted(power, LIT * power[-1])])
