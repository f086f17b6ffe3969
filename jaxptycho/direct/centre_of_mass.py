"""Centre of mass of every pattern, and the phase integrated from it (iCoM, iDPC).

The centre of mass of |F(ψ_p e^{iφ})|² is (|ψ|² ⋆ ∇φ)/2π, for a phase of any strength, so that the
integral transfers φ with the conjugate transform of the probe's intensity (Lazić, Bosch & Lazar,
Ultramicroscopy 160, 265 (2016)).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Complex, Float

from ..physics.grids import Grid
from .bright_field import frequencies_from
from .image import DirectImage
from .placement import AbstractPlacement
from .processor import AbstractProcessor, Block
from .scan_grid import ScanGrid
from .transfer import Optics, displacement, pupil
from .virtual_detector import SignalState, joined, no_signals, stored


class CentresOfMass(NamedTuple):
    """Centre of mass of every pattern."""

    centres: Float[np.ndarray, "shot 2"]  # 1/Å (y, x) from the centre of the disc
    total: Float[np.ndarray, " shot"]  # counts
    spread: Float[np.ndarray, "2"]  # 1/Å² (y, x), variance of k within a pattern
    positions: Float[np.ndarray, "shot 2"]  # Å (y, x)
    seen: Bool[np.ndarray, " shot"]


class CentreOfMass(AbstractProcessor):
    """Processor for the centre of mass of `n_shots` patterns."""

    grid: Grid = eqx.field(static=True)
    n_shots: int = eqx.field(static=True)
    centre: tuple[float, float] = eqx.field(static=True, default=(0.0, 0.0))  # rad, of the disc

    def init(self) -> SignalState:
        """State without a pattern."""
        return no_signals(self.n_shots, 5)

    def update(self, state: SignalState, block: Block) -> SignalState:
        """State with the sums Σ(1, k_y, k_x, k_y², k_x²)·I of a block."""
        k = jnp.asarray(frequencies_from(self.grid, self.centre), jnp.float32)
        ky, kx = k[:, 0, 0], k[0, :, 1]

        def sums(pattern: Any) -> Any:
            counts = pattern.astype(jnp.float32)
            rows, columns = counts.sum(1), counts.sum(0)
            along_y = [rows @ ky, rows @ ky**2]
            along_x = [columns @ kx, columns @ kx**2]
            return jnp.stack([rows.sum(), along_y[0], along_x[0], along_y[1], along_x[1]])

        return stored(state, block, lax.map(sums, jnp.asarray(block.patterns)))

    def merge(self, first: SignalState, second: SignalState) -> SignalState:
        """State of the shots of both."""
        return joined(first, second)

    def result(self, state: SignalState) -> CentresOfMass:
        """Centres of mass; that of an empty pattern is zero."""
        sums = np.asarray(state.signals, float)
        positions, seen = np.asarray(state.positions, float), np.asarray(state.seen)
        total = sums[:, 0]
        first, second = (sums[:, a : a + 2] / np.maximum(total, 1e-30)[:, None] for a in (1, 3))
        filled = total > 0
        spread = (second - first**2)[filled].mean(0) if filled.any() else np.zeros(2)
        return CentresOfMass(first, total, spread, positions, seen)


def integrated_centre_of_mass(
    found: CentresOfMass, placement: AbstractPlacement, optics: Optics
) -> DirectImage:
    """Phase [rad] integrated from the centres of mass: −iQ·CoM(Q)/|Q|².

    A contrast inverts where the probe's transform is negative, as out of focus; `corrected`
    restores it.
    """
    mean = found.centres[found.seen].mean(0)
    spectra = np.asarray(placement.transform(jnp.asarray(found.centres - mean)))
    q = placement.grid.frequencies()
    q2 = np.sum(q**2, -1)
    q2[0, 0] = np.inf
    spectrum = -1j * (q[..., 0] * spectra[0] + q[..., 1] * spectra[1]) / q2
    dose = found.total[found.seen].mean()
    noise = placement.power / dose * (q**2 @ found.spread) / q2**2
    image = np.fft.irfft2(spectrum, placement.grid.shape)
    gain = np.conj(intensity_transform(optics, placement.grid))
    return DirectImage(image, placement.grid, gain, noise, "Integrated centre of mass")


def intensity_transform(optics: Optics, grid: ScanGrid) -> Complex[np.ndarray, "Y half"]:
    """Transform ∫P*(k)P(k + Q)dk/∫|P|² of the probe's intensity at the frequencies of `grid`.

    The pupil is sampled on the lattice of Q, divided until the probe fits into its period.
    """
    finer = _finer(optics, grid)
    lattice = np.linalg.inv(grid.steps).T / (finer * np.array(grid.shape))[:, None]
    reach = 2 * float(optics.radius + optics.edge)
    half = np.ceil(reach * np.hypot(*np.linalg.inv(lattice))).astype(int)
    index = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in half), indexing="ij"), -1)
    wave = np.asarray(pupil(optics, jnp.asarray(index @ lattice)))
    size = 2 * half + 1
    correlation = np.fft.ifft2(np.abs(np.fft.fft2(wave)) ** 2) / np.sum(np.abs(wave) ** 2)
    ny, nx = grid.shape
    y = finer * np.rint(np.fft.fftfreq(ny, 1 / ny)).astype(int)[:, None]
    x = finer * np.arange(nx // 2 + 1)
    inside = (np.abs(y) <= half[0]) & (x <= half[1])
    return np.where(inside, correlation[y % size[0], x % size[1]], 0)


def _finer(optics, grid):
    """Division of the lattice of Q with which its period is twice the probe's diameter."""
    rim = np.linspace(0, 2 * np.pi, 24)
    k = float(optics.radius) * np.stack([np.sin(rim), np.cos(rim)], -1)
    diameter = 2 * np.hypot(*np.asarray(displacement(optics, jnp.asarray(k))).T).max()
    extent = min(np.array(grid.shape) * np.hypot(*grid.steps.T))
    return int(np.ceil(2 * (diameter + 2 / float(optics.radius)) / extent))
