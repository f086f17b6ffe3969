"""Tilt-corrected dark field, and its fusion with parallax by spectral signal-to-noise ratio.

Segments of the dark field are deposited at r_p + ∇χ(k)/2π of their middle k, as the bright field
is; shares of four pixels keep sparse counts positive, which a Fourier shift does not (You et al.,
Adv. Sci., e76620 (2026)).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..data.ordering import alternating
from .bright_field import frequencies_from
from .image import DirectImage
from .montage import deposit_shots, empty_montage, relative_contrast, spread_and_noise
from .scan_grid import ScanGrid
from .transfer import Optics
from .virtual_detector import VirtualSignals

RING = 2.0  # frequency steps of the image in a ring of the correlation of halves
MAX_CORRELATION = 0.999  # of two halves, beyond which their noise is unknown
Pair = tuple[DirectImage, DirectImage]  # of two halves of the shots


def tilt_corrected_dark_field(
    found: VirtualSignals,
    grid: ScanGrid,
    optics: Optics,
    weight: Float[np.ndarray, " shot"] | None = None,
) -> DirectImage:
    """Contrast of the aligned images of all detectors, of some shots only with a `weight` 0 or 1.

    To first order a weak phase does not reach a dark-field detector: the transfer is zero.
    """
    weight = found.seen.astype(float) if weight is None else weight * found.seen
    k = frequencies_from(found.detector.grid, found.detector.centre)
    middles = np.stack([k[mask].mean(0) for mask in found.detector.masks])
    expected = found.signals[found.seen].mean(0)
    shots = found.positions, found.signals, weight
    state = deposit_shots(
        empty_montage(grid), *shots, middles, optics, grid, expected=jnp.asarray(expected)
    )
    noise = spread_and_noise(state, grid)[1]
    zero = np.zeros(noise.shape)
    title = "Tilt-corrected dark field"
    return DirectImage(relative_contrast(state), grid, zero, noise, title, "relative")


def shot_halves(
    positions: Float[np.ndarray, "shot 2"],
) -> tuple[Float[np.ndarray, " shot"], Float[np.ndarray, " shot"]]:
    """Weights of two halves of the shots, alternating as on a checkerboard."""
    colour = alternating(positions)
    return (colour == 0).astype(float), (colour == 1).astype(float)


def ring_signal_to_noise(halves: Pair) -> Float[np.ndarray, "Y half"]:
    """Spectral signal-to-noise ratio 2c/(1 − c) of both halves together, c their ring correlation.

    Source: Unser, Trus & Steven, Ultramicroscopy 23, 39 (1987).
    """
    first, second = (half.spectrum for half in halves)
    grid = halves[0].grid
    q = grid.frequencies()
    extent = np.sqrt(grid.area * np.prod(grid.shape))
    ring = np.rint(np.hypot(q[..., 0], q[..., 1]) * extent / RING).astype(int)

    def _rings(values):
        return np.bincount(ring.ravel(), values.ravel())

    product: Any = first * np.conj(second)
    together = _rings(product.real)
    powers = _rings(np.abs(first) ** 2) * _rings(np.abs(second) ** 2)
    correlation = np.clip(together / np.sqrt(np.maximum(powers, 1e-30)), 0, MAX_CORRELATION)
    return (2 * correlation / (1 - correlation))[ring]


def fused(bright: Pair, dark: Pair) -> DirectImage:
    """Sum (S_P·P + S_D·D)/(S_P + S_D + 1) of parallax P and dark field D, each of two halves.

    S are their spectral signal-to-noise ratios. D is scaled to the power of P where both hold
    signal, with the sign of their correlation; the picture is qualitative.
    """
    picture = bright[0]
    p, d = ((one.spectrum + two.spectrum) / 2 for one, two in (bright, dark))
    of_p, of_d = ring_signal_to_noise(bright), ring_signal_to_noise(dark)
    both = of_p * of_d / (1 + of_p) / (1 + of_d)
    both[0, 0] = 0
    power = np.sum(both * np.abs(d) ** 2)
    size = np.sqrt(np.sum(both * np.abs(p) ** 2) / max(power, 1e-30))
    common: Any = both * p * np.conj(d)
    scale = np.copysign(size, common.sum().real)
    share_p, share_d = (s / (of_p + of_d + 1) for s in (of_p, of_d))
    image = np.fft.irfft2(share_p * p + scale * share_d * d, picture.image.shape)
    noise = [(one.noise + two.noise) / 4 for one, two in (bright, dark)]
    return DirectImage(
        image,
        picture.grid,
        share_p * picture.transfer,
        share_p**2 * noise[0] + (scale * share_d) ** 2 * noise[1],
        "Parallax and dark field, fused",
        "relative",
        "the dark field is scaled to the parallax picture: the fused contrast is qualitative",
    )
