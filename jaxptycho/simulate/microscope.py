"""The lens, and everything that makes its beam incoherent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from jaxtyping import Complex, Float
from scipy.stats import norm, qmc

from ..parts.probe import AberratedProbe
from ..physics.aberrations import cartesian, phase_surface
from ..physics.grids import REST_ENERGY_EV, Grid

NODES = 7  # of a Gaussian
REST = 1e-3  # of the intensity, left out
MAX_MODES = 12
RAYS = 64  # across the aperture, of which the farthest gives the width of the probe
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
        """Coherent probe of `dose` electrons, at `defocus` [Å] in addition to that of the lens."""
        return AberratedProbe(
            self.semiangle, dict(self.aberrations) | {"defocus": self.defocus + defocus}, dose
        )

    def modes(
        self, grid: Grid, dose: float, defocus: float = 0.0
    ) -> Complex[np.ndarray, "mode y x"]:
        """Spectra [√electrons] of the orthogonal waves whose incoherent sum is the beam, the
        strongest first.

        Of ρ(k, k′) = ψ(k) ψ*(k′) averaged over Gaussian shifts of the source and defoci, by
        Gauss–Hermite quadrature: those that together are all but 10⁻³ of it, at most 12 (Thibault &
        Menzel, Nature 494, 68 (2013)).
        """
        sigma = PER_FWHM * self.source_fwhm
        spread = self.focal_spread(grid.voltage_kv or 0.0)
        ky, kx = (np.asarray(k, float) for k in grid.frequencies())
        shifts = [
            (np.exp(-2j * np.pi * (y * ky + x * kx)), v * w)
            for y, v in nodes(sigma)
            for x, w in nodes(sigma)
        ]
        found = []
        for more, weight in nodes(spread):
            wave = np.asarray(self.probe(dose, defocus + more).spectrum(grid))[0]
            found.append(
                orthogonal(
                    np.stack([np.sqrt(weight * w) * shift * wave for shift, w in shifts]), 1e-6
                )
            )
        return orthogonal(np.concatenate(found), REST)[:MAX_MODES]

    def width(self, grid: Grid, defocus: float) -> float:
        """Diameter [Å] of the probe at a `defocus` [Å]: the farthest ray at ∇χ/2π, and the first
        ring of Airy's disc.
        """
        rim = self.semiangle / grid.wavelength
        pupil = Grid((RAYS, RAYS), 1 / (2 * rim), wavelength=grid.wavelength)
        coefficients = cartesian(
            {name: value for name, value in self.aberrations.items() if name != "C10"}
        )
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


def nodes(sigma: float) -> list[tuple[float, float]]:
    """Nodes and weights of a Gaussian of this width; one node for zero width."""
    if not sigma:
        return [(0.0, 1.0)]
    places, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return list(zip(sigma * places, weights / weights.sum(), strict=True))


def orthogonal(
    waves: Complex[np.ndarray, "wave y x"], rest: float
) -> Complex[np.ndarray, "mode y x"]:
    """Orthogonal waves with the same incoherent sum but for a part `rest` of its intensity, the
    strongest first.
    """
    flat = waves.reshape(len(waves), -1)
    sizes, turns = np.linalg.eigh(flat @ flat.conj().T)
    sizes = sizes[::-1]
    turns = turns[:, ::-1]
    kept = 1 + int(np.searchsorted(np.cumsum(sizes), (1 - rest) * sizes.sum()))
    return (turns[:, :kept].conj().T @ flat).reshape(-1, *waves.shape[1:])
