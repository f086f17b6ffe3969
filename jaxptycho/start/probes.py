"""The probes of all views as one, and the radius of a probe."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ..parts.indexed import PerView, first_shot
from ..parts.probe import AbstractProbe
from ..physics import waves
from ..physics.grids import Grid

LIT = 0.95  # of the power is within the radius


def of_every_view(probes: Sequence[AbstractProbe]) -> AbstractProbe:
    """One probe, of which every number is `PerView`, from those of single views."""
    return jax.tree.map(lambda *own: PerView(jnp.stack(own)), *probes)


def radius_of(probe: AbstractProbe, grid: Grid) -> float:
    """The radius [Å] about its centre within which a probe, the first shot's of the first view, has
    95 % of its power.
    """
    own = first_shot(probe).spectrum(grid)
    seen = np.fft.fftshift(np.asarray(waves.intensity(waves.inverse_fourier(own))))
    y, x = (p * (np.arange(n) - n // 2) for n, p in zip(grid.shape, grid.pixel, strict=True))
    away = np.hypot(y[:, None], x)
    order = np.argsort(away, axis=None)
    power = np.cumsum(seen.ravel()[order])
    return float(away.ravel()[order][np.searchsorted(power, LIT * power[-1])])
