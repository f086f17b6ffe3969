"""Sampling grids and beam constants. Lengths in Å, frequencies in 1/Å, energies in kV."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .types import Scalar

REST_ENERGY_EV = 510_998.95
PHOTON_KEV_ANGSTROM = 12.398_42  # hc
VOLTAGE_KV = (0.3, 5000.0)  # range of plausible voltages; others are in another unit


def electron_wavelength(voltage_kv: float) -> float:
    """Relativistic wavelength of an electron [Å] (Kirkland 2010, eq. 2.5)."""
    energy = 1e3 * voltage_kv
    return 12.2643 / math.sqrt(energy * (1 + 0.978476e-6 * energy))


def interaction_constant(voltage_kv: float) -> float:
    """Phase σ per projected potential [rad/(V·Å)] (Kirkland 2010, eq. 5.6)."""
    energy = 1e3 * voltage_kv
    relativistic = (energy + REST_ENERGY_EV) / (energy + 2 * REST_ENERGY_EV)
    return 2 * math.pi * relativistic / (electron_wavelength(voltage_kv) * energy)


class Grid(eqx.Module):
    """Sampling of a wave, and its wavelength.

    `Grid(shape=(128, 128), pixel=0.2, voltage_kv=80.0)`, or `wavelength=…` [Å] for photons
    and any other wave. `pixel` [Å] may differ between y and x, as for a rectangular
    pattern with square detector pixels.
    """

    shape: tuple[int, int] = eqx.field(static=True)
    pixel: tuple[float, float] = eqx.field(static=True)
    wavelength: float = eqx.field(static=True)
    voltage_kv: float | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Any,
        pixel: Any,
        voltage_kv: float | None = None,
        wavelength: float | None = None,
    ) -> None:
        if voltage_kv is not None and not VOLTAGE_KV[0] <= voltage_kv <= VOLTAGE_KV[1]:
            raise ValueError(
                f"voltage_kv = {voltage_kv}, where {VOLTAGE_KV[0]:g} to {VOLTAGE_KV[1]:g} kV are "
                "expected; is it in V?"
            )
        if voltage_kv is not None and wavelength is None:
            self.voltage_kv = float(voltage_kv)
            self.wavelength = electron_wavelength(float(voltage_kv))
        elif voltage_kv is None and wavelength is not None:
            self.voltage_kv = None
            self.wavelength = float(wavelength)
        else:
            raise ValueError(
                "a Grid requires either voltage_kv [kV] or wavelength [Å], exactly one of them"
            )
        ny, nx = (int(n) for n in shape)
        py, px = (float(p) for p in (pixel if isinstance(pixel, (tuple, list)) else (pixel, pixel)))
        self.shape = (ny, nx)
        self.pixel = (py, px)
        if min(ny, nx) < 1 or min(py, px, self.wavelength) <= 0:
            raise ValueError(
                f"a Grid requires positive lengths; got shape {(ny, nx)}, pixel {(py, px)} Å, "
                f"wavelength {self.wavelength} Å"
            )

    @property
    def sigma(self) -> float:
        """Interaction constant σ [rad/(V·Å)]; electrons only."""
        if self.voltage_kv is None:
            raise ValueError(
                "only electrons are scattered by a potential: give this Grid voltage_kv, not "
                "wavelength"
            )
        return interaction_constant(self.voltage_kv)

    @property
    def dk(self) -> tuple[float, float]:
        """Frequency step of the pattern (y, x) [1/Å]."""
        return 1 / (self.shape[0] * self.pixel[0]), 1 / (self.shape[1] * self.pixel[1])

    def frequencies(self) -> tuple[Float[Array, "y 1"], Float[Array, "1 x"]]:
        """Spatial frequencies (k_y, k_x) [1/Å], zero in the corner."""
        (ny, nx) = self.shape
        (py, px) = self.pixel
        ky, kx = np.fft.fftfreq(ny, py), np.fft.fftfreq(nx, px)
        return jnp.asarray(ky[:, None]), jnp.asarray(kx[None, :])

    def k2(self) -> Float[Array, "y x"]:
        """Squared spatial frequency [1/Å²], zero in the corner."""
        ky, kx = self.frequencies()
        return ky**2 + kx**2


def plane_frequencies(
    shape: tuple[int, ...], pixel: Sequence[Scalar] = (1.0, 1.0)
) -> tuple[Float[Array, "y 1"], Float[Array, "1 f"]]:
    """Frequencies (k_y, k_x) of `rfft2` [1/Å, or cycles per pixel by default]."""
    ky = jnp.fft.fftfreq(shape[0], pixel[0])
    kx = jnp.fft.rfftfreq(shape[1], pixel[1])
    return ky[:, None], kx[None, :]
