"""The lens, and everything that makes its beam incoherent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, qmc

from ..parts.probe import AberratedProbe
from ..physics.aberrations import cartesian, phase_surface
from ..physics.grids import REST_ENERGY_EV, Grid

RAYS = 64  # across the aperture, of which the farthest tells how wide the probe is
PER_FWHM = 1 / (2 * sqrt(2 * np.log(2)))  # standard deviations of a Gaussian


@dataclass(frozen=True)
class Microscope:
    """A probe-forming lens with a source of finite size and energy width."""

    semiangle: float  # rad
    defocus: float = 0.0  # Å at the entrance face, > 0 is underfocus
    aberrations: Mapping[str, float] = field(default_factory=dict)  # Å; see `physics.aberrations`
    source_fwhm: float = 0.0  # Å on the specimen
    chromatic: float = 0.0  # Cc [Å]
    energy_fwhm: float = 0.0  # eV

    def probe(self, dose: float, defocus: float = 0.0) -> AberratedProbe:
        """The coherent probe of `dose` electrons, at `defocus` [Å] more than its own."""
        return AberratedProbe(self.semiangle, dict(self.aberrations) | {"defocus": self.defocus + defocus}, dose)

    def width(self, grid: Grid, defocus: float) -> float:
        """Diameter [Å] of the probe at a `defocus` [Å]: the farthest ray at ∇χ/2π, and the first ring of Airy's disc."""
        rim = self.semiangle / grid.wavelength
        pupil = Grid((RAYS, RAYS), 1 / (2 * rim), wavelength=grid.wavelength)
        coefficients = cartesian({name: value for name, value in self.aberrations.items() if name != "C10"})
        surface = np.fft.fftshift(phase_surface(coefficients | {"C10": -defocus}, pupil))
        slopes = np.gradient(surface, *pupil.dk, edge_order=2)
        inside = np.fft.fftshift(pupil.k2()) <= 1.0001 * rim**2
        reach = np.hypot(*slopes)[inside].max() / (2 * np.pi)
        return float(2 * reach + 1.22 * grid.wavelength / self.semiangle)

    def focal_spread(self, voltage_kv: float) -> float:
        """Standard deviation of the defocus [Å], Cc·ΔE/E·(1 + E/E₀)/(1 + E/2E₀) with E₀ = m₀c²
        (Kirkland 2010, eq. 3.41 with the relativistic factor of Reimer & Kohl 2008, eq. 2.65)."""
        energy = 1e3 * voltage_kv
        relativistic = (1 + energy / REST_ENERGY_EV) / (1 + energy / (2 * REST_ENERGY_EV))
        return self.chromatic * self.energy_fwhm * PER_FWHM / energy * relativistic

    def incoherent(
        self, configurations: int, shots: int, voltage_kv: float, rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, "c shot 2"]]:
        """Defocus [Å] of every configuration and shift of the source [Å] for every shot of it.

        One ensemble samples all that is incoherent. Its points fill their space evenly (a
        Sobol sequence for the source, moved at random for every shot; the middles of equal
        parts for the defocus), so that few of them go far.
        """
        middles = rng.permutation((np.arange(configurations) + 0.5) / configurations)
        power = max(0, int(np.ceil(np.log2(configurations))))
        even = qmc.Sobol(2, rng=rng).random_base2(power)[:configurations]
        own = (even[:, None] + rng.random((shots, 2))) % 1
        shifts = PER_FWHM * self.source_fwhm * norm.ppf(np.clip(own, 1e-6, 1 - 1e-6))
        return self.focal_spread(voltage_kv) * norm.ppf(middles), shifts
