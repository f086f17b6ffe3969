"""Parallax (tilt-corrected bright field): images of all bright-field pixels, aligned and summed.

The image in pixel k is that of a parallel tilted beam, shifted by −∇χ(k)/2π, with the contrast
transfer 2 sin χ(Q) (Spoth, Nguyen, Muller & Kourkoutis, Microsc. Microanal. 23, 448 (2017); Yu et
al., Nat. Methods 22, 2126 (2025)). `parallax` aligns a kept stack in Fourier space, exactly;
`Parallax` deposits single patterns in real space, for positions and defoci of any kind.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Complex, Float, Int

from .bright_field import CHUNK_BYTES, BrightFieldStack, strong_modulation, transform_chunks
from .image import DirectImage
from .montage import Montage, deposit_shots, empty_montage, relative_contrast, spread_and_noise
from .placement import AbstractPlacement
from .processor import AbstractProcessor, Block
from .scan_grid import ScanGrid
from .transfer import Optics, aligned_transfer, displacement


def parallax(
    stack: BrightFieldStack,
    placement: AbstractPlacement,
    optics: Optics,
    budget: int = CHUNK_BYTES,
) -> DirectImage:
    """Contrast of the aligned images, their phases flipped by sgn sin χ.

    The transfer is that of `aligned_transfer`, for defocus and astigmatism 2|sin χ(Q)| times the
    overlap of two apertures.
    """
    q = jnp.asarray(placement.grid.frequencies())
    moves = displacement(optics, jnp.asarray(stack.k))
    total = 0.0
    for pixels, spectra in transform_chunks(stack, placement, budget):
        total = total + _aligned(spectra, moves[pixels], q)
    illumination = stack.mean.sum() / stack.intensity
    gain = np.asarray(aligned_transfer(optics, stack.k, q))
    flip = phase_flip(gain)
    spectrum = flip * np.asarray(total) / illumination
    noise = placement.power / stack.intensity / illumination * np.ones(gain.shape)
    return DirectImage(
        np.fft.irfft2(spectrum, placement.grid.shape),
        placement.grid,
        flip * gain,
        noise,
        "Parallax",
        "relative",
        strong_modulation(stack),
    )


def phase_flip(gain: Complex[np.ndarray, "Y half"]) -> Float[np.ndarray, "Y half"]:
    """Sign with which a contrast of the transfer `gain` becomes positive: sgn sin χ."""
    return np.where(np.real(gain) < 0, -1.0, 1.0)


@eqx.filter_jit
def _aligned(spectra, moves, q):
    """Σ_k G e^{−2πiQ·move}."""

    def _add(total, one):
        spectrum, move = one
        return total + spectrum * jnp.exp(-2j * jnp.pi * (q @ move)).astype(spectrum.dtype), None

    return lax.scan(_add, jnp.zeros(spectra.shape[1:], spectra.dtype), (spectra, moves))[0]


class Parallax(AbstractProcessor):
    """Processor that deposits every bright-field count at r_p + ∇χ(k)/2π, for any positions.

    `defocus_change` is the defocus of every shot relative to that of `optics` [Å]. Counts are
    divided among the four nearest pixels of `grid`; those beyond it are left out.
    """

    pixels: Int[np.ndarray, " k"]  # flat indices into the pattern, as of `BrightField`
    k: Float[np.ndarray, "k 2"]  # 1/Å
    grid: ScanGrid  # of the image
    optics: Optics
    defocus_change: Float[np.ndarray, " shot"] | None = None

    def init(self) -> Montage:
        """Empty montage."""
        return empty_montage(self.grid)

    def update(self, state: Montage, block: Block) -> Montage:
        """Montage with the patterns of a block."""
        values = jnp.reshape(block.patterns, (len(block.shots), -1))[:, self.pixels]
        change = self.defocus_change
        change = None if change is None else jnp.asarray(change)[block.shots]
        shots = block.positions, values, block.weight
        return deposit_shots(state, *shots, self.k, self.optics, self.grid, change)

    def merge(self, first: Montage, second: Montage) -> Montage:
        """Sum of both montages."""
        return Montage(first.counts + second.counts, first.expected + second.expected)

    def result(self, state: Montage) -> DirectImage:
        """Contrast of the aligned images, zero where nothing was deposited."""
        return bright_image(state, self.grid, self.optics, self.k)


def deposited_parallax(
    stack: BrightFieldStack,
    grid: ScanGrid,
    optics: Optics,
    weight: Float[np.ndarray, " shot"] | None = None,
    defocus_change: Float[np.ndarray, " shot"] | None = None,
) -> DirectImage:
    """The picture of `Parallax` from a kept stack, of some shots only with a `weight` 0 or 1."""
    weight = stack.seen.astype(float) if weight is None else weight * stack.seen
    shots = stack.positions, stack.counts, weight, stack.k
    state = deposit_shots(empty_montage(grid), *shots, optics, grid, defocus_change)
    return bright_image(state, grid, optics, stack.k)


def bright_image(
    state: Montage, grid: ScanGrid, optics: Optics, k: Float[np.ndarray, "k 2"]
) -> DirectImage:
    """Contrast counts/(I₀·expected) − 1 of a montage of pixels `k`, its phases flipped."""
    contrast = relative_contrast(state)
    spread, noise = spread_and_noise(state, grid)
    gain = np.asarray(aligned_transfer(optics, k, grid.frequencies())) * spread
    flip = phase_flip(gain)
    image = np.fft.irfft2(flip * np.fft.rfft2(contrast), grid.shape)
    return DirectImage(image, grid, flip * gain, noise, "Parallax, deposited", "relative")
